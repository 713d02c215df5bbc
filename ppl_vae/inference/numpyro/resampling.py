"""Multinomial resampling of weighted proposals."""

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
    cumulative = jnp.cumsum(weight, 0)
    threshold = cumulative[-1] * random.uniform(key, (num_draws, log_weight.shape[1]), weight.dtype)
    index = (cumulative[None] <= threshold[:, None]).sum(1)
    last_positive = (cumulative < cumulative[-1]).sum(0)
    return jnp.minimum(index, last_positive)
