"""Training a program: `fit`, mini-batches through NumPyro's SVI, one compiled scan per epoch."""

import copy
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, random
from numpyro.infer import SVI

from ppl_vae.checkpoints import read_checkpoint, write_checkpoint
from ppl_vae.inference.numpyro.data_checks import check_observed
from ppl_vae.inference.numpyro.epochs import Epochs, Keys, Rows, check_rows, with_mask
from ppl_vae.inference.numpyro.fitted import Fitted, pair_of
from ppl_vae.inference.numpyro.named_objectives import find_objective
from ppl_vae.inference.numpyro.objectives import Objective
from ppl_vae.inference.numpyro.optimisers import build_optimizer
from ppl_vae.inference.numpyro.program import Program
from ppl_vae.inference.numpyro.random_keys import check_key
from ppl_vae.inference.numpyro.transforms import Transform
from ppl_vae.progress import Progress
from ppl_vae.run_settings import TrainingOptions
from ppl_vae.schedules import Schedule

__all__ = ["Fitted", "fit"]


def fit(
    key: Array,
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
    optimizer: optax.GradientTransformation | None = None,
    clip_norm: float | None = None,
    validation: Any = None,
    validation_mask: Any = None,
    site: str = "x",
    checkpoint: str | os.PathLike[str] | None = None,
    progress_bar: bool = True,
) -> Fitted:
    """Train a program by stochastic gradient ascent on a bound of log p(x_o).

    Args:
        key: random key; the same key gives the same result.
        program: a `VAE`, a pair (model, guide), or a `Fitted` to train on from its weights. Its
            method `check_rows(x, *args)`, if it has one, is called first.
        x: data, shape (rows, *event), NaN where missing. Continuous columns should be of unit
            scale: less their mean, over their standard deviation.
        *args: further arguments of model and guide; arrays with one entry a row are cut into the
            same mini-batches.
        mask: bool, the shape of x, True = observed; by default what is not NaN.
        objective: "elbo", "analytic-elbo", "stl", "iwae", "normalised-iwae", "iwae-stl", "dreg",
            "gdreg", "rws", "rws-dreg", "jvi", "ciwae", "renyi" or "forward-kl", or an objective of
            `ppl_vae.numpyro`, whose schedules get the step from here.
        num_steps: gradient steps.
        batch_size: rows per step; an epoch's last incomplete batch is left out.
        shuffle: reshuffle the rows every epoch, or take them in their order.
        transform: `transform(key, x)`, done to each mini-batch with a key of its own, such as
            `dynamic_binarisation`; x is NaN where missing, and stays missing there.
        learning_rate: Adam's step size, by default 1e-3, or a schedule such as `schedules.Stages`.
        optimizer: one of optax in place of Adam; its gradient is that of the mean loss per row.
        clip_norm: largest norm of the gradient of the mean loss per row; None for any.
        validation: rows to record the loss of after every epoch, like x, or (x, *args); never
            trained on. They are transformed too, with the same draws at every epoch.
        validation_mask: bool, like mask, of the validation rows; by default what is not NaN.
        site: name of the data site.
        checkpoint: file to go on from if it exists, and to write after every epoch; with the same
            data and options the result is that of a run that was not interrupted.
        progress_bar: show steps and loss.

    Raises:
        ValueError: bad data or options, or a checkpoint of another run; says what differs.
        TypeError: what is no program, objective or optimiser.
        FloatingPointError: the loss stopped being finite; names the step.

    Example:
        >>> from jax import random
        >>> from ppl_vae.numpyro import VAE, fit
        >>> from ppl_vae.datasets import digits
        >>> fitted = fit(random.key(0), VAE((64,), 4), digits(binary=True).x_train, num_steps=20)
        >>> fitted.losses.shape
        (20,)
    """
    check_key(key)
    options = TrainingOptions(
        mask=mask, objective=objective, num_steps=num_steps, batch_size=batch_size,
        shuffle=shuffle, transform=transform, learning_rate=learning_rate, optimizer=optimizer,
        clip_norm=clip_norm, validation=validation, validation_mask=validation_mask, site=site,
        checkpoint=checkpoint, progress_bar=progress_bar,
    )  # fmt: skip
    training = prepare(program, x, args, options)
    keys = Keys(*random.split(key, 4))
    state = training.epochs.start(keys, training.params, training.rows)
    check_first_batch(training, keys, state, options)
    run, loss_of = jax.jit(training.epochs.run), jax.jit(training.epochs.loss)
    words = options.words(program, x, args, seed=str(random.key_data(key)))
    progress = training.progress(options.num_steps)
    state = descend(training, run, loss_of, state, keys, progress, options, words)
    params = training.epochs.params_of(state)
    return Fitted(training.program, params, progress.losses, progress.validation_losses)


class Training(NamedTuple):
    """A program and its data, ready to be trained."""

    program: Any
    params: dict[str, Any] | None
    epochs: Epochs
    rows: Rows
    held_out: Rows | None

    def progress(self, num_steps: int, *lead: int) -> Progress:
        """Return a beginning, with losses of leading axes `lead`."""
        steps_per_epoch = self.epochs.num_rows // self.epochs.batch_size
        has_validation = self.held_out is not None
        return Progress(num_steps, steps_per_epoch, has_validation=has_validation, lead=lead)


def prepare(program: Any, x: Any, args: tuple[Any, ...], options: TrainingOptions) -> Training:
    """Check program and data, and bring them together."""
    site, transform = options.site, options.transform
    program, params = _start(program)
    model, guide = pair_of(program)
    rows = check_rows(program, transform, x, options.mask, args, site)
    held_out = None
    if options.validation is not None:
        whole = options.validation
        seen, *more = whole if isinstance(whole, tuple) else (whole,)
        held_out = check_rows(program, transform, seen, options.validation_mask, tuple(more), site)
    num_rows = len(rows.x)
    batch_size = min(options.batch_size, num_rows)
    optimizer = build_optimizer(
        options.optimizer, options.learning_rate, options.clip_norm, batch_size
    )
    objective = copy.copy(find_objective(options.objective, site))
    objective.scales_plates = False  # the loss is reported per row
    svi = SVI(with_mask(model), with_mask(guide), optimizer, objective)
    epochs = Epochs(svi, num_rows, batch_size, options.shuffle, transform)
    return Training(program, params, epochs, rows, held_out)


def check_first_batch(training: Training, keys: Keys, state: Any, options: Any) -> None:
    """Refuse what the model does not observe as it is, or outside of its support."""
    rows, params = training.rows, training.epochs.params_of(state)
    batch = training.epochs.first_batch(keys, rows)
    pair, site = pair_of(training.program), options.site
    program = Program(*pair, batch.x, batch.mask, site, params, batch.args)
    seen = rows if options.transform is None else batch
    check_observed(keys.init, program, seen.x, seen.mask)


def descend(
    training: Training, run: Any, loss_of: Any, state: Any, keys: Keys, progress: Progress,
    options: TrainingOptions, words: dict[str, str],
) -> Any:  # fmt: skip
    """Run the epochs that are left, and return the state; the losses go into `progress`.

    `run` and `loss_of` are compiled `Epochs.run` and `Epochs.loss`, of one state or of many.
    """
    path = options.checkpoint
    if path is not None and Path(path).exists():
        state = _resume(path, state, progress, words)
    for epoch, steps in progress.epochs(options.progress_bar):
        first, begin, end = steps
        state, losses = run(state, keys, epoch, steps, training.rows)
        progress.record(np.asarray(losses)[..., begin - first : end - first])
        if training.held_out is not None:
            loss = loss_of(state, keys, end - 1, training.held_out)
            progress.validation_losses[..., epoch] = loss
        if path is not None:
            write_checkpoint(path, {**_arrays(state), **progress.arrays()}, words)
    return state


def _start(program: Any) -> tuple[Any, dict[str, Any] | None]:
    """Return the program itself, and the weights to start from if it has been trained."""
    if isinstance(program, Fitted):
        return program.program, program.params
    return program, None


# --- checkpoints ----------------------------------------------------------------------------


def _arrays(state: Any) -> dict[str, np.ndarray]:
    leaves = (random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(state))
    return {f"leaf_{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}


def _resume(path: Any, state: Any, progress: Progress, settings: dict[str, str]) -> Any:
    arrays = read_checkpoint(path, {**_arrays(state), "step": np.asarray(0)}, settings)
    progress.go_on_from(arrays)
    leaves, structure = jax.tree.flatten(state)
    read = [jnp.asarray(arrays[f"leaf_{i}"]) for i in range(len(leaves))]
    return jax.tree.unflatten(
        structure,
        [
            random.wrap_key_data(new, impl=random.key_impl(old)) if _is_key(old) else new
            for new, old in zip(read, leaves, strict=True)
        ],
    )


def _is_key(leaf: Any) -> bool:
    """Whether a leaf is a typed random key, of SVI itself or of a net with dropout."""
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)
