"""K draws of the guide for each row, and the log densities that importance weights are made of.

Objectives whose gradient is not that of their value say both: `with_gradient_of(value, surrogate)`.
Shapes: K particles, B rows.
"""

from math import log
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.inference.pyro.objectives import Sites, at_fixed_values, draw_sites, log_prob
from ppl_vae.inference.pyro.program import Latents, Program, without_mask

__all__ = [
    "Terms",
    "draw_without_gradient",
    "inner",
    "log_mean_exp",
    "log_terms",
    "shares",
    "slopes",
    "with_gradient_of",
    "without_gradient",
]


class Terms(NamedTuple):
    """Log densities at K draws of the latents, each of shape (K, B), in nats."""

    log_observed: Tensor  # log p(x_o | z_k)
    log_prior: Tensor  # log p(z_k), and of other observed sites
    log_q: Tensor  # log q(z_k | x_o)


def draw_without_gradient(program: Program, num_particles: int) -> Sites:
    """Draw z_k ~ q(z | x_o), of any kind."""
    return at_fixed_values(program, draw_sites(program, num_particles), num_particles)


def without_gradient(z: Latents) -> Latents:
    """Return z cut off from what it was computed from, as that by which `slopes` derive."""
    return {name: value.detach().requires_grad_() for name, value in z.items()}


def log_terms(program: Program, model: Sites, guide: Sites, num_particles: int) -> Terms:
    """Return the log densities of model and guide, both run at the same values."""
    others = {name: site for name, site in model.items() if name != program.site}
    log_observed = program.log_observed(without_mask(model[program.site]["fn"]))
    each = (log_observed, log_prob(others), log_prob(guide))
    return Terms(*(log_density.reshape(num_particles, -1) for log_density in each))


def shares(log_weight: Tensor) -> Tensor:
    """Return w_k / sum_j w_j of each row, without gradient, shape (K, B)."""
    return log_weight.detach().softmax(0)


def log_mean_exp(log_weight: Tensor) -> Tensor:
    """Return log (1/K) sum_k w_k of each row, shape (B,)."""
    return torch.logsumexp(log_weight, dim=0) - log(len(log_weight))


def slopes(log_density: Tensor, z: Latents) -> Latents:
    """Return the derivative of each particle's log density by its z, without gradient."""
    each = torch.autograd.grad(log_density.sum(), list(z.values()), retain_graph=True)
    return dict(zip(z, each, strict=True))


def inner(slope: Latents, z: Latents, shape: torch.Size) -> Tensor:
    """Return the inner products over all sites and their events, of shape (K, B)."""
    return torch.stack([(slope[name] * z[name]).reshape(*shape, -1).sum(-1) for name in z]).sum(0)


def with_gradient_of(value: Tensor, surrogate: Tensor) -> Tensor:
    """Return a value whose gradient is that of the surrogate."""
    return value.detach() + (surrogate - surrogate.detach())
