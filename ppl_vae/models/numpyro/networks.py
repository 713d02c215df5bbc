"""Encoders and decoders in flax nnx: an MLP for vectors, a convolutional pair for images.

The Pyro twin has the same layers under the same names, so one weight file serves both:
`layers` from input to output, weights by Glorot and Bengio (2010), biases zero, ReLU between.
All nets take any number of leading axes before the event, (..., B, *event). Images come and go
channels first, as in torch; inside, the channels are last, as XLA likes them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from numpy.typing import NDArray

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


class MLPEncoder(nnx.Module):
    """Flatten x and return the location and scale of q(z | x), each (..., B, L).

    Example:
        >>> architecture = Architecture.parse((64,), 8, (32,), "bernoulli")
        >>> encoder = MLPEncoder(architecture, rngs=nnx.Rngs(0))
        >>> loc, scale = encoder(jnp.zeros((5, 64)))
        >>> loc.shape, bool((scale > 0).all())
        ((5, 8), True)
    """

    def __init__(self, architecture: Architecture, *, rngs: nnx.Rngs) -> None:
        self.event_shape = architecture.event_shape
        self.num_categories = architecture.num_categories
        self.num_inputs = math.prod(architecture.parameter_shape)
        widths = (self.num_inputs, *architecture.hidden, 2 * architecture.latent_dim)
        self.layers = nnx.List([linear(i, o, rngs) for i, o in pairwise(widths)])

    def __call__(self, x: Array) -> tuple[Array, Array]:
        *body, head = self.layers
        h = as_input(x, self.num_categories, head.kernel.dtype)
        h = h.reshape(*x.shape[: x.ndim - len(self.event_shape)], self.num_inputs)
        for layer in body:
            h = jax.nn.relu(layer(h))
        return _loc_scale(head(h))


class MLPDecoder(nnx.Module):
    """Return the parameters of p(x | z), (..., B, *event), from z, (..., B, L).

    For the categorical likelihood a last axis holds the logits of the classes.
    """

    activation: Callable[[Array], Array] = staticmethod(jax.nn.relu)

    def __init__(
        self,
        architecture: Architecture,
        *,
        rngs: nnx.Rngs,
        output_bias: NDArray[np.float64] | None = None,
    ) -> None:
        self.parameter_shape = architecture.parameter_shape
        widths = (architecture.latent_dim, *architecture.hidden[::-1])
        body = [linear(i, o, rngs) for i, o in pairwise(widths)]
        head = linear(widths[-1], math.prod(self.parameter_shape), rngs, output_bias)
        self.layers = nnx.List([*body, head])

    def __call__(self, z: Array) -> Array:
        *body, head = self.layers
        for layer in body:
            z = self.activation(layer(z))
        return head(z).reshape(*z.shape[:-1], *self.parameter_shape)


class ConvEncoder(nnx.Module):
    """Halve images (..., B, C, H, W) once per hidden layer; return loc and scale of q(z | x)."""

    def __init__(self, architecture: Architecture, *, rngs: nnx.Rngs) -> None:
        self.num_categories = architecture.num_categories
        channels = (architecture.image_channels, *architecture.hidden)
        self.small = (channels[-1], *architecture.image_sizes[-1])
        layers: list[Any] = [_conv(i, o, 2, rngs) for i, o in pairwise(channels)]
        layers.append(linear(math.prod(self.small), 2 * architecture.latent_dim, rngs))
        self.layers = nnx.List(layers)

    def __call__(self, x: Array) -> tuple[Array, Array]:
        *convs, head = self.layers
        rows, (channels, *image) = x.shape[:-3], x.shape[-3:]
        h = as_input(x, self.num_categories, head.kernel.dtype)
        if self.num_categories is not None:  # (C, H, W, classes) to (C, classes, H, W)
            h = jnp.moveaxis(h, -1, -3)
            channels = channels * self.num_categories
        h = jnp.moveaxis(h.reshape(math.prod(rows), channels, *image), 1, -1)
        for conv in convs:
            h = jax.nn.relu(conv(h))
        flat = jnp.moveaxis(h, -1, 1).reshape(*rows, math.prod(self.small))
        return _loc_scale(head(flat))


class ConvDecoder(nnx.Module):
    """Double a small image once per hidden layer and return the parameters of p(x | z).

    Nearest-neighbour doubling and a convolution, in place of a transposed convolution, leave no
    checkerboard (Odena et al. 2016, https://distill.pub/2016/deconv-checkerboard). Each doubled
    image is cropped to the size that the encoder had there, so any height and width will do.
    """

    def __init__(self, architecture: Architecture, *, rngs: nnx.Rngs) -> None:
        self.event_shape = architecture.event_shape
        self.num_categories = architecture.num_categories
        channels = (architecture.image_channels, *architecture.hidden)[::-1]
        self.sizes = architecture.image_sizes[::-1]
        self.small = (channels[0], *self.sizes[0])
        first = linear(architecture.latent_dim, math.prod(self.small), rngs)
        convs = [_conv(i, o, 1, rngs) for i, o in pairwise(channels)]
        self.layers = nnx.List([first, *convs])

    def __call__(self, z: Array) -> Array:
        first, *convs = self.layers
        rows = z.shape[:-1]
        h = jnp.moveaxis(first(z).reshape(math.prod(rows), *self.small), 1, -1)
        for conv, (height, width) in zip(convs, self.sizes[1:], strict=True):
            h = conv(_double(jax.nn.relu(h))[:, :height, :width])
        h = jnp.moveaxis(h, -1, 1)
        if self.num_categories is None:
            return h.reshape(*rows, *self.event_shape)
        channels, *image = self.event_shape
        return jnp.moveaxis(h.reshape(*rows, channels, self.num_categories, *image), -3, -1)


class MaskedEncoder(nnx.Module):
    """Encode x_o and which entries it has: the built-in encoder of x and its mask side by side.

        loc, scale = encoder([x where observed, else 0; mask])

    The mask is appended along the first axis of the event, as more features or channels; without
    a mask all entries are observed.
    """

    def __init__(self, architecture: Architecture, *, rngs: nnx.Rngs) -> None:
        first, *rest = architecture.event_shape
        self.net = build_encoder(replace(architecture, event_shape=(2 * first, *rest)), rngs=rngs)
        self.num_event = len(architecture.event_shape)

    def __call__(self, x: Array, mask: Array | None = None) -> tuple[Array, Array]:
        mask = jnp.broadcast_to(True if mask is None else mask, x.shape)
        seen = jnp.where(mask, x, jnp.zeros_like(x))
        return self.net(jnp.concatenate([seen, mask.astype(x.dtype)], -self.num_event))


def masked_encoder(
    key: Array, event_shape: Sequence[int], latent_dim: int, hidden: Sequence[int] | None = None
) -> MaskedEncoder:
    """Return an encoder for `VAE(encoder=...)` that sees x_o and the mask: q(z | x_o).

    It is what training on incomplete rows asks for, where an encoder without the mask takes a
    missing entry for a zero. Kernels hand it the mask too, so that it proposes from q(z | x_o)
    whatever the missing entries are. Ivanov et al. (2019), https://arxiv.org/abs/1806.02382.

    Arguments:
        key: random key of the first weights.
        event_shape: shape of one row, (D,) or (channels, height, width).
        latent_dim: number L of latent dimensions.
        hidden: as for `VAE`.

    Example:
        >>> from jax import random
        >>> from ppl_vae.numpyro import VAE, masked_encoder
        >>> encoder = masked_encoder(random.key(0), (64,), 8, (32,))
        >>> vae = VAE((64,), 8, (32,), encoder=encoder)
        >>> loc, scale = encoder(jnp.zeros((5, 64)), mask=jnp.arange(64) < 32)
        >>> loc.shape
        (5, 8)
    """
    architecture = Architecture.parse(event_shape, latent_dim, hidden, "bernoulli")
    return MaskedEncoder(architecture, rngs=nnx.Rngs(key))


def build_encoder(architecture: Architecture, *, rngs: nnx.Rngs) -> nnx.Module:
    """Return the built-in encoder: convolutional for event shapes (C, H, W), else an MLP."""
    kind = ConvEncoder if len(architecture.event_shape) == 3 else MLPEncoder
    return kind(architecture, rngs=rngs)


def build_decoder(
    architecture: Architecture,
    *,
    rngs: nnx.Rngs,
    output_bias: NDArray[np.float64] | None = None,
) -> nnx.Module:
    """Return the built-in decoder: convolutional for event shapes (C, H, W), else an MLP."""
    if len(architecture.event_shape) == 3:
        return ConvDecoder(architecture, rngs=rngs)
    return MLPDecoder(architecture, rngs=rngs, output_bias=output_bias)


def _double(images: Array) -> Array:
    """Nearest-neighbour upsampling of (N, H, W, C); broadcasting is faster than `jnp.repeat`."""
    n, height, width, channels = images.shape
    wide = jnp.broadcast_to(images[:, :, None, :, None], (n, height, 2, width, 2, channels))
    return wide.reshape(n, 2 * height, 2 * width, channels)


def as_input(x: Array, num_categories: int | None, dtype: jnp.dtype) -> Array:
    """Data in the weights' dtype; class codes as indicators along a new last axis."""
    if num_categories is None:
        return jnp.asarray(x, dtype)
    return (x[..., None] == jnp.arange(num_categories)).astype(dtype)


def _loc_scale(out: Array) -> tuple[Array, Array]:
    loc, raw_scale = jnp.split(out, 2, axis=-1)
    return loc, jax.nn.softplus(raw_scale) + ENCODER_SCALE_FLOOR


def linear(
    inputs: int, outputs: int, rngs: nnx.Rngs, bias: NDArray[np.float64] | None = None
) -> nnx.Linear:
    """A layer by Glorot's law, its first bias zero or, flattened, the given one."""
    first = nnx.initializers.constant(0.0 if bias is None else bias.ravel())
    return nnx.Linear(inputs, outputs, bias_init=first, rngs=rngs, **_glorot())


def _conv(inputs: int, outputs: int, strides: int, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(
        inputs, outputs, (3, 3), strides=strides, padding=((1, 1), (1, 1)), rngs=rngs, **_glorot()
    )


def _glorot() -> dict[str, Any]:
    """Initial values, in double precision where JAX runs in it."""
    return {
        "kernel_init": nnx.initializers.glorot_uniform(),
        "param_dtype": jnp.result_type(float),
    }
