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
import numpyro
import numpyro.distributions as dist
from flax import nnx
from jax import Array

from ppl_vae.models.architecture import Architecture
from ppl_vae.models.numpyro.base import Likelihood, NetProgram, standard_normal
from ppl_vae.models.numpyro.networks import build_decoder, build_encoder
from ppl_vae.models.numpyro.registered import RegisteredNet
from ppl_vae.models.record import check_shape

__all__ = ["VAE"]


class VAE(NetProgram):
    """A variational autoencoder with sites `z` and `x` in the plate `rows`.

    The weights are the NumPyro parameters `encoder$params` and `decoder$params` (and
    `likelihood$params` for the normal likelihood). Those of built-in nets are drawn from the key
    of the seeded run, own nets start from the weights that they hold. State of theirs other than
    `nnx.Param`, such as batch statistics, is the mutable site `encoder$state` or `decoder$state`,
    which `fit` keeps up to date.

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
        output_bias: first bias of the built-in MLP decoder, in the shape of its output, such as
            `ppl_vae.pixels.pixel_logits(x_train)`; by default zeros.

    Raises:
        TypeError: a net that is no nnx module, or a size that is no whole number.
        ValueError: sizes below 1, an unknown likelihood, an output_bias that does not fit, or,
            when run, a wrong shape.

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
        output_bias: Any = None,
    ) -> None:
        spec = Architecture.parse(
            event_shape, latent_dim, hidden, likelihood, encoder is not None, decoder is not None
        )
        build = partial(build_decoder, spec, output_bias=spec.check_output_bias(output_bias))
        self.encoder = RegisteredNet("encoder", encoder, partial(build_encoder, spec))
        self.decoder = RegisteredNet("decoder", decoder, build)
        self.likelihood = RegisteredNet("likelihood", None, partial(Likelihood, spec))
        super().__init__(spec, (self.encoder, self.decoder, self.likelihood))
        self.latent_dim = spec.latent_dim
        self._encoder_takes_mask = encoder is not None and "mask" in signature(encoder).parameters

    def model(self, x: Array | None = None, *, num_rows: int = 1) -> Array:
        """p(x, z) of the rows of x, (B, *event); without x, draw `num_rows` rows."""
        decoder, likelihood = self.decoder.register(), self.likelihood.register()
        with numpyro.plate("rows", num_rows if x is None else self._num_rows(x), dim=-1):
            z = numpyro.sample("z", standard_normal(self.latent_dim))
            raw = decoder(z)
            expected = (*jnp.shape(z)[:-1], *self.record.parameter_shape)
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
