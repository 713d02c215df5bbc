"""Log densities of every value under every distribution of a batch."""

from math import log, pi

import torch
from pyro.distributions import Independent, Normal
from torch import Tensor
from torch.distributions import Distribution

from ppl_vae.inference.pyro.support import log_prob_within

__all__ = ["log_prob_of_each"]


def log_prob_of_each(d: Distribution, value: Tensor) -> Tensor:
    """Return log d_k(z_p) for all p and k, shape (C, P, K, B).

    Args:
        d: distributions of batch shape (C, K, B).
        value: their arguments, shape (C, P, B, *event).

    For normal entries it is one matrix product a row, in double precision: the squares of
    (z - loc) / scale are expanded, and single precision would not survive their cancellation.
    """
    entry = d.base_dist if isinstance(d, Independent) else d
    if type(entry) is not Normal or d.event_shape != entry.batch_shape[len(d.batch_shape) :]:
        return log_prob_within(d, value.movedim(1, 0).unsqueeze(2)).movedim(0, 1)
    num_event = len(d.event_shape)
    z, loc, scale = (
        (t.unsqueeze(-1) if num_event == 0 else t.flatten(-num_event)).double().movedim(2, 1)
        for t in (value, *torch.broadcast_tensors(entry.loc, entry.scale))
    )  # (C, B, P, L), (C, B, K, L)
    precision = scale**-2
    squares = z**2 @ precision.mT - 2 * z @ (loc * precision).mT
    squares += (loc**2 * precision).sum(-1)[..., None, :]
    log_norm = scale.log().sum(-1) + 0.5 * log(2 * pi) * scale.shape[-1]
    return (-0.5 * squares - log_norm[..., None, :]).movedim(1, -1).to(value.dtype)
