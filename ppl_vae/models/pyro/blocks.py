"""The nets of one stochastic layer, after Burda et al. (2016), https://arxiv.org/abs/1509.00519.

h = tanh(W_n ... tanh(W_1 h + b_1) ... + b_n),  loc = W h + b,  scale = exp(W' h + b')
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from ppl_vae.models.pyro.networks import MLPDecoder, linear

__all__ = ["NormalBlock", "TanhDecoder"]


class NormalBlock(nn.Module):
    """Return the location and scale of a stochastic layer, each (..., outputs).

    Example:
        >>> block = NormalBlock(6, (5, 5), 3)
        >>> loc, scale = block(torch.zeros(2, 6))
        >>> loc.shape, bool((scale == 1).all())
        (torch.Size([2, 3]), True)
    """

    def __init__(self, inputs: int, hidden: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        widths = (inputs, *hidden)
        self.layers = nn.ModuleList([linear(i, o) for i, o in pairwise(widths)])
        self.loc = linear(widths[-1], outputs)
        self.log_scale = linear(widths[-1], outputs)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.layers:
            h = torch.tanh(layer(h))
        return self.loc(h), torch.exp(self.log_scale(h))


class TanhDecoder(MLPDecoder):
    """Return the parameters of p(x | z1), (..., B, *event), with tanh between the layers."""

    activation = staticmethod(torch.tanh)
