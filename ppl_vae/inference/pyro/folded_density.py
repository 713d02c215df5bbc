"""Densities of folded rows, where the distribution cannot be unfolded: normalising flows."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ppl_vae.inference.pyro.rows import fold_rows, unfold_rows

__all__ = ["unfold_density"]


class _FoldedDensity(Distribution):
    """What a guide's site or a prior is asked for where its rows cannot be chosen from."""

    def __init__(self, folded: Any, axes: torch.Size) -> None:
        self.folded = folded
        super().__init__(axes, folded.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        return self.folded.support

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return self.folded.has_rsample

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the density of values with axes that match the batch's, and others before them."""
        num_event = len(self.event_shape)
        lead = torch.broadcast_shapes(value.shape[: value.ndim - num_event], self.batch_shape)
        value = value.expand(*lead, *self.event_shape)
        each = value.reshape(-1, *self.batch_shape, *self.event_shape)
        log_probs = [self.folded.log_prob(fold_rows(v, self.batch_shape)) for v in each]
        return torch.stack(log_probs).reshape(lead)


def unfold_density(d: Any, axes: torch.Size) -> Any:
    """Split the row axis of a distribution into `axes`, of its densities if no more is possible."""
    try:
        return unfold_rows(d, axes)
    except NotImplementedError:
        return _FoldedDensity(d, axes)
