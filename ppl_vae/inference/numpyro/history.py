"""A bounded history of imputations: a reservoir sample of all that became usable, per row.

Simkus and Gutmann (2023), section 4.1, keep every imputation.  Here, each time the chain leaves
its latents one imputation drawn from them is offered, with a weight: the number of iterations that
the chain stayed.  It replaces a uniformly chosen entry with probability
min(1, size * weight / total weight), so that a uniform pick from the history is (up to that
minimum) a uniform pick from all imputations made before the current latents were reached.

Shapes: H entries, B rows, *event.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, random

__all__ = [
    "History",
    "offer",
    "pick",
    "pick_at_random",
    "pick_over_time",
    "start_history",
]


class History(NamedTuple):
    """Entries usable now, and the tally of those that are not yet."""

    x: Array  # (H, B, *event)
    time: Array  # `total` when the entry came in, (H, B)
    total: Array  # iterations that the entries stand for, (B,)
    stay: Array  # iterations spent at the current latents, (B,)


def start_history(x: Array, size: int, *, binary: bool) -> History:
    """Start with imputations x (P, B, *event), evenly spaced where P > `size`, repeated where less.

    One byte a value is kept if all are 0 or 1.
    """
    index, one = jnp.arange(size) * len(x) // size, jnp.ones(x.shape[1])
    entries = x[index].astype(bool) if binary else x[index]
    return History(entries, (1 + index)[:, None] * one, len(x) * one, one)


def pick(key: Array, history: History, x_obs: Array, mask: Array) -> Array:
    """Return for each row a uniformly chosen entry as completed row, (B, *event)."""
    size, num_rows = history.x.shape[:2]
    index = random.randint(key, (num_rows,), 0, size)
    past = history.x[index, jnp.arange(num_rows)]
    return jnp.where(mask, x_obs, past.astype(x_obs.dtype))


def pick_at_random(key: Array, history: History, num: int, x_obs: Array, mask: Array) -> Array:
    """Return `num` different entries, drawn at random, as completed rows (num, B, *event)."""
    index = random.permutation(key, len(history.x))[:num]
    return jnp.where(mask, x_obs, history.x[index].astype(x_obs.dtype))


def pick_over_time(key: Array, history: History, num: int, x_obs: Array, mask: Array) -> Array:
    """Return one entry of each of `num` stretches of time, as completed rows (num, B, *event).

    The stretches have equally many entries; every entry is as likely as with `pick_at_random`.

    Raises:
        ValueError: if `num` does not divide the size of the history.
    """
    size, num_rows = history.x.shape[:2]
    length = _stretch(size, num)
    place = length * jnp.arange(num)[:, None] + random.randint(key, (num, num_rows), 0, length)
    index = jnp.take_along_axis(history.time.argsort(0), place, 0)
    past = history.x[index, jnp.arange(num_rows)]
    return jnp.where(mask, x_obs, past.astype(x_obs.dtype))


def _stretch(size: int, num: int) -> int:
    """Return how many of `size` entries each of `num` stretches has."""
    if size % num:
        raise ValueError(f"num_past={num} must divide history_size={size} for pick_over_time.")
    return size // num


def offer(key: Array, history: History, x: Array, left: Array) -> History:
    """Offer `x`, drawn from the latents that the rows marked in `left` (B,) have just left."""
    size, num_rows = history.x.shape[:2]
    key_slot, key_enter = random.split(key)
    slot = random.randint(key_slot, (num_rows,), 0, size)
    total = history.total + history.stay
    enters = left & (random.uniform(key_enter, (num_rows,)) * total < size * history.stay)

    at = jnp.where(enters, slot, size), jnp.arange(num_rows)  # beyond the last entry: dropped
    entries = x.astype(history.x.dtype)
    return History(
        history.x.at[at].set(entries, mode="drop", unique_indices=True),
        history.time.at[at].set(total, mode="drop", unique_indices=True),
        jnp.where(left, total, history.total),
        jnp.where(left, 1.0, history.stay + 1),
    )
