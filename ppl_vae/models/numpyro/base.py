"""What the programs of this library share: their weights, the shape of their data, p(x | z)."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from flax import nnx
from jax import Array, random
from jax.nn import softplus

from ppl_vae.models.numpyro.registered import RegisteredNet
from ppl_vae.models.record import Record
from ppl_vae.weights import check_weights

__all__ = ["Likelihood", "NetProgram", "standard_normal"]


class NetProgram:
    """A program whose weights are those of named nets, and go into one weight file.

    Arguments:
        record: what the weights belong to.
        nets: in the order of their random keys.
    """

    def __init__(self, record: Record, nets: tuple[RegisteredNet, ...]) -> None:
        self.record = record
        self.event_shape = record.event_shape
        self._nets = nets

    def architecture(self) -> dict[str, Any]:
        """Return what the weights belong to, as the header of a weight file holds it."""
        return self.record.to_dict()

    def initial_params(self, key: Array) -> dict[str, Any]:
        """Return first weights, such as a seeded run starts from."""
        keys = random.split(key, len(self._nets))
        trees = {net.site: net.initial(k) for net, k in zip(self._nets, keys, strict=True)}
        return {site: tree for site, tree in trees.items() if tree}

    def to_weights(self, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return copies of all weights under the names of the weight file."""
        return {k: array for net in self._nets for k, array in net.to_weights(params).items()}

    def from_weights(self, weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return `params` that hold these weights in their dtype, or raise a `ValueError`."""
        check_weights(weights, self.weight_shapes())
        return {k: tree for net in self._nets for k, tree in net.from_weights(weights).items()}

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all weights by their names in the weight file."""
        return {k: shape for net in self._nets for k, shape in net.weight_shapes().items()}

    def check_rows(self, x: Array, *args: Any, **kwargs: Any) -> None:
        """Raise a `ValueError` unless the rows of x have values that the likelihood can give.

        `fit` calls it before training, with NaN where x is missing.
        """
        del args, kwargs
        self._num_rows(x)
        self.record.check_values(np.asarray(x))

    def _num_rows(self, x: Array) -> int:
        num_event = len(self.event_shape)
        shape = jnp.shape(x)
        if shape[-num_event:] != self.event_shape or len(shape) == num_event:
            raise ValueError(
                f"x must have shape (rows, {', '.join(map(str, self.event_shape))}), "
                f"got shape {shape}; reshape x or build the VAE for its event shape."
            )
        return shape[-num_event - 1]


class Likelihood(nnx.Module):
    """The distribution of one row of x, given what the decoder returned."""

    def __init__(self, record: Record, *, rngs: nnx.Rngs) -> None:
        del rngs  # its weights start at zero
        self.name = record.likelihood
        self.num_event = len(record.event_shape)
        self.scale_floor = record.scale_floor or 0.0
        if self.name == "normal":
            self.raw_scale = nnx.Param(jnp.zeros(record.event_shape, jnp.result_type(float)))

    def __call__(self, raw: Array) -> dist.Distribution:
        if self.name == "normal":
            scale = softplus(self.raw_scale[...]) + self.scale_floor
            return dist.Normal(raw, scale).to_event(self.num_event)
        family = dist.Bernoulli if self.name == "bernoulli" else ClassCodes
        return family(logits=raw).to_event(self.num_event)


class ClassCodes(dist.CategoricalLogits):
    """Categorical whose codes may be floats, as data that hold NaN are (Pyro's takes them too)."""

    def log_prob(self, value: Array) -> Array:
        return super().log_prob(jnp.asarray(value).astype(int))


def standard_normal(latent_dim: int) -> dist.Distribution:
    """Return N(0, I) of one row's latents."""
    return dist.Normal(jnp.zeros(latent_dim), jnp.ones(latent_dim)).to_event(1)
