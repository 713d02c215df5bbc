"""A chain of stochastic layers, x - z1 - ... - zL, with or without labels y.

Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, section 2 and appendix,
https://arxiv.org/abs/1509.00519.
Shapes: B rows, L_i latent dimensions of layer i, C classes, event = shape of one row.
"""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.models.layered import LayeredArchitecture
from ppl_vae.models.pyro.base import Likelihood, NetProgram, register
from ppl_vae.models.pyro.blocks import NormalBlock, TanhDecoder
from ppl_vae.models.pyro.networks import as_input

__all__ = ["LayeredProgram"]


class LayeredProgram(NetProgram):
    """The nets of a chain of stochastic layers, and how model and guide run through them."""

    record: LayeredArchitecture

    def __init__(self, record: LayeredArchitecture, output_bias: Any) -> None:
        super().__init__(record, record.latent_dims[-1])
        self.latent_dims = record.latent_dims
        for name, sizes in record.blocks.items():
            self.add_module(name, NormalBlock(*sizes))
        bias = record.check_output_bias(output_bias)
        self.p_x = TanhDecoder(record.decoder, output_bias=bias)
        self.likelihood = Likelihood(record)

    def _run_model(self, x: Tensor | None, num_rows: int, classes: Tensor | None = None) -> Tensor:
        """p(x, z1, ..., zL | y) from the top; `classes` is y in one-hot form, (B, C)."""
        nets = self._registered(lambda name: name[:2] != "q_")
        top = len(self.latent_dims)
        with pyro.plate("rows", num_rows, dim=-1):
            learned = nets.get(f"p_z{top}")
            prior = self._standard_normal() if learned is None else _at(learned, classes)
            z = pyro.sample(f"z{top}", prior)
            for layer in range(top - 1, 0, -1):
                z = pyro.sample(f"z{layer}", _at(nets[f"p_z{layer}"], z))
            raw = nets["p_x"](_beside(z, classes))
            return pyro.sample("x", nets["likelihood"](raw), obs=x)

    def _run_guide(self, x: Tensor, classes: Tensor | None = None) -> tuple[Tensor, ...]:
        """q(z1 | x, y) q(z2 | z1) ... q(zL | zL-1), from the data up."""
        nets = self._registered(lambda name: name[:2] == "q_")
        num_rows = self._num_rows(x)
        h = _beside(self._flat(x), classes)
        drawn = []
        with pyro.plate("rows", num_rows, dim=-1):
            for name, net in nets.items():
                h = pyro.sample(name[2:], _at(net, h))
                drawn.append(h)
        return tuple(drawn)

    def _registered(self, wanted: Callable[[str], bool]) -> dict[str, nn.Module]:
        nets = {name: net for name, net in self.named_children() if wanted(name)}
        for name, net in nets.items():
            register(name, net)
        return nets

    def _flat(self, x: Tensor) -> Tensor:
        rows = x.shape[: x.dim() - len(self.event_shape)]
        return as_input(x, self.record.num_categories, self.prior_loc.dtype).reshape(*rows, -1)


def _at(net: nn.Module, h: Tensor | None) -> dist.TorchDistribution:
    return dist.Normal(*net(h)).to_event(1)


def _beside(h: Tensor, classes: Tensor | None) -> Tensor:
    """Append the labels to the features of every row, whatever axes lead the rows."""
    if classes is None:
        return h
    return torch.cat([h, classes.expand(*h.shape[:-1], classes.shape[-1])], -1)
