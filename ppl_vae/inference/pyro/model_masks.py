"""What a model masks of its data site by itself: `poutine.mask` or `d.mask(...)`."""

from typing import Any

import torch
from pyro.distributions import Independent, MaskedDistribution
from torch import Tensor

__all__ = ["hidden_entries", "without_mask"]


def without_mask(d: Any) -> Any:
    """Return p(x | z) itself where the model hides entries of it: the samplers do so themselves."""
    if isinstance(d, MaskedDistribution):
        return without_mask(d.base_dist)
    if isinstance(d, Independent):
        base = without_mask(d.base_dist)
        return d if base is d.base_dist else base.to_event(d.reinterpreted_batch_ndims)
    return d


def hidden_entries(d: Any, mask: Tensor) -> Tensor:
    """Return where `poutine.mask` or `d.mask(...)` hides what `mask` marks as observed."""
    hidden = torch.zeros_like(mask)
    while isinstance(d, Independent | MaskedDistribution):
        if isinstance(d, MaskedDistribution):
            shown = torch.as_tensor(True if d._mask is None else d._mask).expand(d.batch_shape)
            shown = shown.reshape(*shown.shape, *[1] * (mask.ndim - shown.ndim))
            hidden = hidden | (mask & ~shown)
        d = d.base_dist
    return hidden
