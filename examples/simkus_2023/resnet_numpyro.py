"""Residual convolutional nets for `VAE(encoder=..., decoder=...)`, in flax nnx.

He et al. (2016), Deep residual learning for image recognition. https://arxiv.org/abs/1512.03385

As in the paper's experiments on images, but without dropout and batch normalisation: samplers want
nets that give one answer. In their place the last convolution of each block starts at zero, so
that every block starts as its shortcut (Zhang et al. 2019, https://arxiv.org/abs/1901.09321).
Images come and go channels first, as in torch; inside, the channels are last.
"""

import math
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

NUM_BLOCKS = 2  # in each stage
SCALE_FLOOR = 1e-4  # of q(z | x)


class Block(nnx.Module):
    """relu(shortcut(x) + conv(relu(conv(x)))); the shortcut is x itself where shapes allow."""

    def __init__(self, channels_in, channels_out, stride=1, *, rngs):
        self.first = conv(channels_in, channels_out, rngs, stride)
        zeros = nnx.initializers.zeros_init()
        self.second = conv(channels_out, channels_out, rngs, kernel_init=zeros)
        same = channels_in == channels_out and stride == 1
        shortcut = None if same else nnx.Conv(
            channels_in, channels_out, (1, 1), strides=stride, padding="VALID", rngs=rngs
        )  # fmt: skip
        self.shortcut = nnx.data(shortcut)

    def __call__(self, x):
        past = x if self.shortcut is None else self.shortcut(x)
        return jax.nn.relu(past + self.second(jax.nn.relu(self.first(x))))


class ResNetEncoder(nnx.Module):
    """Stages of blocks, each after the first at half the size; returns loc and scale of z."""

    def __init__(self, event_shape, latent_dim, channels, *, rngs):
        self.stem = conv(event_shape[0], channels[0], rngs)
        blocks = stage(channels[0], channels[0], rngs)
        for before, after in pairwise(channels):
            blocks += stage(before, after, rngs, stride=2)
        self.blocks = nnx.List(blocks)
        height, width = sizes(event_shape, len(channels))[-1]
        self.head = nnx.Linear(channels[-1] * height * width, 2 * latent_dim, rngs=rngs)

    def __call__(self, x):
        rows, event = x.shape[:-3], x.shape[-3:]
        h = jnp.moveaxis(jnp.asarray(x, float).reshape(math.prod(rows), *event), 1, -1)
        h = jax.nn.relu(self.stem(h))
        for block in self.blocks:
            h = block(h)
        flat = jnp.moveaxis(h, -1, 1).reshape(*rows, math.prod(h.shape[1:]))
        loc, raw = jnp.split(self.head(flat), 2, -1)
        return loc, jax.nn.softplus(raw) + SCALE_FLOOR


class ResNetDecoder(nnx.Module):
    """The way back: each stage after the first doubles the size, nearest neighbours, and crops."""

    def __init__(self, event_shape, latent_dim, channels, *, rngs):
        self.event_shape = event_shape
        self.sizes = sizes(event_shape, len(channels))[::-1]
        self.small = (channels[0], *self.sizes[0])
        self.first = nnx.Linear(latent_dim, math.prod(self.small), rngs=rngs)
        steps = pairwise((channels[0], *channels))
        self.stages = nnx.List([nnx.List(stage(*step, rngs)) for step in steps])
        self.last = conv(channels[-1], event_shape[0], rngs)

    def __call__(self, z):
        rows = z.shape[:-1]
        h = jax.nn.relu(self.first(z)).reshape(math.prod(rows), *self.small)
        h = jnp.moveaxis(h, 1, -1)
        for blocks, (height, width) in zip(self.stages, self.sizes, strict=True):
            if h.shape[1:3] != (height, width):
                h = h.repeat(2, 1).repeat(2, 2)[:, :height, :width]
            for block in blocks:
                h = block(h)
        return jnp.moveaxis(self.last(h), -1, 1).reshape(*rows, *self.event_shape)


def pair(event_shape, latent_dim, channels, rngs):
    """The encoder, whose stages have `channels`, and the decoder, as arguments of `VAE`."""
    back = (*channels[-2::-1], channels[0])
    encoder = ResNetEncoder(event_shape, latent_dim, channels, rngs=rngs)
    return {"encoder": encoder, "decoder": ResNetDecoder(event_shape, latent_dim, back, rngs=rngs)}


def stage(channels_in, channels_out, rngs, stride=1):
    """The blocks of one size."""
    rest = (Block(channels_out, channels_out, rngs=rngs) for _ in range(NUM_BLOCKS - 1))
    return [Block(channels_in, channels_out, stride, rngs=rngs), *rest]


def conv(channels_in, channels_out, rngs, stride=1, **options):
    """A convolution of 3 x 3 pixels with an edge of zeros."""
    edge = ((1, 1), (1, 1))
    return nnx.Conv(
        channels_in, channels_out, (3, 3), strides=stride, padding=edge, rngs=rngs, **options
    )


def sizes(event_shape, num_stages):
    """Heights and widths of the stages, from the image's own, halved and rounded up."""
    height, width = event_shape[1:]
    return [(-(-height // 2**i), -(-width // 2**i)) for i in range(num_stages)]
