"""Choosing per row between proposals: of latents, densities and the model's distributions alike.

A leaf of a distribution without a row axis does not depend on the row's latent, so that it is the
same in all that there is to choose from.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppl_vae.incomplete_data import is_column

__all__ = ["row_arrays", "rows_of", "select_rows", "take_rows"]


def row_arrays(tree: Any, num_rows: int) -> Any:
    """Make lists of one number a row, and columns of data frames, arrays; leave the rest."""

    def is_one(leaf: Any) -> bool:
        return is_column(leaf, num_rows)

    def as_array(leaf: Any) -> Any:
        return np.asarray(leaf) if is_one(leaf) else leaf

    return jax.tree.map(as_array, tree, is_leaf=is_one)


def rows_of(tree: Any, rows: Array, num_rows: int) -> Any:
    """Cut from every array that has one entry a row those of `rows`; leave the rest as it is."""

    def cut(leaf: Any) -> Any:
        by_row = getattr(leaf, "ndim", 0) > 0 and leaf.shape[0] == num_rows
        return jnp.asarray(leaf)[rows] if by_row else leaf

    return jax.tree.map(cut, tree)


def select_rows(choose_new: Array, new: Any, old: Any) -> Any:
    """Per row, take `new` where `choose_new` (B,) is True, else `old` (pytrees of arrays)."""
    num_rows = choose_new.shape[0]

    def pick(new_leaf: Array, old_leaf: Array) -> Array:
        if num_rows == 1:
            return jnp.where(choose_new[0], new_leaf, old_leaf)
        if not _has_rows(jnp.shape(new_leaf), num_rows):
            return new_leaf
        shape = (num_rows,) + (1,) * (new_leaf.ndim - 1)
        return jnp.where(choose_new.reshape(shape), new_leaf, old_leaf)

    return jax.tree.map(pick, new, old)


def take_rows(stack: Any, index: Array) -> Any:
    """Per row b, take entry `index[k, b]` of every leaf (P, B, ...); the result is (K, B, ...)."""
    num_taken, num_rows = index.shape
    rows = jnp.arange(num_rows)

    def take(leaf: Array) -> Array:
        if num_rows == 1:
            return leaf[index[:, 0]]
        if not _has_rows(leaf.shape[1:], num_rows):
            return jnp.broadcast_to(leaf[:1], (num_taken, *leaf.shape[1:]))
        return leaf[index, rows]

    return jax.tree.map(take, stack)


def _has_rows(shape: tuple[int, ...], num_rows: int) -> bool:
    return len(shape) > 0 and shape[0] == num_rows
