"""The accept step that Metropolis-Hastings kernels share."""

import jax.numpy as jnp
from jax import Array, random

__all__ = ["accept_probability", "accept_rows"]


def accept_probability(log_ratio: Array) -> Array:
    """Return min(1, exp(log_ratio)); a NaN ratio counts as a rejection."""
    return jnp.where(jnp.isnan(log_ratio), 0.0, jnp.exp(jnp.minimum(log_ratio, 0.0)))


def accept_rows(key: Array, log_ratio: Array) -> Array:
    """Accept each row with probability min(1, exp(log_ratio)); shape (B,), bool."""
    uniform = random.uniform(key, log_ratio.shape, log_ratio.dtype)
    return uniform < accept_probability(log_ratio)
