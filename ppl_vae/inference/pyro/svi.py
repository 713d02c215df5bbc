"""Training a program: `fit`, mini-batches through an optimiser of torch."""

import copy
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pyro.optim import PyroOptim
from torch import Tensor, nn

from ppl_vae.checkpoints import read_checkpoint, write_checkpoint
from ppl_vae.inference.pyro.epochs import Epochs, Rows, check_rows
from ppl_vae.inference.pyro.fitted import Fitted, pair_of
from ppl_vae.inference.pyro.kernel_state import random_state, set_random_state
from ppl_vae.inference.pyro.mcmc import as_numpy
from ppl_vae.inference.pyro.named_objectives import find_objective
from ppl_vae.inference.pyro.network_state import buffers_kept, kept
from ppl_vae.inference.pyro.objectives import Objective
from ppl_vae.inference.pyro.optimisers import Descent, build_optimizer
from ppl_vae.inference.pyro.transforms import Transform
from ppl_vae.progress import Progress
from ppl_vae.run_settings import TrainingOptions
from ppl_vae.schedules import Schedule

__all__ = ["Fitted", "fit"]


def fit(
    program: Any,
    x: Any,
    *args: Any,
    mask: Any = None,
    objective: str | Objective = "elbo",
    num_steps: int = 5_000,
    batch_size: int = 128,
    shuffle: bool = True,
    transform: Transform | None = None,
    learning_rate: float | Schedule | None = None,
    optimizer: PyroOptim | None = None,
    clip_norm: float | None = None,
    validation: Any = None,
    validation_mask: Any = None,
    site: str = "x",
    checkpoint: str | os.PathLike[str] | None = None,
    jit_compile: bool = False,
    progress_bar: bool = True,
) -> Fitted:
    """Train a program by stochastic gradient ascent on a bound of log p(x_o).

    The program's own weights are trained, in place. The random draws follow `pyro.set_rng_seed`.

    Args:
        program: a `VAE` or a pair (model, guide), trained in place, or a `Fitted` to train on
            from its weights: a copy, but of a pair, whose weights lie in Pyro's store. Its
            method `check_rows(x, *args)`, if it has one, is called first.
        x: data, shape (rows, *event), NaN where missing; on the device of the weights. Continuous
            columns should be of unit scale: less their mean, over their standard deviation.
        *args: further arguments of model and guide; tensors with one entry a row are cut into the
            same mini-batches.
        mask: bool, the shape of x, True = observed; by default what is not NaN.
        objective: "elbo", "analytic-elbo", "stl", "iwae", "normalised-iwae", "iwae-stl", "dreg",
            "gdreg", "rws", "rws-dreg", "jvi", "ciwae", "renyi" or "forward-kl", or an objective of
            `ppl_vae.pyro`, whose schedules get the step from here.
        num_steps: gradient steps.
        batch_size: rows per step; an epoch's last incomplete batch is left out.
        shuffle: reshuffle the rows every epoch, or take them in their order.
        transform: `transform(x)`, done to each mini-batch, such as `dynamic_binarisation`; x is NaN
            where missing, and stays missing there.
        learning_rate: Adam's step size, by default 1e-3, or a schedule such as `schedules.Stages`.
        optimizer: one of `pyro.optim` in place of Adam, whose lr may be a schedule; its gradient is
            that of the mean loss per row.
        clip_norm: largest norm of the gradient of the mean loss per row; None for any.
        validation: rows to record the loss of after every epoch, like x, or (x, *args); never
            trained on. They are transformed too, with the same draws at every epoch.
        validation_mask: bool, like mask, of the validation rows; by default what is not NaN.
        site: name of the data site.
        checkpoint: file to go on from if it exists, and to write after every epoch; with the same
            data and options the result is that of a run that was not interrupted.
        jit_compile: record loss and gradient once and compile them with `torch.compile`: the same
            steps, up to rounding, in some two thirds of the time. The first two steps then take
            some ten seconds. A C++ compiler must be there; model and guide must not read values of
            tensors in Python (`if`, `.item()`, the length of a selection), and what else Python
            does in them, checks of values included, is done once.
        progress_bar: show steps and loss.

    Raises:
        ValueError: bad data or options, or a checkpoint of another run; says what differs.
        TypeError: what is no program, objective or optimiser.
        NotImplementedError: with `jit_compile`, if model or guide read values in Python.
        FloatingPointError: the loss stopped being finite; names the step.

    Example:
        >>> import pyro
        >>> from ppl_vae.pyro import VAE, fit
        >>> from ppl_vae.datasets import digits
        >>> pyro.set_rng_seed(0)
        >>> fitted = fit(VAE((64,), 4), digits(binary=True).x_train, num_steps=20)
        >>> fitted.losses.shape
        (20,)
    """
    options = TrainingOptions(
        mask=mask, objective=objective, num_steps=num_steps, batch_size=batch_size,
        shuffle=shuffle, transform=transform, learning_rate=learning_rate, optimizer=optimizer,
        clip_norm=clip_norm, validation=validation, validation_mask=validation_mask, site=site,
        checkpoint=checkpoint, progress_bar=progress_bar,
    )  # fmt: skip
    training = prepare(program, x, args, options, jit_compile)
    seed = int(torch.randint(2**62, ()))
    words = options.words(program, x, args)
    progress = training.progress(options.num_steps)
    descend(training, seed, progress, options, words)
    return Fitted(training.program, progress.losses, progress.validation_losses)


class Training(NamedTuple):
    """A program and its data, ready to be trained."""

    program: Any
    backward: Callable[[Any], Tensor]
    descent: Descent
    epochs: Epochs
    rows: Rows
    held_out: Rows | None
    buffers: list[Tensor]

    def progress(self, num_steps: int) -> Progress:
        """Return a beginning."""
        steps_per_epoch = self.epochs.num_rows // self.epochs.batch_size
        return Progress(num_steps, steps_per_epoch, has_validation=self.held_out is not None)


def prepare(
    program: Any, x: Any, args: tuple[Any, ...], options: TrainingOptions, jit_compile: bool
) -> Training:
    """Check program and data, and bring them together."""
    site, transform = options.site, options.transform
    program = _own(program)
    model, guide = pair_of(program)
    rows = check_rows(program, transform, x, options.mask, args, site)
    held_out = None
    if options.validation is not None:
        whole = options.validation
        seen, *more = whole if isinstance(whole, tuple) else (whole,)
        held_out = check_rows(program, transform, seen, options.validation_mask, tuple(more), site)
    num_rows = len(rows.x)
    batch_size = min(options.batch_size, num_rows)
    objective = copy.copy(find_objective(options.objective, site))
    objective.scales_plates = False  # the loss is reported per row
    epochs = Epochs(model, guide, objective, num_rows, batch_size, options.shuffle, transform)
    with buffers_kept() as buffers:
        parameters = epochs.start(rows)
    descent = build_optimizer(
        options.optimizer, options.learning_rate, options.clip_norm, parameters
    )
    if jit_compile:
        backward = epochs.compiled_backward(descent.parameters)
    else:
        backward = partial(epochs.backward, descent.parameters)
    return Training(program, backward, descent, epochs, rows, held_out, buffers)


def _own(program: Any) -> Any:
    """Return the program to train; what was fitted before keeps its weights, a copy is trained."""
    if not isinstance(program, Fitted):
        return program
    trained = program.program
    return copy.deepcopy(trained) if isinstance(trained, nn.Module) else trained


def descend(
    training: Training, seed: int, progress: Progress, options: TrainingOptions,
    words: dict[str, str],
) -> None:  # fmt: skip
    """Run the epochs that are left; the losses go into `progress`."""
    path, epochs = options.checkpoint, training.epochs
    if path is not None and Path(path).exists():
        seed = _resume(path, training, progress, words)
    for epoch, steps in progress.epochs(options.progress_bar):
        losses = epochs.run(training.backward, training.descent, seed + epoch, steps, training.rows)
        with _without_denormals():
            for loss in losses:
                progress.record(np.array([loss]))
        if training.held_out is not None:
            with kept(training.buffers):
                loss = epochs.loss(2**62 + seed, steps[-1] - 1, training.held_out)
            progress.validation_losses[epoch] = loss
        if path is not None:
            arrays = {**_arrays(training, seed), **progress.arrays()}
            write_checkpoint(path, arrays, words)


@contextmanager
def _without_denormals() -> Iterator[None]:
    """Take numbers below 1e-38 for zero: among importance weights are many, and CPUs slow there."""
    before = float(torch.tensor(1e-40) * 1) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


# --- checkpoints ----------------------------------------------------------------------------


def _weights(training: Training) -> dict[str, Tensor]:
    parameters, buffers = enumerate(training.descent.parameters), enumerate(training.buffers)
    return {f"parameter_{i}": p for i, p in parameters} | {f"buffer_{i}": b for i, b in buffers}


def _arrays(training: Training, seed: int) -> dict[str, np.ndarray]:
    moments = io.BytesIO()
    torch.save(training.descent.optimiser.state_dict(), moments)
    rng = random_state(training.descent.parameters[0].device)
    return {
        **{name: as_numpy(weight) for name, weight in _weights(training).items()},
        "optimizer": np.frombuffer(moments.getvalue(), np.uint8),
        "rng": rng.numpy(),
        "seed": np.asarray(seed),
    }


def _resume(path: Any, training: Training, progress: Progress, settings: dict[str, str]) -> int:
    """Go on from a checkpoint, and return the seed of its epochs."""
    descent, weights = training.descent, _weights(training)
    expected = {name: as_numpy(weight) for name, weight in weights.items()}
    arrays = read_checkpoint(
        path, {**expected, "step": np.asarray(0), "seed": np.asarray(0)}, settings
    )
    for name, weight in weights.items():
        weight.data.copy_(torch.as_tensor(arrays[name]))
    moments = io.BytesIO(arrays["optimizer"].tobytes())
    descent.optimiser.load_state_dict(torch.load(moments, weights_only=True))
    set_random_state(torch.as_tensor(arrays["rng"]), descent.parameters[0].device)
    progress.go_on_from(arrays)
    return int(arrays["seed"])
