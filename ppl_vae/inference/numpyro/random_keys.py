"""Random keys as a caller gives them."""

from typing import Any

from jax import dtypes
from jax import numpy as jnp

__all__ = ["check_key"]


def check_key(key: Any) -> None:
    """Raise a `TypeError` unless `key` is one random key of jax.

    Example:
        >>> import jax
        >>> check_key(jax.random.key(1))
        >>> check_key(0)
        Traceback (most recent call last):
            ...
        TypeError: key must be a random key such as jax.random.key(0), got 0.
    """
    dtype, ndim = getattr(key, "dtype", None), getattr(key, "ndim", None)
    is_typed = dtype is not None and dtypes.issubdtype(dtype, dtypes.prng_key)
    if not ((is_typed and ndim == 0) or (dtype == jnp.uint32 and ndim == 1)):
        told = f"an array of shape {key.shape}" if ndim else repr(key)
        raise TypeError(f"key must be a random key such as jax.random.key(0), got {told}.")
