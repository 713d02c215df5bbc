"""The accept step that Metropolis-Hastings kernels share."""

import torch
from torch import Tensor

__all__ = ["accept_probability", "accept_rows"]


def accept_probability(log_ratio: Tensor) -> Tensor:
    """Return min(1, exp(log_ratio)); a NaN ratio counts as a rejection."""
    return torch.where(log_ratio.isnan(), 0.0, log_ratio.clamp(max=0.0).exp())


def accept_rows(log_ratio: Tensor) -> Tensor:
    """Accept each row with probability min(1, exp(log_ratio)); shape (..., B), bool."""
    return torch.rand_like(log_ratio) < accept_probability(log_ratio)
