"""What the programs of this library share: their weights, the shape of their data, p(x | z)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.params import param_with_module_name
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_vae.models.record import Record
from ppl_vae.weights import check_weights

__all__ = ["Likelihood", "NetProgram", "register"]


class NetProgram(nn.Module):
    """A program whose weights are those of its nets, and go into one weight file.

    Arguments:
        record: what the weights belong to.
        prior_dim: number of latent dimensions with a standard normal prior.
    """

    prior_loc: Tensor
    prior_scale: Tensor

    def __init__(self, record: Record, prior_dim: int) -> None:
        super().__init__()
        self.record = record
        self.event_shape = record.event_shape
        # Buffers, so that the prior follows the weights to their device and dtype.
        self.register_buffer("prior_loc", torch.zeros(prior_dim), persistent=False)
        self.register_buffer("prior_scale", torch.ones(prior_dim), persistent=False)

    def architecture(self) -> dict[str, Any]:
        """Return what the weights belong to, as the header of a weight file holds it."""
        return self.record.to_dict()

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

    def _standard_normal(self) -> dist.TorchDistribution:
        """N(0, I) of one row's latents."""
        return dist.Normal(self.prior_loc, self.prior_scale).to_event(1)

    def check_rows(self, x: Tensor, *args: Any, **kwargs: Any) -> None:
        """Raise a `ValueError` unless the rows of x have values that the likelihood can give.

        `fit` calls it before training, with NaN where x is missing.
        """
        del args, kwargs
        self._num_rows(x)
        self.record.check_values(x.cpu().numpy())

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

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.name = record.likelihood
        self.num_event = len(record.event_shape)
        self.scale_floor = record.scale_floor or 0.0
        if self.name == "normal":
            self.raw_scale = nn.Parameter(torch.zeros(record.event_shape))

    def forward(self, raw: Tensor) -> dist.TorchDistribution:
        if self.name == "normal":
            scale = softplus(self.raw_scale, threshold=40.0) + self.scale_floor
            return dist.Normal(raw, scale).to_event(self.num_event)
        family = dist.Bernoulli if self.name == "bernoulli" else dist.Categorical
        return family(logits=raw).to_event(self.num_event)


def register(name: str, module: nn.Module) -> None:
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
