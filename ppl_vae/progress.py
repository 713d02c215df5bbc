"""How far a training is: which steps are left in which epoch, and the losses so far."""

from collections.abc import Iterator, Mapping

import numpy as np
from tqdm import tqdm

__all__ = ["Progress"]


class Progress:
    """The steps of a training, and its losses.

    Args:
        num_steps: steps of the whole run.
        steps_per_epoch: mini-batches of an epoch; the last epoch may be cut short.
        has_validation: whether a loss of the validation rows is recorded for each epoch.
        lead: leading axes of the losses, such as (num_replicas,).

    Example:
        >>> progress = Progress(5, 3, has_validation=False)
        >>> [(epoch, steps) for epoch, steps in progress.epochs(progress_bar=False)]
        [(0, (0, 0, 3)), (1, (3, 3, 5))]
    """

    def __init__(
        self,
        num_steps: int,
        steps_per_epoch: int,
        *,
        has_validation: bool,
        lead: tuple[int, ...] = (),
    ) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.num_epochs = -(-num_steps // steps_per_epoch)
        self.step = 0
        self.losses = np.zeros((*lead, num_steps), np.float32)
        self.validation_losses = np.zeros((*lead, self.num_epochs * has_validation), np.float32)

    def epochs(self, progress_bar: bool) -> Iterator[tuple[int, tuple[int, int, int]]]:
        """Yield each epoch that is left with its first step and those to begin and end at."""
        num_steps, start = self.losses.shape[-1], self.step
        epochs_left = range(start // self.steps_per_epoch, self.num_epochs)
        with tqdm(total=num_steps, initial=start, disable=not progress_bar) as bar:
            for epoch in epochs_left if start < num_steps else ():
                first = epoch * self.steps_per_epoch
                begin, end = max(start, first), min(num_steps, first + self.steps_per_epoch)
                yield epoch, (first, begin, end)
                bar.update(end - begin)
                bar.set_postfix(loss=f"{self.losses[..., begin:end].mean():.3f}")

    def record(self, losses: np.ndarray) -> None:
        """Enter the losses of the next steps, steps last.

        Raises:
            FloatingPointError: if one of them is not finite; names the step.
        """
        bad = np.argwhere(~np.isfinite(losses))
        if len(bad):
            raise FloatingPointError(
                f"The loss is {losses[tuple(bad[0])]} at step {self.step + int(bad[0][-1])}. Lower "
                "learning_rate, scale the data, or give the likelihood a larger scale floor."
            )
        end = self.step + losses.shape[-1]
        self.losses[..., self.step : end] = losses
        self.step = end

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what a checkpoint holds of it."""
        num_epochs = -(-self.step // self.steps_per_epoch)
        return {
            "step": np.asarray(self.step),
            "losses": self.losses[..., : self.step],
            "validation_losses": self.validation_losses[..., :num_epochs],
        }

    def go_on_from(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over the steps of a checkpoint.

        Raises:
            ValueError: if it has gone further than this run is to go.
        """
        step, num_steps = int(arrays["step"]), self.losses.shape[-1]
        if step > num_steps:
            raise ValueError(
                f"The checkpoint is of step {step}, and num_steps is {num_steps}: what it was "
                f"before is not kept. Give num_steps={step} or more, or another path."
            )
        self.step = step
        self.losses[..., :step] = arrays["losses"]
        known = arrays["validation_losses"]
        self.validation_losses[..., : known.shape[-1]] = known
