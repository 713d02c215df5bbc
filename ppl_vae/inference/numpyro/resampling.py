"""Multinomial resampling of weighted proposals."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, random

__all__ = ["multinomial"]


def multinomial(key: Array, log_weight: Array, num_draws: int) -> Array:
    """Draw ancestors with replacement, proportionally to the weights of each row.

    Args:
        key: random key.
        log_weight: unnormalised log-weights, shape (P, B); -inf is never drawn.
        num_draws: draws K per row.

    Returns:
        Indices in [0, P), shape (K, B); 0 where a row has no finite weight.
    """
    highest = log_weight.max(0)
    weight = jnp.exp(log_weight - jnp.where(jnp.isfinite(highest), highest, 0.0))
    cumulative = jnp.cumsum(weight, 0).T
    total = cumulative[:, -1:]
    threshold = total * random.uniform(key, (len(total), num_draws), weight.dtype)
    method = "compare_all" if len(log_weight) <= 128 else "scan"  # few: faster than bisection
    search = partial(jnp.searchsorted, side="right", method=method)
    index = jax.vmap(search)(cumulative, threshold)
    last_positive = (cumulative < total).sum(1, keepdims=True)
    return jnp.minimum(index, last_positive).T
