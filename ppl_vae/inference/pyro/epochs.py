"""Mini-batches and epochs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor

from ppl_vae.inference.pyro.compiled import Compiled
from ppl_vae.inference.pyro.data_checks import check_observed, dtype_remedy
from ppl_vae.inference.pyro.mcmc import as_numpy
from ppl_vae.inference.pyro.objectives import Objective
from ppl_vae.inference.pyro.optimisers import Descent
from ppl_vae.inference.pyro.program import Program, split_data
from ppl_vae.inference.pyro.rows import row_tensors, rows_of
from ppl_vae.inference.pyro.transforms import Transform
from ppl_vae.masks import check_data
from ppl_vae.schedules import values_at, with_values

__all__ = ["Epochs", "Rows", "check_rows"]


class Rows(NamedTuple):
    """Rows of data: x (B, *event) with zeros where missing, the mask, and further arguments."""

    x: Tensor
    mask: Tensor
    args: tuple[Any, ...]


def check_rows(
    program: Any, transform: Transform | None, x: Any, mask: Any, args: Any, site: str
) -> Rows:
    """Return the rows as training takes them, or raise a `ValueError` for what no program takes.

    They are also shown to the program's own `check_rows(x, *args)`, if it has one, as it will
    see them: transformed, and NaN where missing.
    """
    check_data(as_numpy(x), as_numpy(mask), site=site)
    x_obs, mask = split_data(x, mask)
    rows = Rows(x_obs, mask, row_tensors(args, x_obs))
    own_check = getattr(program, "check_rows", None)
    if transform is None and own_check is None:
        return rows
    shown = _with_nan(rows)
    if transform is not None:
        with torch.random.fork_rng():
            shown = transform(shown)
        if shown.shape != rows.x.shape:
            raise ValueError(
                "transform must return rows of the shape that it gets, "
                f"{tuple(rows.x.shape)}, it returned {tuple(shown.shape)}."
            )
    if own_check is not None:
        shown = _with_nan(rows._replace(x=shown))
        own_check(shown, *rows.args)
    return rows


@dataclass(frozen=True)
class Epochs:
    """What all epochs of a training have in common.

    Args:
        model: the program's model.
        guide: the program's guide.
        objective: what is maximised.
        num_rows: rows of the training data.
        batch_size: rows of a mini-batch.
        shuffle: whether each epoch has an order of its own.
        transform: done to every mini-batch, or None.
    """

    model: Callable[..., Any]
    guide: Callable[..., Any]
    objective: Objective
    num_rows: int
    batch_size: int
    shuffle: bool
    transform: Transform | None

    def start(self, rows: Rows) -> dict[str, Tensor]:
        """Return the unconstrained parameters that the objective uses, by name."""
        with pyro.poutine.trace(param_only=True) as recorded, torch.random.fork_rng():
            batch, weights = self._batch(rows, torch.arange(self.batch_size), 0)
            try:
                self._loss(batch, weights)
            except RuntimeError as error:
                if remedy := dtype_remedy(error, batch.x):
                    raise TypeError(f"The program could not be run: {error}{remedy}") from error
                raise
        self._check(batch, rows if self.transform is None else batch)
        # Two names may stand for one tensor.
        found = {id(p): (name, p) for name, p in _unconstrained(recorded.trace)}
        if not found:
            raise ValueError(
                "The program has no parameters to train: register nets with `pyro.module` and "
                "other parameters with `pyro.param`."
            )
        return dict(found.values())

    def _check(self, batch: Rows, seen: Rows) -> None:
        """Refuse what the model does not observe as it is, or outside of its support."""
        site = self.objective.site
        program = Program(self.model, self.guide, batch.x, batch.mask, site, batch.args)
        with torch.random.fork_rng(), torch.no_grad():
            check_observed(program, seen.x, seen.mask)

    def backward(self, parameters: list[Tensor], batch: tuple[Rows, dict[str, Tensor]]) -> Tensor:
        """Return the loss per row of a mini-batch, and leave its gradient with the parameters."""
        for parameter in parameters:
            parameter.grad = None
        loss = self._loss(*batch) / self.batch_size
        loss.backward()
        return loss.detach()

    def compiled_backward(self, parameters: list[Tensor]) -> Callable[[Any], Tensor]:
        """Return a function of mini-batches that does as `backward`, compiled."""

        def loss_and_gradient(batch: tuple[Rows, dict[str, Tensor]]) -> tuple[Tensor, Any]:
            loss = self._loss(*batch) / self.batch_size
            return loss.detach(), torch.autograd.grad(loss, parameters, allow_unused=True)

        def backward(batch: tuple[Rows, dict[str, Tensor]]) -> Tensor:
            loss, gradient = compiled(batch)
            for parameter, slope in zip(parameters, gradient, strict=True):
                if slope is None:
                    parameter.grad = None
                    continue
                # A copy: parts of the gradient may share memory, or lie in it in another order.
                own = torch.empty_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = own.copy_(slope)
            return loss

        compiled = Compiled(loss_and_gradient)
        return backward

    def run(
        self,
        backward: Callable[[Any], Tensor],
        descent: Descent,
        seed: int,
        steps: tuple[int, int, int],
        rows: Rows,
    ) -> Iterator[float]:
        """Run through the rows once, and yield the loss per row of every step.

        `steps` are the epoch's first step and those to begin and end at.
        """
        first_step, begin, end = steps
        order = torch.arange(self.num_rows)
        if self.shuffle:
            generator = torch.Generator().manual_seed(seed)
            order = torch.randperm(self.num_rows, generator=generator)
        batches = order[: self.num_rows // self.batch_size * self.batch_size].split(self.batch_size)
        for step, index in zip(range(begin, end), batches[begin - first_step :], strict=False):
            try:
                yield backward(self._batch(rows, index, step)).item()
            except ValueError:  # Pyro refuses what weights that ran away make of a distribution
                if all(bool(parameter.isfinite().all()) for parameter in descent.parameters):
                    raise
                yield float("nan")
            descent.step(step)

    def loss(self, seed: int, step: int, rows: Rows) -> float:
        """Return the loss per row of all `rows`, in mini-batches, with nothing learned."""
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            batches = torch.arange(len(rows.x)).split(self.batch_size)
            losses = [self._loss(*self._batch(rows, index, step)) for index in batches]
            return float(torch.stack(losses).sum()) / len(rows.x)

    def _loss(self, rows: Rows, weights: dict[str, Tensor]) -> Tensor:
        """Return the sum over the rows of a mini-batch."""
        return with_values(self.objective, weights).differentiable_loss(
            self.model, self.guide, rows.x, *rows.args, mask=rows.mask
        )

    def _batch(self, rows: Rows, index: Tensor, step: int) -> tuple[Rows, dict[str, Tensor]]:
        """Cut out a mini-batch, with the values that the objective's schedules have at `step`."""
        values = values_at(self.objective, step).items()
        weights = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in values}
        batch = Rows(*rows_of(tuple(rows), index, len(rows.x)))
        if self.transform is None:
            return batch, weights
        x = self.transform(_with_nan(batch))
        return batch._replace(x=torch.where(batch.mask, x, torch.zeros_like(x))), weights


def _unconstrained(trace: Any) -> Iterator[tuple[str, Tensor]]:
    for name, site in trace.nodes.items():
        yield name, site["value"].unconstrained()


def _with_nan(rows: Rows) -> Tensor:
    """Return x with NaN where it is missing, as users write it; integers stay as they are."""
    return torch.where(rows.mask, rows.x, torch.nan) if rows.x.is_floating_point() else rows.x
