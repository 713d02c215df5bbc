"""The nets of one stochastic layer, after Burda et al. (2016), https://arxiv.org/abs/1509.00519.

h = tanh(W_n ... tanh(W_1 h + b_1) ... + b_n),  loc = W h + b,  scale = exp(W' h + b')
"""

from itertools import pairwise

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ppl_vae.models.numpyro.networks import MLPDecoder, linear

__all__ = ["NormalBlock", "TanhDecoder"]


class NormalBlock(nnx.Module):
    """Return the location and scale of a stochastic layer, each (..., outputs).

    Example:
        >>> block = NormalBlock(6, (5, 5), 3, rngs=nnx.Rngs(0))
        >>> loc, scale = block(jnp.zeros((2, 6)))
        >>> loc.shape, bool((scale == 1).all())
        ((2, 3), True)
    """

    def __init__(
        self, inputs: int, hidden: tuple[int, ...], outputs: int, *, rngs: nnx.Rngs
    ) -> None:
        widths = (inputs, *hidden)
        self.layers = nnx.List([linear(i, o, rngs) for i, o in pairwise(widths)])
        self.loc = linear(widths[-1], outputs, rngs)
        self.log_scale = linear(widths[-1], outputs, rngs)

    def __call__(self, h: Array) -> tuple[Array, Array]:
        for layer in self.layers:
            h = jnp.tanh(layer(h))
        return self.loc(h), jnp.exp(self.log_scale(h))


class TanhDecoder(MLPDecoder):
    """Return the parameters of p(x | z1), (..., B, *event), with tanh between the layers."""

    activation = staticmethod(jnp.tanh)
