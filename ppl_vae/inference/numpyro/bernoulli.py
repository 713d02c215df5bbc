"""Binary entries, fast on a CPU: the numbers of `numpyro.distributions`, in fewer passes."""

from math import prod

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.extend.random import threefry_2x32

__all__ = ["fixed_log_prob", "log_prob", "twice_varying_log_prob", "uniform"]


def log_prob(logits: Array, x: Array) -> Array:
    """Return log p(x) of each entry; log1p would be the slow part."""
    softplus = jnp.maximum(logits, 0) + jnp.log(1 + jnp.exp(-jnp.abs(logits)))
    return x * logits - softplus


def fixed_log_prob(logits: Array) -> Array:
    """Return log p of each entry's likelier value."""
    return -jnp.log(1 + jnp.exp(-jnp.abs(logits)))


def twice_varying_log_prob(logits: Array, x: Array) -> Array:
    """Return twice log p(x) less log p of the likelier value: 0 or -2 |logits|.

    Without a constant, which XLA would write out as an array for its reduction.
    """
    return (x * logits - logits) + (x * logits - jnp.abs(logits))


def uniform(key: Array, shape: tuple[int, ...]) -> Array:
    """Draw from U[0, 1) in steps of 2^-24, with a third of `random.uniform`'s work.

    A block of the threefry generator has two words, of which JAX uses one. Here each entry has half
    a word of its own, and shares the lowest 8 of its 24 bits with the others along the last axis,
    so that no two comparisons with probabilities have a covariance above 2^-34.
    """
    if "threefry" not in str(random.key_impl(key)):
        return random.uniform(key, shape)
    size, num_shared = prod(shape), prod(shape[:-1])
    num_own = (size + 1) // 2
    counts = jax.lax.iota(jnp.uint32, num_own + num_shared)
    words = threefry_2x32(random.key_data(key), counts)
    own, shared = words[:num_own], words[num_own:].reshape(*shape[:-1], 1) >> 24
    halves = jnp.concatenate([own >> 16, own & 0xFFFF])[:size].reshape(shape)
    return (halves << 8 | shared).astype(jnp.int32).astype(jnp.float32) * 2.0**-24
