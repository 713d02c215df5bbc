"""Encoders and decoders in plain torch: an MLP for vectors, a convolutional pair for images.

The NumPyro twin has the same layers under the same names, so one weight file serves both:
`layers` from input to output, weights by Glorot and Bengio (2010), biases zero, ReLU between.
All nets take any number of leading axes before the event, (..., B, *event).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate, softplus

from ppl_vae.models.architecture import Architecture

__all__ = [
    "ENCODER_SCALE_FLOOR",
    "ConvDecoder",
    "ConvEncoder",
    "MLPDecoder",
    "MLPEncoder",
    "MaskedEncoder",
    "as_input",
    "build_decoder",
    "build_encoder",
    "linear",
    "masked_encoder",
]

ENCODER_SCALE_FLOOR = 1e-4
"""Smallest scale of q(z | x): keeps log q finite where softplus underflows."""


class MLPEncoder(nn.Module):
    """Flatten x and return the location and scale of q(z | x), each (..., B, L).

    Example:
        >>> encoder = MLPEncoder(Architecture.parse((64,), 8, (32,), "bernoulli"))
        >>> loc, scale = encoder(torch.zeros(5, 64))
        >>> loc.shape, bool((scale > 0).all())
        (torch.Size([5, 8]), True)
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.event_shape = architecture.event_shape
        self.num_categories = architecture.num_categories
        self.num_inputs = math.prod(architecture.parameter_shape)
        widths = (self.num_inputs, *architecture.hidden, 2 * architecture.latent_dim)
        self.layers = nn.ModuleList([linear(i, o) for i, o in pairwise(widths)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        *body, head = self.layers
        h = as_input(x, self.num_categories, next(head.parameters()).dtype)
        h = h.reshape(*x.shape[: x.dim() - len(self.event_shape)], self.num_inputs)
        for layer in body:
            h = torch.relu(layer(h))
        return _loc_scale(head(h))


class MLPDecoder(nn.Module):
    """Return the parameters of p(x | z), (..., B, *event), from z, (..., B, L).

    For the categorical likelihood a last axis holds the logits of the classes.
    """

    activation: Callable[[Tensor], Tensor] = staticmethod(torch.relu)

    def __init__(
        self, architecture: Architecture, *, output_bias: NDArray[np.float64] | None = None
    ) -> None:
        super().__init__()
        self.parameter_shape = architecture.parameter_shape
        widths = (architecture.latent_dim, *architecture.hidden[::-1])
        body = [linear(i, o) for i, o in pairwise(widths)]
        head = linear(widths[-1], math.prod(self.parameter_shape), output_bias)
        self.layers = nn.ModuleList([*body, head])

    def forward(self, z: Tensor) -> Tensor:
        *body, head = self.layers
        for layer in body:
            z = self.activation(layer(z))
        return head(z).reshape(*z.shape[:-1], *self.parameter_shape)


class ConvEncoder(nn.Module):
    """Halve images (..., B, C, H, W) once per hidden layer; return loc and scale of q(z | x)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.num_categories = architecture.num_categories
        channels = (architecture.image_channels, *architecture.hidden)
        self.small = (channels[-1], *architecture.image_sizes[-1])
        convs = [nn.Conv2d(i, o, 3, stride=2, padding=1) for i, o in pairwise(channels)]
        head = nn.Linear(math.prod(self.small), 2 * architecture.latent_dim)
        self.layers = nn.ModuleList([_glorot(layer) for layer in (*convs, head)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        *convs, head = self.layers
        rows, (channels, *image) = x.shape[:-3], x.shape[-3:]
        h = as_input(x, self.num_categories, next(head.parameters()).dtype)
        if self.num_categories is not None:  # (C, H, W, classes) to (C, classes, H, W)
            h = h.movedim(-1, -3)
            channels = channels * self.num_categories
        h = h.reshape(math.prod(rows), channels, *image)
        for conv in convs:
            h = torch.relu(conv(h))
        return _loc_scale(head(h.reshape(*rows, math.prod(self.small))))


class ConvDecoder(nn.Module):
    """Double a small image once per hidden layer and return the parameters of p(x | z).

    Nearest-neighbour doubling and a convolution, in place of a transposed convolution, leave no
    checkerboard (Odena et al. 2016, https://distill.pub/2016/deconv-checkerboard). Each doubled
    image is cropped to the size that the encoder had there, so any height and width will do.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.event_shape = architecture.event_shape
        self.num_categories = architecture.num_categories
        channels = (architecture.image_channels, *architecture.hidden)[::-1]
        self.sizes = architecture.image_sizes[::-1]
        self.small = (channels[0], *self.sizes[0])
        first = nn.Linear(architecture.latent_dim, math.prod(self.small))
        convs = [nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(channels)]
        self.layers = nn.ModuleList([_glorot(layer) for layer in (first, *convs)])

    def forward(self, z: Tensor) -> Tensor:
        first, *convs = self.layers
        rows = z.shape[:-1]
        h = first(z).reshape(math.prod(rows), *self.small)
        for conv, (height, width) in zip(convs, self.sizes[1:], strict=True):
            h = interpolate(torch.relu(h), scale_factor=2, mode="nearest")
            h = conv(h[..., :height, :width])
        if self.num_categories is None:
            return h.reshape(*rows, *self.event_shape)
        channels, *image = self.event_shape
        return h.reshape(*rows, channels, self.num_categories, *image).movedim(-3, -1)


class MaskedEncoder(nn.Module):
    """Encode x_o and which entries it has: the built-in encoder of x and its mask side by side.

        loc, scale = encoder([x where observed, else 0; mask])

    The mask is appended along the first axis of the event, as more features or channels; without
    a mask all entries are observed.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        first, *rest = architecture.event_shape
        self.net = build_encoder(replace(architecture, event_shape=(2 * first, *rest)))
        self.num_event = len(architecture.event_shape)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mask = torch.ones_like(x, dtype=torch.bool) if mask is None else mask.expand(x.shape)
        seen = torch.where(mask, x, torch.zeros_like(x))
        return self.net(torch.cat([seen, mask.to(x.dtype)], -self.num_event))


def masked_encoder(
    event_shape: Sequence[int], latent_dim: int, hidden: Sequence[int] | None = None
) -> MaskedEncoder:
    """Return an encoder for `VAE(encoder=...)` that sees x_o and the mask: q(z | x_o).

    It is what training on incomplete rows asks for, where an encoder without the mask takes a
    missing entry for a zero. Kernels hand it the mask too, so that it proposes from q(z | x_o)
    whatever the missing entries are. Ivanov et al. (2019), https://arxiv.org/abs/1806.02382.

    Arguments:
        event_shape: shape of one row, (D,) or (channels, height, width).
        latent_dim: number L of latent dimensions.
        hidden: as for `VAE`.

    Example:
        >>> from ppl_vae.pyro import VAE, masked_encoder
        >>> encoder = masked_encoder((64,), 8, (32,))
        >>> vae = VAE((64,), 8, (32,), encoder=encoder)
        >>> loc, scale = encoder(torch.zeros(5, 64), mask=torch.arange(64) < 32)
        >>> loc.shape
        torch.Size([5, 8])
    """
    return MaskedEncoder(Architecture.parse(event_shape, latent_dim, hidden, "bernoulli"))


def build_encoder(architecture: Architecture) -> nn.Module:
    """Return the built-in encoder: convolutional for event shapes (C, H, W), else an MLP."""
    return (ConvEncoder if len(architecture.event_shape) == 3 else MLPEncoder)(architecture)


def build_decoder(
    architecture: Architecture, *, output_bias: NDArray[np.float64] | None = None
) -> nn.Module:
    """Return the built-in decoder: convolutional for event shapes (C, H, W), else an MLP."""
    if len(architecture.event_shape) == 3:
        return ConvDecoder(architecture)
    return MLPDecoder(architecture, output_bias=output_bias)


def as_input(x: Tensor, num_categories: int | None, dtype: torch.dtype) -> Tensor:
    """Data in the weights' dtype; class codes as indicators along a new last axis."""
    if num_categories is None:
        return x.to(dtype)
    codes = torch.arange(num_categories, device=x.device)
    return (x[..., None] == codes).to(dtype)


def _loc_scale(out: Tensor) -> tuple[Tensor, Tensor]:
    loc, raw_scale = out.chunk(2, dim=-1)
    return loc, softplus(raw_scale, threshold=40.0) + ENCODER_SCALE_FLOOR


def linear(inputs: int, outputs: int, bias: NDArray[np.float64] | None = None) -> nn.Linear:
    """A layer by Glorot's law, its first bias zero or, flattened, the given one."""
    layer = nn.Linear(inputs, outputs)
    _glorot(layer)
    if bias is not None:
        layer.bias.data.copy_(torch.from_numpy(bias.ravel()))
    return layer


def _glorot(layer: nn.Module) -> nn.Module:
    weight, bias = layer.parameters()
    nn.init.xavier_uniform_(weight)
    nn.init.zeros_(bias)
    return layer
