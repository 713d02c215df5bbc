"""K draws of the guide for each row, and the log densities that importance weights are made of.

Objectives whose gradient is not that of their value say both: `with_gradient_of(value, surrogate)`.
A weight may be zero: its log is -inf, and nothing of it may reach the gradient (`times`).
Shapes: K particles, B rows.
"""

from math import log
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ppl_vae.incomplete_data import take_data_site
from ppl_vae.inference.pyro.guide_particles import Sites, rerun, run_particles
from ppl_vae.inference.pyro.program import (
    Latents,
    Program,
    require_reparameterised,
    split_sites,
)
from ppl_vae.inference.pyro.rows import join
from ppl_vae.inference.pyro.support import log_prob_within

__all__ = [
    "ROWS_ON_CPU",
    "Sites",
    "Terms",
    "at",
    "at_fixed_values",
    "decode",
    "draw_particles",
    "draw_without_gradient",
    "inner",
    "log_mean_exp",
    "log_prob",
    "log_terms",
    "only",
    "rerun",
    "shares",
    "slopes",
    "times",
    "values",
    "with_gradient_of",
    "without_gradient",
]

ROWS_ON_CPU = 2048
"""Rows times particles that a CPU's cache holds the decoder's activations of."""


class Terms(NamedTuple):
    """Log densities at K draws of the latents, each of shape (K, B), in nats."""

    log_observed: Tensor  # log p(x_o | z_k), and of other observed sites
    log_prior: Tensor  # log p(z_k)
    log_q: Tensor  # log q(z_k | x_o)


# --- the guide ------------------------------------------------------------------------------


def draw_particles(program: Program, num_particles: int) -> Sites:
    """Draw z_k ~ q(z | x_o), refusing sites through which no gradient flows."""
    sites = run_particles(program, num_particles)
    require_reparameterised({name: site["fn"].has_rsample for name, site in sites.items()})
    return sites


def draw_without_gradient(program: Program, num_particles: int) -> Sites:
    """Draw z_k ~ q(z | x_o), of any kind."""
    return at_fixed_values(program, run_particles(program, num_particles))


def at_fixed_values(program: Program, guide: Sites) -> Sites:
    """Return the guide's sites at the same values, through which no gradient flows."""
    return rerun(program, guide, {name: value.detach() for name, value in values(guide).items()})


def values(sites: Sites) -> Latents:
    """Return what was drawn at each site, (K, B, ...)."""
    return {name: site["value"] for name, site in sites.items()}


def log_prob(sites: Sites) -> Tensor:
    """Return the log density of what was drawn, shape (K, B)."""
    each = [log_prob_within(site["fn"], site["value"]) for site in sites.values()]
    return sum(each, start=torch.zeros(()))


def at(sites: Sites, z: Latents) -> Sites:
    """Return the sites of z at its values, their distributions as before."""
    return {name: {**sites[name], "value": value} for name, value in z.items() if name in sites}


def without_gradient(z: Latents) -> Latents:
    """Return z cut off from what it was computed from, as that by which `slopes` derive."""
    return {name: value.detach().requires_grad_() for name, value in z.items()}


# --- the model ------------------------------------------------------------------------------


def decode(program: Program, z: Latents, chunk_size: int | None) -> tuple[Tensor, Sites]:
    """Return log p(x_o | z_k) at z (K, B, ...), (K, B) in nats, and the model's latent sites.

    The former holds the densities of other observed sites, too, and leaves out what the model
    itself masks. The model is run for `chunk_size`
    particles at a time, and again where the gradient asks for it, so that the activations of one
    chunk are all that is held. None: on a CPU as many as keep particles times rows at
    `ROWS_ON_CPU`, elsewhere all.
    """

    def of_chunk(z: Latents) -> tuple[Tensor, Sites]:
        sites = program.trace_model(z=z)
        log_shown = program.log_shown(take_data_site(sites, program.site)["fn"])
        latent, observed = split_sites(sites)
        parts = {n: {k: site[k] for k in ("fn", "value")} for n, site in latent.items()}
        return log_prob(observed) + log_shown, parts

    num_particles = len(next(iter(z.values())))
    if num_particles == 1:  # as it is: folding particles into rows takes time
        log_observed, sites = of_chunk({name: value[0] for name, value in z.items()})
        return log_observed[None], {**sites, **at(sites, z)}
    size = chunk_size or _default_chunk(program, num_particles)
    if size >= num_particles:
        return of_chunk(z)
    parts = [
        {name: value[first : first + size] for name, value in z.items()}
        for first in range(0, num_particles, size)
    ]
    chunks = [checkpoint(of_chunk, part, use_reentrant=False) for part in parts]
    axes = torch.Size((num_particles, len(program.x_obs)))
    return torch.cat([each for each, _ in chunks]), join([latent for _, latent in chunks], axes)


def _default_chunk(program: Program, num_particles: int) -> int:
    if program.x_obs.device.type != "cpu":
        return num_particles
    return max(1, ROWS_ON_CPU // max(len(program.x_obs), 1))


def log_terms(log_observed: Tensor, latent: Sites, guide: Sites) -> Terms:
    """Return the log densities of model and guide, both run at the same values."""
    return Terms(log_observed, log_prob(latent), log_prob(guide))


# --- weights and gradients ------------------------------------------------------------------


def times(weight: Any, log_density: Tensor) -> Tensor:
    """Return weight * log density, and 0 where the weight is 0, be the log density -inf.

    There, no gradient flows either.
    """
    zero = torch.as_tensor(weight, device=log_density.device) == 0
    return (weight * log_density.masked_fill(zero, 0.0)).masked_fill(zero, 0.0)


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


def only(counts: Tensor, z: Latents, instead: Latents | None = None) -> Latents:
    """Return z or its slopes where particles count (K, B), elsewhere zeros or `instead`."""

    def pick(name: str) -> Tensor:
        wide = counts.reshape(*counts.shape, *[1] * (z[name].ndim - 2))
        return torch.where(wide, z[name], 0.0 if instead is None else instead[name])

    return {name: pick(name) for name in z}


def inner(slope: Latents, z: Latents) -> Tensor:
    """Return the inner products over all sites and their events, of shape (K, B)."""
    products = [slope[name] * z[name] for name in z]
    return torch.stack([p.reshape(*p.shape[:2], -1).sum(-1) for p in products]).sum(0)


def with_gradient_of(value: Tensor, surrogate: Tensor) -> Tensor:
    """Return a value whose gradient is that of the surrogate."""
    return value.detach() + (surrogate - surrogate.detach())
