"""Training a program: `fit`, mini-batches through NumPyro's SVI, one compiled scan per epoch."""

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, random
from numpyro.infer import SVI

from ppl_vae.checkpoints import read_checkpoint, write_checkpoint
from ppl_vae.inference.numpyro.epochs import Epochs, check_rows, with_mask
from ppl_vae.inference.numpyro.fitted import Fitted, pair_of
from ppl_vae.inference.numpyro.named_objectives import find_objective
from ppl_vae.inference.numpyro.objectives import Objective
from ppl_vae.inference.numpyro.optimisers import build_optimizer
from ppl_vae.inference.numpyro.transforms import Transform
from ppl_vae.progress import Progress
from ppl_vae.run_settings import check_options, describe_run
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
    site: str = "x",
    checkpoint: str | os.PathLike[str] | None = None,
    progress_bar: bool = True,
) -> Fitted:
    """Train a program by stochastic gradient ascent on a bound of log p(x_o).

    Args:
        key: random key; the same key gives the same result.
        program: a `VAE`, a pair (model, guide), or a `Fitted` to train on from its weights. Its
            method `check_rows(x, *args)`, if it has one, is called first.
        x: data, shape (rows, *event), NaN where missing.
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
    check_options(num_steps, batch_size, learning_rate, optimizer, clip_norm)
    data = None if checkpoint is None else (x, mask, validation)
    settings = describe_run(
        program, data, seed=str(random.key_data(key)), objective=objective, batch_size=batch_size,
        shuffle=shuffle, transform=transform, learning_rate=learning_rate, optimizer=optimizer,
        clip_norm=clip_norm, site=site,
    )  # fmt: skip
    key_init, key_epochs, key_transform, key_validation = random.split(key, 4)
    program, first_params = _start(program)
    model, guide = pair_of(program)
    rows = check_rows(key_transform, program, transform, x, mask, args, site)
    held_out = None
    if validation is not None:
        seen, *more = validation if isinstance(validation, tuple) else (validation,)
        held_out = check_rows(key_transform, program, transform, seen, None, tuple(more), site)
    batch_size = min(batch_size, len(rows.x))
    descent = build_optimizer(optimizer, learning_rate, clip_norm, batch_size)
    svi = SVI(with_mask(model), with_mask(guide), descent, find_objective(objective, site))
    epochs = Epochs(svi, len(rows.x), batch_size, shuffle, transform)
    state = epochs.start(key_init, key_transform, first_params, rows)
    run, loss_of = jax.jit(epochs.run), jax.jit(epochs.loss)

    has_validation = held_out is not None
    progress = Progress(num_steps, len(rows.x) // batch_size, has_validation=has_validation)
    if checkpoint is not None and Path(checkpoint).exists():
        state = _resume(checkpoint, state, progress, settings)
    for epoch, steps in progress.epochs(progress_bar):
        first, begin, end = steps
        key_epoch = random.fold_in(key_epochs, epoch)
        state, losses = run(state, key_epoch, key_transform, steps, rows)
        progress.record(np.asarray(losses)[begin - first : end - first])
        if held_out is not None:
            loss = loss_of(state, key_validation, end - 1, held_out)
            progress.validation_losses[epoch] = loss
        if checkpoint is not None:
            arrays = {**_arrays(state), **progress.arrays()}
            write_checkpoint(checkpoint, arrays, settings)
    params = svi.get_params(state)
    return Fitted(program, params, progress.losses, progress.validation_losses)


def _start(program: Any) -> tuple[Any, dict[str, Any] | None]:
    """Return the program itself, and the weights to start from if it has been trained."""
    if isinstance(program, Fitted):
        return program.program, program.params
    return program, None


# --- checkpoints ----------------------------------------------------------------------------


def _arrays(state: Any) -> dict[str, np.ndarray]:
    state = state._replace(rng_key=random.key_data(state.rng_key))
    return {f"leaf_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}


def _resume(path: Any, state: Any, progress: Progress, settings: dict[str, str]) -> Any:
    arrays = read_checkpoint(path, {**_arrays(state), "step": np.asarray(0)}, settings)
    progress.go_on_from(arrays)
    plain = state._replace(rng_key=random.key_data(state.rng_key))
    leaves = [jnp.asarray(arrays[f"leaf_{i}"]) for i in range(len(jax.tree.leaves(plain)))]
    plain = jax.tree.unflatten(jax.tree.structure(plain), leaves)
    if jnp.issubdtype(state.rng_key.dtype, jax.dtypes.prng_key):
        plain = plain._replace(rng_key=random.wrap_key_data(plain.rng_key))
    return plain
