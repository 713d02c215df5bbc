"""A chain of stochastic layers, x - z1 - ... - zL, with or without labels y.

Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, section 2 and appendix,
https://arxiv.org/abs/1509.00519.
Shapes: B rows, L_i latent dimensions of layer i, C classes, event = shape of one row.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array

from ppl_vae.models.layered import LayeredArchitecture
from ppl_vae.models.numpyro.base import Likelihood, NetProgram, standard_normal
from ppl_vae.models.numpyro.blocks import NormalBlock, TanhDecoder
from ppl_vae.models.numpyro.networks import as_input
from ppl_vae.models.numpyro.registered import RegisteredNet

__all__ = ["LayeredProgram"]


class LayeredProgram(NetProgram):
    """The nets of a chain of stochastic layers, and how model and guide run through them."""

    record: LayeredArchitecture

    def __init__(self, record: LayeredArchitecture, output_bias: Any) -> None:
        build: dict[str, Callable[..., Any]] = {
            name: partial(NormalBlock, *sizes) for name, sizes in record.blocks.items()
        }
        bias = record.check_output_bias(output_bias)
        build["p_x"] = partial(TanhDecoder, record.decoder, output_bias=bias)
        build["likelihood"] = partial(Likelihood, record)
        self._net = {name: RegisteredNet(name, None, make) for name, make in build.items()}
        super().__init__(record, tuple(self._net.values()))
        self.latent_dims = record.latent_dims

    def _run_model(self, x: Array | None, num_rows: int, classes: Array | None = None) -> Array:
        """p(x, z1, ..., zL | y) from the top; `classes` is y in one-hot form, (B, C)."""
        nets = {name: net.register() for name, net in self._net.items() if name[:2] != "q_"}
        top = len(self.latent_dims)
        with numpyro.plate("rows", num_rows, dim=-1):
            learned = nets.get(f"p_z{top}")
            prior = (
                standard_normal(self.latent_dims[-1]) if learned is None else _at(learned, classes)
            )
            z = numpyro.sample(f"z{top}", prior)
            for layer in range(top - 1, 0, -1):
                z = numpyro.sample(f"z{layer}", _at(nets[f"p_z{layer}"], z))
            raw = nets["p_x"](_beside(z, classes))
            return numpyro.sample("x", nets["likelihood"](raw), obs=x)

    def _run_guide(self, x: Array, classes: Array | None = None) -> tuple[Array, ...]:
        """q(z1 | x, y) q(z2 | z1) ... q(zL | zL-1), from the data up."""
        nets = {name: net.register() for name, net in self._net.items() if name[:2] == "q_"}
        num_rows = self._num_rows(x)
        h = _beside(self._flat(x), classes)
        drawn = []
        with numpyro.plate("rows", num_rows, dim=-1):
            for name, net in nets.items():
                h = numpyro.sample(name[2:], _at(net, h))
                drawn.append(h)
        return tuple(drawn)

    def _flat(self, x: Array) -> Array:
        rows = jnp.shape(x)[: jnp.ndim(x) - len(self.event_shape)]
        return as_input(x, self.record.num_categories, jnp.result_type(float)).reshape(*rows, -1)


def _at(net: Callable[[Any], tuple[Array, Array]], h: Array | None) -> dist.Distribution:
    return dist.Normal(*net(h)).to_event(1)


def _beside(h: Array, classes: Array | None) -> Array:
    """Append the labels to the features of every row, whatever axes lead the rows."""
    if classes is None:
        return h
    return jnp.concatenate([h, jnp.broadcast_to(classes, (*h.shape[:-1], classes.shape[-1]))], -1)
