"""What a model masks of its data site by itself: a `mask` handler or `d.mask(...)`."""

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

__all__ = ["hidden_entries", "without_mask"]


def without_mask(d: dist.Distribution) -> dist.Distribution:
    """Return p(x | z) itself where the model hides entries of it: the samplers do so themselves."""
    if isinstance(d, dist.MaskedDistribution):
        return without_mask(d.base_dist)
    if isinstance(d, dist.Independent):
        base = without_mask(d.base_dist)
        return d if base is d.base_dist else base.to_event(d.reinterpreted_batch_ndims)
    return d


def hidden_entries(d: dist.Distribution, mask: Array) -> Array:
    """Return where a `mask` handler or `d.mask(...)` hides what `mask` marks as observed."""
    hidden = jnp.zeros_like(mask)
    while isinstance(d, dist.Independent | dist.MaskedDistribution):
        if isinstance(d, dist.MaskedDistribution):
            shown = jnp.broadcast_to(d._mask, d.batch_shape)
            shown = shown.reshape(*shown.shape, *(1,) * (mask.ndim - shown.ndim))
            hidden = hidden | (mask & ~shown)
        d = d.base_dist
    return hidden
