"""Residual convolutional nets for `VAE(encoder=..., decoder=...)`, in torch.

He et al. (2016), Deep residual learning for image recognition. https://arxiv.org/abs/1512.03385

As in the paper's experiments on images, but without dropout and batch normalisation: samplers want
nets that give one answer. In their place the last convolution of each block starts at zero, so
that every block starts as its shortcut (Zhang et al. 2019, https://arxiv.org/abs/1901.09321).
"""

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import interpolate, softplus

NUM_BLOCKS = 2  # in each stage
SCALE_FLOOR = 1e-4  # of q(z | x)


class Block(nn.Module):
    """relu(shortcut(x) + conv(relu(conv(x)))); the shortcut is x itself where shapes allow."""

    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)
        same = channels_in == channels_out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1, stride)

    def forward(self, x):
        return torch.relu(self.shortcut(x) + self.second(torch.relu(self.first(x))))


class ResNetEncoder(nn.Module):
    """Stages of blocks, each after the first at half the size; returns loc and scale of z."""

    def __init__(self, event_shape, latent_dim, channels):
        super().__init__()
        self.stem = nn.Conv2d(event_shape[0], channels[0], 3, padding=1)
        blocks = stage(channels[0], channels[0])
        for before, after in pairwise(channels):
            blocks += stage(before, after, stride=2)
        self.blocks = nn.ModuleList(blocks)
        height, width = sizes(event_shape, len(channels))[-1]
        self.head = nn.Linear(channels[-1] * height * width, 2 * latent_dim)

    def forward(self, x):
        rows, event = x.shape[:-3], x.shape[-3:]
        h = torch.relu(self.stem(x.reshape(math.prod(rows), *event)))
        for block in self.blocks:
            h = block(h)
        loc, raw = self.head(h.flatten(1)).reshape(*rows, -1).chunk(2, -1)
        return loc, softplus(raw) + SCALE_FLOOR


class ResNetDecoder(nn.Module):
    """The way back: each stage after the first doubles the size, nearest neighbours, and crops."""

    def __init__(self, event_shape, latent_dim, channels):
        super().__init__()
        self.event_shape = event_shape
        self.sizes = sizes(event_shape, len(channels))[::-1]
        self.small = (channels[0], *self.sizes[0])
        self.first = nn.Linear(latent_dim, math.prod(self.small))
        steps = pairwise((channels[0], *channels))
        self.stages = nn.ModuleList([nn.ModuleList(stage(*step)) for step in steps])
        self.last = nn.Conv2d(channels[-1], event_shape[0], 3, padding=1)

    def forward(self, z):
        rows = z.shape[:-1]
        h = torch.relu(self.first(z)).reshape(math.prod(rows), *self.small)
        for blocks, (height, width) in zip(self.stages, self.sizes, strict=True):
            if h.shape[-2:] != (height, width):
                h = interpolate(h, scale_factor=2, mode="nearest")[..., :height, :width]
            for block in blocks:
                h = block(h)
        return self.last(h).reshape(*rows, *self.event_shape)


def pair(event_shape, latent_dim, channels):
    """The encoder, whose stages have `channels`, and the decoder, as arguments of `VAE`."""
    back = (*channels[-2::-1], channels[0])
    encoder = ResNetEncoder(event_shape, latent_dim, channels)
    return {"encoder": encoder, "decoder": ResNetDecoder(event_shape, latent_dim, back)}


def stage(channels_in, channels_out, stride=1):
    """The blocks of one size."""
    rest = (Block(channels_out, channels_out) for _ in range(NUM_BLOCKS - 1))
    return [Block(channels_in, channels_out, stride), *rest]


def sizes(event_shape, num_stages):
    """Heights and widths of the stages, from the image's own, halved and rounded up."""
    height, width = event_shape[1:]
    return [(-(-height // 2**i), -(-width // 2**i)) for i in range(num_stages)]
