"""Multinomial resampling of weighted proposals."""

import torch
from torch import Tensor

__all__ = ["multinomial"]


def multinomial(log_weight: Tensor, num_draws: int) -> Tensor:
    """Draw ancestors with replacement, proportionally to the weights of each row.

    Args:
        log_weight: unnormalised log-weights, shape (C, P, B); -inf is never drawn.
        num_draws: draws K per row.

    Returns:
        Indices in [0, P), shape (C, K, B); 0 where a row has no finite weight.
    """
    highest = log_weight.amax(1, keepdim=True)
    weight = (log_weight - torch.where(highest.isfinite(), highest, 0.0)).exp()
    cumulative = weight.cumsum(1).movedim(1, 2).contiguous()
    total = cumulative[..., -1:]
    threshold = total * torch.rand(
        *total.shape[:2], num_draws, dtype=total.dtype, device=total.device
    )
    index = torch.searchsorted(cumulative, threshold, right=True)
    last_positive = (cumulative < total).sum(-1, keepdim=True)
    return torch.minimum(index, last_positive).movedim(2, 1)
