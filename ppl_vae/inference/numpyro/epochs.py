"""Mini-batches and epochs: one compiled scan per epoch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax, random
from numpyro.infer import SVI

from ppl_vae.inference.numpyro.program import accepts_mask, split_data
from ppl_vae.inference.numpyro.rows import row_arrays, rows_of
from ppl_vae.inference.numpyro.support import MovedInside
from ppl_vae.inference.numpyro.transforms import Transform
from ppl_vae.masks import check_data

__all__ = ["Epochs", "Keys", "Rows", "check_rows", "with_mask"]


class Rows(NamedTuple):
    """Rows of data: x (B, *event) with zeros where missing, the mask, and further arguments."""

    x: Array
    mask: Array
    args: tuple[Any, ...]


class Keys(NamedTuple):
    """The keys of a training; those of epochs and steps are folded into them."""

    init: Array
    epochs: Array
    transform: Array
    validation: Array


def check_rows(
    program: Any, transform: Transform | None, x: Any, mask: Any, args: Any, site: str
) -> Rows:
    """Return the rows as training takes them, or raise a `ValueError` for what no program takes.

    They are also shown to the program's own `check_rows(x, *args)`, if it has one, as it will
    see them: transformed, and NaN where missing.
    """
    check_data(x, mask, site=site)
    args = row_arrays(args, len(x))
    rows = Rows(*split_data(x, mask), args)
    own_check = getattr(program, "check_rows", None)
    if transform is None and own_check is None:
        return rows
    shown = _with_nan(rows)
    if transform is not None:
        shown = transform(random.key(0), shown)
        if jnp.shape(shown) != rows.x.shape:
            raise ValueError(
                "transform must return rows of the shape that it gets, "
                f"{rows.x.shape}, it returned {jnp.shape(shown)}."
            )
    if own_check is not None:
        shown = _with_nan(rows._replace(x=shown))
        own_check(shown, *args)
    return rows


@dataclass(frozen=True)
class Epochs:
    """What all epochs of a training have in common.

    Args:
        svi: the host's SVI, whose functions take the mask: `with_mask`.
        num_rows: rows of the training data.
        batch_size: rows of a mini-batch.
        shuffle: whether each epoch has an order of its own.
        transform: done to every mini-batch, or None.
    """

    svi: SVI
    num_rows: int
    batch_size: int
    shuffle: bool
    transform: Transform | None

    def start(self, keys: Keys, params: Any, rows: Rows) -> Any:
        """Return SVI's first state, with weights `params` if they are not None."""
        batch = self.first_batch(keys, rows)
        with MovedInside():  # the model is run at the guide's draw
            return self.svi.init(
                keys.init, batch.x, *batch.args, mask=batch.mask, init_params=params
            )

    def params_of(self, state: Any) -> dict[str, Any]:
        """Return the weights in a state of SVI, and what nets keep besides them."""
        return {**self.svi.get_params(state), **(state.mutable_state or {})}

    def first_batch(self, keys: Keys, rows: Rows) -> Rows:
        """Return the first rows, as training sees them."""
        return self._batch(keys.transform, rows, jnp.arange(self.batch_size))

    def run(
        self, state: Any, keys: Keys, epoch: Any, steps: tuple[Any, Any, Any], rows: Rows
    ) -> tuple[Any, Array]:
        """Run through the rows once; return the state and the loss per row of every step.

        `steps` are the epoch's first step and those to begin and end at: others change nothing.
        """
        first_step, begin, end = steps
        order = jnp.arange(self.num_rows)
        if self.shuffle:
            order = random.permutation(random.fold_in(keys.epochs, epoch), order)
        num_steps = self.num_rows // self.batch_size
        batches = order[: num_steps * self.batch_size].reshape(num_steps, self.batch_size)

        def update(state: Any, index: Array, step: Array) -> tuple[Any, Array]:
            batch = self._batch(random.fold_in(keys.transform, step), rows, index)
            state, loss = self.svi.update(state, batch.x, *batch.args, mask=batch.mask, step=step)
            return state, loss / self.batch_size

        def body(state: Any, index_and_step: tuple[Array, Array]) -> tuple[Any, Array]:
            index, step = index_and_step
            skip = lambda state, index, step: (state, jnp.zeros(()))  # noqa: E731
            return lax.cond((step >= begin) & (step < end), update, skip, state, index, step)

        return lax.scan(body, state, (batches, first_step + jnp.arange(num_steps)))

    def loss(self, state: Any, keys: Keys, step: Any, rows: Rows) -> Array:
        """Return the loss per row of all `rows`, in mini-batches, with nothing learned."""
        num_rows = len(rows.x)
        size = min(self.batch_size, num_rows)

        def of_batch(number: Array, index: Array) -> Array:
            key_transform, key_loss = random.split(random.fold_in(keys.validation, number))
            batch = self._batch(key_transform, rows, index)
            at = state._replace(rng_key=key_loss)
            return self.svi.evaluate(at, batch.x, *batch.args, mask=batch.mask, step=step)

        order, num_whole = jnp.arange(num_rows), num_rows // size
        whole = order[: num_whole * size].reshape(num_whole, size)
        total = lax.map(lambda at: of_batch(*at), (jnp.arange(num_whole), whole)).sum()
        if num_rows > num_whole * size:
            total += of_batch(jnp.asarray(num_whole), order[num_whole * size :])
        return total / num_rows

    def _batch(self, key: Array, rows: Rows, index: Array) -> Rows:
        batch = Rows(*rows_of(tuple(rows), index, len(rows.x)))
        if self.transform is None:
            return batch
        x = self.transform(key, _with_nan(batch))
        return batch._replace(x=jnp.where(batch.mask, x, jnp.zeros_like(x)))


def with_mask(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Let SVI hand mask and step to every function; a mask is seen by those that ask for it."""

    def run(x: Array, *args: Any, mask: Array, step: Array | None = None) -> Any:
        del step  # objectives of this library take it; the host's own hand it on
        return fn(x, *args, mask=mask) if accepts_mask(fn) else fn(x, *args)

    return run


def _with_nan(rows: Rows) -> Array:
    """Return x with NaN where it is missing, as users write it; integers stay as they are."""
    if not jnp.issubdtype(rows.x.dtype, jnp.floating):
        return rows.x
    return jnp.where(rows.mask, rows.x, jnp.nan)
