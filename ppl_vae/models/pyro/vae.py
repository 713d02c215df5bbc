"""The variational autoencoder as a Pyro program: `model` and `guide`, nothing else to know.

Kingma and Welling (2014), Auto-encoding variational Bayes, https://arxiv.org/abs/1312.6114.
    z ~ Normal(0, I)        x | z ~ likelihood(decoder(z))        q(z | x) = Normal(encoder(x))
Shapes: B rows, L latent dimensions, event = shape of one row. Other axes may lead the rows.
"""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.params import param_with_module_name
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_vae.models.architecture import Architecture, check_shape
from ppl_vae.models.pyro.networks import build_decoder, build_encoder
from ppl_vae.weights import check_weights

__all__ = ["VAE", "Likelihood"]


class VAE(nn.Module):
    """A variational autoencoder with sites `z` and `x` in the plate `rows`.

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
        TypeError: a net that is no torch module, or a size that is no whole number.
        ValueError: sizes below 1, an unknown likelihood, or, when run, a wrong shape.

    Example:
        >>> vae = VAE((64,), latent_dim=8)
        >>> vae.model(num_rows=5).shape
        torch.Size([5, 64])
    """

    prior_loc: Tensor
    prior_scale: Tensor

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        hidden: Sequence[int] | None = None,
        likelihood: str | tuple[str, float] = "bernoulli",
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self._spec = Architecture.parse(
            event_shape, latent_dim, hidden, likelihood, encoder is not None, decoder is not None
        )
        self.event_shape = self._spec.event_shape
        self.latent_dim = self._spec.latent_dim
        self.encoder = _own_or_built("encoder", encoder, build_encoder, self._spec)
        self.decoder = _own_or_built("decoder", decoder, build_decoder, self._spec)
        self._encoder_takes_mask = "mask" in signature(self.encoder.forward).parameters
        self.likelihood = Likelihood(self._spec)
        # Buffers, so that the prior follows the weights to their device and dtype.
        self.register_buffer("prior_loc", torch.zeros(self.latent_dim), persistent=False)
        self.register_buffer("prior_scale", torch.ones(self.latent_dim), persistent=False)

    def model(self, x: Tensor | None = None, *, num_rows: int = 1) -> Tensor:
        """p(x, z) of the rows of x, (B, *event); without x, draw `num_rows` rows."""
        _register("decoder", self.decoder)
        _register("likelihood", self.likelihood)
        with pyro.plate("rows", num_rows if x is None else self._num_rows(x), dim=-1):
            z = pyro.sample("z", dist.Normal(self.prior_loc, self.prior_scale).to_event(1))
            raw = self.decoder(z)
            expected = z.shape[:-1] + self._spec.parameter_shape
            check_shape("The decoder's output", raw.shape, expected, "change the decoder.")
            return pyro.sample("x", self.likelihood(raw), obs=x)

    def guide(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """q(z | x) of the rows of x, (B, *event); `mask` is for an encoder that takes one."""
        _register("encoder", self.encoder)
        num_rows = self._num_rows(x)
        takes_mask = self._encoder_takes_mask
        loc, scale = self.encoder(x, mask=mask) if takes_mask else self.encoder(x)
        expected = (*x.shape[: x.dim() - len(self.event_shape)], self.latent_dim)
        check_shape("The encoder's loc", loc.shape, expected, "change the encoder.")
        check_shape("The encoder's scale", scale.shape, expected, "change the encoder.")
        with pyro.plate("rows", num_rows, dim=-1):
            return pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    def architecture(self) -> dict[str, Any]:
        """Return what the weights belong to, as the header of a weight file holds it."""
        return self._spec.to_dict()

    @classmethod
    def from_architecture(
        cls,
        architecture: Mapping[str, Any],
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> "VAE":
        """Build the VAE that `architecture()` describes; own nets must be given again."""
        spec = Architecture.from_dict(architecture)
        spec.require_own(encoder is not None, decoder is not None)
        likelihood = spec.likelihood_argument
        nets = {"encoder": encoder, "decoder": decoder}
        return cls(spec.event_shape, spec.latent_dim, spec.hidden, likelihood, **nets)

    def to_weights(self) -> dict[str, np.ndarray]:
        """Return copies of all weights under the names of the weight file."""
        return {name: t.detach().cpu().numpy().copy() for name, t in self.state_dict().items()}

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take over weights and their dtype, or raise a `ValueError` and change nothing."""
        held = self.state_dict(keep_vars=True)
        check_weights(weights, {name: tuple(tensor.shape) for name, tensor in held.items()})
        arrays = {name: torch.from_numpy(np.array(weights[name])) for name in held}
        # `.data` keeps the parameters' identity, which optimisers and Pyro's store rely on.
        for name, tensor in held.items():
            tensor.data = arrays[name].to(tensor.device)
        floating = [array.dtype for array in arrays.values() if array.is_floating_point()]
        if floating:
            self.prior_loc = self.prior_loc.to(floating[0])
            self.prior_scale = self.prior_scale.to(floating[0])

    def __getstate__(self) -> dict[str, Any]:
        # Pyro's store hangs a weak reference on each parameter, which no pickle can hold; without
        # it the program could not travel to the processes of `pyro.infer.MCMC`. Pyro renews it.
        for parameter in self.parameters():
            vars(parameter).pop("unconstrained", None)
        return self.__dict__

    def _num_rows(self, x: Tensor) -> int:
        num_event = len(self.event_shape)
        came = tuple(x.shape[-num_event:])
        if came != self.event_shape or x.dim() == num_event:
            raise ValueError(
                f"x must have shape (rows, {', '.join(map(str, self.event_shape))}), "
                f"got shape {tuple(x.shape)}; reshape x or build the VAE for its event shape."
            )
        return x.shape[-num_event - 1]


class Likelihood(nn.Module):
    """The distribution of one row of x, given what the decoder returned."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.name = architecture.likelihood
        self.num_event = len(architecture.event_shape)
        self.scale_floor = architecture.scale_floor or 0.0
        if self.name == "normal":
            self.raw_scale = nn.Parameter(torch.zeros(architecture.event_shape))

    def forward(self, raw: Tensor) -> dist.TorchDistribution:
        if self.name == "normal":
            scale = softplus(self.raw_scale, threshold=40.0) + self.scale_floor
            return dist.Normal(raw, scale).to_event(self.num_event)
        family = dist.Bernoulli if self.name == "bernoulli" else dist.Categorical
        return family(logits=raw).to_event(self.num_event)


def _own_or_built(
    name: str,
    module: nn.Module | None,
    build: Callable[[Architecture], nn.Module],
    architecture: Architecture,
) -> nn.Module:
    if module is None:
        return build(architecture)
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"{name} must be a torch.nn.Module, got {type(module).__name__}; "
            "wrap a function in a module."
        )
    return module


def _register(name: str, module: nn.Module) -> None:
    """List the module's trainable weights in Pyro's store, as `pyro.module` does.

    The store is global and keeps the first tensor of each name: with `pyro.module` alone, the
    second VAE of a process would run with its own weights while SVI trains the first one's.
    """
    if not torch.is_grad_enabled():
        return  # nobody trains: sampling is spared the walk through the store
    store = pyro.get_param_store()
    for key, parameter in module.named_parameters():
        full = param_with_module_name(name, key)
        if not parameter.requires_grad:
            continue
        if full in store and store[full] is not parameter:
            del store[full]
        pyro.param(full, parameter)
