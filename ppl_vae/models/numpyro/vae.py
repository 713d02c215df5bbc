"""The variational autoencoder as a NumPyro program: `model` and `guide`, nothing else to know.

Kingma and Welling (2014), Auto-encoding variational Bayes, https://arxiv.org/abs/1312.6114.
    z ~ Normal(0, I)        x | z ~ likelihood(decoder(z))        q(z | x) = Normal(encoder(x))
Shapes: B rows, L latent dimensions, event = shape of one row. Other axes may lead the rows.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from inspect import signature
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from flax import nnx
from jax import Array, random
from jax.nn import softplus

from ppl_vae.models.architecture import Architecture, check_shape
from ppl_vae.models.numpyro.networks import build_decoder, build_encoder
from ppl_vae.models.numpyro.registered import RegisteredNet
from ppl_vae.weights import check_weights

__all__ = ["VAE", "Likelihood"]


class VAE:
    """A variational autoencoder with sites `z` and `x` in the plate `rows`.

    The weights are the NumPyro parameters `encoder$params` and `decoder$params` (and
    `likelihood$params` for the normal likelihood). Those of built-in nets are drawn from the key
    of the seeded run, own nets start from the weights that they hold; state other than
    `nnx.Param`, such as batch statistics, stays as held.

    Arguments:
        event_shape: shape of one row; (D,) gets MLP nets, (channels, height, width) gets
            convolutional nets.
        latent_dim: number L of latent dimensions.
        hidden: widths of the hidden layers, or channels of the convolutions, from data to
            latents; by default (200, 200), for images (32, 64).
        likelihood: `"bernoulli"` (x in {0, 1}), `"normal"` (one learned scale per feature, at
            least 0.01; another floor is `("normal", 0.1)`), or `("categorical", num_categories)`
            (x holds class codes 0, 1, ...).
        encoder: own module; takes x (B, *event), returns (loc, scale) of z, each (B, L). If it has
            a parameter `mask`, it gets the mask too (True = observed, or None), and must not look
            at x where the mask is False: `masked_encoder`.
        decoder: own module; takes z (B, L), returns logits or means, (B, *event), for the
            categorical likelihood logits (B, *event, num_categories).

    Raises:
        TypeError: a net that is no nnx module, or a size that is no whole number.
        ValueError: sizes below 1, an unknown likelihood, or, when run, a wrong shape.

    Example:
        >>> vae = VAE((64,), latent_dim=8)
        >>> numpyro.handlers.seed(vae.model, 0)(num_rows=5).shape
        (5, 64)
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        hidden: Sequence[int] | None = None,
        likelihood: str | tuple[str, float] = "bernoulli",
        *,
        encoder: nnx.Module | None = None,
        decoder: nnx.Module | None = None,
    ) -> None:
        self._spec = Architecture.parse(
            event_shape, latent_dim, hidden, likelihood, encoder is not None, decoder is not None
        )
        self.event_shape = self._spec.event_shape
        self.latent_dim = self._spec.latent_dim
        self.encoder = RegisteredNet("encoder", encoder, partial(build_encoder, self._spec))
        self.decoder = RegisteredNet("decoder", decoder, partial(build_decoder, self._spec))
        self._encoder_takes_mask = encoder is not None and "mask" in signature(encoder).parameters
        likelihood_net = partial(Likelihood, self._spec)
        self.likelihood = RegisteredNet("likelihood", None, likelihood_net)

    def model(self, x: Array | None = None, *, num_rows: int = 1) -> Array:
        """p(x, z) of the rows of x, (B, *event); without x, draw `num_rows` rows."""
        decoder, likelihood = self.decoder.register(), self.likelihood.register()
        with numpyro.plate("rows", num_rows if x is None else self._num_rows(x), dim=-1):
            prior = dist.Normal(jnp.zeros(self.latent_dim), jnp.ones(self.latent_dim))
            z = numpyro.sample("z", prior.to_event(1))
            raw = decoder(z)
            expected = (*jnp.shape(z)[:-1], *self._spec.parameter_shape)
            check_shape("The decoder's output", raw.shape, expected, "change the decoder.")
            return numpyro.sample("x", likelihood(raw), obs=x)

    def guide(self, x: Array, *, mask: Array | None = None) -> Array:
        """q(z | x) of the rows of x, (B, *event); `mask` is for an encoder that takes one."""
        encoder = self.encoder.register()
        num_rows = self._num_rows(x)
        loc, scale = encoder(x, mask=mask) if self._encoder_takes_mask else encoder(x)
        expected = (*jnp.shape(x)[: jnp.ndim(x) - len(self.event_shape)], self.latent_dim)
        check_shape("The encoder's loc", loc.shape, expected, "change the encoder.")
        check_shape("The encoder's scale", scale.shape, expected, "change the encoder.")
        with numpyro.plate("rows", num_rows, dim=-1):
            return numpyro.sample("z", dist.Normal(loc, scale).to_event(1))

    def architecture(self) -> dict[str, Any]:
        """Return what the weights belong to, as the header of a weight file holds it."""
        return self._spec.to_dict()

    @classmethod
    def from_architecture(
        cls,
        architecture: Mapping[str, Any],
        *,
        encoder: nnx.Module | None = None,
        decoder: nnx.Module | None = None,
    ) -> "VAE":
        """Build the VAE that `architecture()` describes; own nets must be given again."""
        spec = Architecture.from_dict(architecture)
        spec.require_own(encoder is not None, decoder is not None)
        likelihood = spec.likelihood_argument
        nets = {"encoder": encoder, "decoder": decoder}
        return cls(spec.event_shape, spec.latent_dim, spec.hidden, likelihood, **nets)

    def initial_params(self, key: Array) -> dict[str, Any]:
        """Return first weights, such as a seeded run starts from."""
        keys = random.split(key, 3)
        trees = {net.site: net.initial(k) for net, k in zip(self._nets(), keys, strict=True)}
        return {site: tree for site, tree in trees.items() if tree}

    def to_weights(self, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return copies of all weights under the names of the weight file."""
        return {k: array for net in self._nets() for k, array in net.to_weights(params).items()}

    def from_weights(self, weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return `params` that hold these weights in their dtype, or raise a `ValueError`."""
        shapes = {k: shape for net in self._nets() for k, shape in net.weight_shapes().items()}
        check_weights(weights, shapes)
        return {k: tree for net in self._nets() for k, tree in net.from_weights(weights).items()}

    def _nets(self) -> tuple[RegisteredNet, ...]:
        return self.encoder, self.decoder, self.likelihood

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

    def __init__(self, architecture: Architecture, *, rngs: nnx.Rngs) -> None:
        del rngs  # its weights start at zero
        self.name = architecture.likelihood
        self.num_event = len(architecture.event_shape)
        self.scale_floor = architecture.scale_floor or 0.0
        if self.name == "normal":
            zeros = jnp.zeros(architecture.event_shape, jnp.result_type(float))
            self.raw_scale = nnx.Param(zeros)

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
