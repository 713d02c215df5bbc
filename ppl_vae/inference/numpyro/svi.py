"""Training a program: `fit`, mini-batches through NumPyro's SVI, one compiled scan per epoch."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax, random
from numpyro import handlers
from numpyro.infer import SVI
from tqdm import tqdm

from ppl_vae.checkpoints import read_checkpoint, write_checkpoint
from ppl_vae.inference.numpyro.named_objectives import find_objective
from ppl_vae.inference.numpyro.objectives import Objective
from ppl_vae.inference.numpyro.program import accepts_mask, split_data
from ppl_vae.inference.numpyro.rows import rows_of
from ppl_vae.masks import check_data
from ppl_vae.schedules import Schedule
from ppl_vae.weights import write_weights

__all__ = ["Fitted", "fit"]


@dataclass(frozen=True)
class Fitted:
    """A trained program.

    `model` and `guide` have the weights inside: they go into kernels, `Predictive` and SVI as they
    are. `losses` holds minus the bound per row and step, in nats, shape (num_steps,).
    """

    program: Any
    params: dict[str, Any]
    losses: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def model(self) -> Callable[..., Any]:
        """The model with the trained weights."""
        return handlers.substitute(_pair(self.program)[0], data=self.params)

    @property
    def guide(self) -> Callable[..., Any]:
        """The guide with the trained weights."""
        return handlers.substitute(_pair(self.program)[1], data=self.params)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and architecture to a safetensors file that both twins open.

        Raises:
            TypeError: if the program is a plain (model, guide) pair, whose architecture is unknown.
        """
        if not hasattr(self.program, "to_weights"):
            raise TypeError(
                "Only a VAE of this library knows its architecture. Save `fitted.params` of a "
                "(model, guide) pair yourself, for example with `flax.serialization.to_bytes`."
            )
        header = {"architecture": self.program.architecture()}
        write_weights(path, self.program.to_weights(self.params), header)


def fit(
    key: Array,
    program: Any,
    x: Any,
    *args: Any,
    mask: Any = None,
    objective: str | Objective = "elbo",
    num_steps: int = 5_000,
    batch_size: int = 128,
    learning_rate: float | Schedule = 1e-3,
    clip_norm: float | None = None,
    site: str = "x",
    checkpoint: str | os.PathLike[str] | None = None,
    progress_bar: bool = True,
) -> Fitted:
    """Train a program by stochastic gradient ascent on a bound of log p(x_o).

    Args:
        key: random key; the same key gives the same result.
        program: a `VAE`, a pair (model, guide), or a `Fitted` to train on from its weights.
        x: data, shape (rows, *event), NaN where missing.
        *args: further arguments of model and guide; arrays with one entry a row are cut into the
            same mini-batches.
        mask: bool, the shape of x, True = observed; by default what is not NaN.
        objective: "elbo", "analytic-elbo", "stl", "iwae", "normalised-iwae", "iwae-stl", "dreg",
            "gdreg", "rws", "rws-dreg", "jvi", "ciwae", "renyi" or "forward-kl", or an objective of
            `ppl_vae.numpyro`, whose schedules get the step from here.
        num_steps: gradient steps (Adam).
        batch_size: rows per step; rows are reshuffled every epoch, its last incomplete batch is
            left out.
        learning_rate: Adam's step size, or a schedule such as `schedules.Cosine`.
        clip_norm: largest norm of the gradient of the mean loss per row; None for any.
        site: name of the data site.
        checkpoint: file to go on from if it exists, and to write after every epoch; with the same
            data and options the result is that of a run that was not interrupted.
        progress_bar: show steps and loss.

    Raises:
        ValueError: bad data or options, or a checkpoint of another run.
        FloatingPointError: the loss stopped being finite; names the step.

    Example:
        >>> from jax import random
        >>> from ppl_vae.numpyro import VAE, fit
        >>> from ppl_vae.datasets import digits
        >>> fitted = fit(random.key(0), VAE((64,), 4), digits(binary=True).x_train, num_steps=20)
        >>> fitted.losses.shape
        (20,)
    """
    _check_options(num_steps, batch_size, learning_rate, clip_norm)
    check_data(np.asarray(x), None if mask is None else np.asarray(mask), site=site)
    data = (*split_data(jnp.asarray(x), mask), args)
    program, first_params = _start(program)
    model, guide = _pair(program)
    key_init, key_epochs = random.split(key)
    num_rows = len(data[0])
    batch_size = min(batch_size, num_rows)
    svi = SVI(
        _with_mask(model), _with_mask(guide), _adam(learning_rate, clip_norm, batch_size),
        loss=find_objective(objective, site),
    )  # fmt: skip
    steps_per_epoch = num_rows // batch_size
    first = rows_of(data, jnp.arange(batch_size), num_rows)
    state = svi.init(key_init, first[0], *first[2], mask=first[1], init_params=first_params)
    run_epoch = jax.jit(partial(_epoch, svi, num_rows, batch_size))

    losses, start = np.zeros(num_steps, np.float32), 0
    if checkpoint is not None and Path(checkpoint).exists():
        state, losses, start = _resume(checkpoint, state, losses)
    with tqdm(total=num_steps, initial=start, disable=not progress_bar) as bar:
        for epoch in range(start // steps_per_epoch, -(-num_steps // steps_per_epoch)):
            first_step = epoch * steps_per_epoch
            begin, end = max(start, first_step), min(num_steps, first_step + steps_per_epoch)
            new, block = run_epoch(
                state, random.fold_in(key_epochs, epoch), first_step, begin, end, data
            )
            block = np.asarray(block)[begin - first_step : end - first_step]
            _refuse_if_not_finite(block, begin)
            state, losses[begin:end] = new, block
            bar.update(end - begin)
            bar.set_postfix(loss=f"{block.mean():.3f}")
            if checkpoint is not None:
                _save(checkpoint, state, losses, end)
    return Fitted(program, svi.get_params(state), losses)


def _adam(
    learning_rate: float | Schedule, clip_norm: float | None, batch_size: int
) -> optax.GradientTransformation:
    adam = optax.adam(learning_rate)
    if clip_norm is None:
        return adam
    return optax.chain(optax.clip_by_global_norm(clip_norm * batch_size), adam)  # SVI's loss: a sum


def _epoch(
    svi: SVI, num_rows: int, batch_size: int, state: Any, key: Array, first_step: Array,
    begin: Array, end: Array, data: Any,
) -> tuple[Any, Array]:  # fmt: skip
    """Run through the shuffled rows once; steps outside [begin, end) change nothing."""
    order = random.permutation(key, num_rows)
    batches = order[: num_rows // batch_size * batch_size].reshape(-1, batch_size)

    def update(state: Any, rows: Array, at: Array) -> tuple[Any, Array]:
        x, mask, args = rows_of(data, rows, num_rows)
        state, loss = svi.update(state, x, *args, mask=mask, step=at)
        return state, loss / batch_size

    def body(state: Any, rows_and_step: tuple[Array, Array]) -> tuple[Any, Array]:
        rows, at = rows_and_step
        skip = lambda state, rows, at: (state, jnp.zeros(()))  # noqa: E731
        return lax.cond((at >= begin) & (at < end), update, skip, state, rows, at)

    return lax.scan(body, state, (batches, first_step + jnp.arange(len(batches))))


def _start(program: Any) -> tuple[Any, dict[str, Any] | None]:
    """Return the program itself, and the weights to start from if it has been trained."""
    if isinstance(program, Fitted):
        return program.program, program.params
    return program, None


def _pair(program: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    if isinstance(program, tuple) and len(program) == 2:
        return program
    if hasattr(program, "model") and hasattr(program, "guide"):
        return program.model, program.guide
    raise TypeError(
        f"Expected a VAE or a pair (model, guide) to fit, got {type(program).__name__}."
    )


def _with_mask(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Let SVI hand mask and step to every function; a mask is seen by those that ask for it."""

    def run(x: Array, *args: Any, mask: Array, step: Array | None = None) -> Any:
        del step  # objectives of this library take it; the host's own hand it on
        return fn(x, *args, mask=mask) if accepts_mask(fn) else fn(x, *args)

    return run


def _check_options(
    num_steps: int, batch_size: int, learning_rate: float | Schedule, clip_norm: float | None
) -> None:
    for name, value in (("num_steps", num_steps), ("batch_size", batch_size)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}.")
    is_schedule = isinstance(learning_rate, Schedule)
    if not (is_schedule or (isinstance(learning_rate, Real) and float(learning_rate) > 0)):
        raise ValueError(
            f"learning_rate must be positive, got {learning_rate!r}; one that changes is a "
            "schedule of ppl_vae.schedules."
        )
    if not (clip_norm is None or clip_norm > 0):
        raise ValueError(f"clip_norm must be positive or None, got {clip_norm!r}.")


def _refuse_if_not_finite(losses: np.ndarray, step: int) -> None:
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        raise FloatingPointError(
            f"The loss is {losses[bad[0]]} at step {step + int(bad[0])}. Lower learning_rate, "
            "scale the data, or give the likelihood a larger scale floor."
        )


# --- checkpoints ----------------------------------------------------------------------------


def _arrays(state: Any) -> dict[str, np.ndarray]:
    state = state._replace(rng_key=random.key_data(state.rng_key))
    return {f"leaf_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}


def _save(path: Any, state: Any, losses: np.ndarray, step: int) -> None:
    write_checkpoint(path, {**_arrays(state), "losses": losses[:step], "step": np.asarray(step)})


def _resume(path: Any, state: Any, losses: np.ndarray) -> tuple[Any, np.ndarray, int]:
    arrays = read_checkpoint(path, {**_arrays(state), "step": np.asarray(0)})
    step = min(int(arrays["step"]), len(losses))
    losses[:step] = arrays["losses"][:step]
    plain = state._replace(rng_key=random.key_data(state.rng_key))
    leaves = [jnp.asarray(arrays[f"leaf_{i}"]) for i in range(len(jax.tree.leaves(plain)))]
    plain = jax.tree.unflatten(jax.tree.structure(plain), leaves)
    if jnp.issubdtype(state.rng_key.dtype, jax.dtypes.prng_key):
        plain = plain._replace(rng_key=random.wrap_key_data(plain.rng_key))
    return plain, losses, step
