"""K draws of the guide for each row, and the log densities that importance weights are made of.

Objectives whose gradient is not that of their value say both: `with_gradient_of(value, surrogate)`.
A weight may be zero: its log is -inf, and nothing of it may reach the gradient (`times`).
Shapes: K particles, B rows.
"""

from collections.abc import Callable
from math import log
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jax.scipy.special import logsumexp

from ppl_vae.incomplete_data import take_data_site
from ppl_vae.inference.numpyro.program import (
    Latents,
    Program,
    require_reparameterised,
    split_sites,
)
from ppl_vae.inference.numpyro.support import log_prob_within

__all__ = [
    "ROWS_ON_CPU",
    "Sites",
    "Terms",
    "decode",
    "draw",
    "draw_particle",
    "draw_without_gradient",
    "inner",
    "log_mean_exp",
    "log_prob",
    "log_terms",
    "only",
    "shares",
    "slopes",
    "times",
    "values",
    "with_gradient_of",
    "with_slopes",
]

ROWS_ON_CPU = 2048
"""Rows times particles that a CPU's cache holds the decoder's activations of."""

Sites = dict[str, dict[str, Any]]
"""The sample sites of a run of a program, by name."""


class Terms(NamedTuple):
    """Log densities at K draws of the latents, each of shape (K, B), in nats."""

    log_observed: Array  # log p(x_o | z_k), and of other observed sites
    log_prior: Array  # log p(z_k)
    log_q: Array  # log q(z_k | x_o)


# --- the guide ------------------------------------------------------------------------------


def draw_particle(key: Array, program: Program) -> Sites:
    """Draw one z ~ q(z | x_o) a row, refusing sites through which no gradient flows."""
    sites = program.trace_guide(program.x_obs, key=key)
    require_reparameterised({name: site["fn"].has_rsample for name, site in sites.items()})
    return sites


def values(sites: Sites) -> Latents:
    """Return what was drawn at each site."""
    return {name: site["value"] for name, site in sites.items()}


def log_prob(sites: Sites) -> Array:
    """Return the log density of what was drawn, shape (B,)."""
    each = [log_prob_within(site["fn"], site["value"]) for site in sites.values()]
    return sum(each, start=jnp.zeros(()))


def draw(key: Array, program: Program, num_particles: int) -> Latents:
    """Draw z_k ~ q(z | x_o), shape (K, B, ...), refusing sites through which no gradient flows."""
    keys = random.split(key, num_particles)
    return jax.vmap(lambda key: values(draw_particle(key, program)))(keys)


def draw_without_gradient(key: Array, program: Program, num_particles: int) -> Latents:
    """Draw z_k ~ q(z | x_o), shape (K, B, ...), of any kind."""
    keys = random.split(key, num_particles)
    return lax.stop_gradient(jax.vmap(lambda key: program.propose(key, program.x_obs))(keys))


# --- the model ------------------------------------------------------------------------------


def decode(program: Program, z: Latents, chunk_size: int | None) -> tuple[Array, Array]:
    """Return log p(x_o | z_k) and log p(z_k) at z (K, B, ...), each (K, B), in nats.

    The former holds the densities of other observed sites, too, and leaves out what the model
    itself masks. The model is run for `chunk_size`
    particles at a time, and again where the gradient asks for it, so that the activations of one
    chunk are all that is held. None: on a CPU as many as keep particles times rows at
    `ROWS_ON_CPU`, elsewhere all.
    """

    def of_one_particle(z: Latents) -> tuple[Array, Array]:
        sites = program.trace_model(z=z)
        log_shown = program.log_shown(take_data_site(sites, program.site)["fn"])
        latent, observed = split_sites(sites)
        return log_prob(observed) + log_shown, log_prob(latent)

    num_particles = len(next(iter(z.values())))
    size = chunk_size or _default_chunk(program, num_particles)
    if size >= num_particles:
        return jax.vmap(of_one_particle)(z)
    return lax.map(jax.checkpoint(of_one_particle), z, batch_size=size)


def _default_chunk(program: Program, num_particles: int) -> int:
    if jax.default_backend() != "cpu":
        return num_particles
    return max(1, ROWS_ON_CPU // max(len(program.x_obs), 1))


def log_terms(program: Program, z: Latents, chunk_size: int | None) -> Terms:
    """Return the log densities of model and guide at z, shape (K, B, ...)."""
    log_q = jax.vmap(lambda z: program.log_proposal(z, program.x_obs))(z)
    return Terms(*decode(program, z, chunk_size), log_q)


# --- weights and gradients ------------------------------------------------------------------


def times(weight: Any, log_density: Array) -> Array:
    """Return weight * log density, and 0 where the weight is 0, be the log density -inf.

    There, no gradient flows either.
    """
    counts = weight != 0
    return jnp.where(counts, weight * jnp.where(counts, log_density, 0.0), 0.0)


def shares(log_weight: Array) -> Array:
    """Return w_k / sum_j w_j of each row, without gradient, shape (K, B)."""
    return jax.nn.softmax(lax.stop_gradient(log_weight), axis=0)


def log_mean_exp(log_weight: Array) -> Array:
    """Return log (1/K) sum_k w_k of each row, shape (B,)."""
    return logsumexp(log_weight, axis=0) - log(len(log_weight))


def with_slopes(fn: Callable[[Latents], tuple[Array, Any]], z: Latents) -> tuple[Any, Any, Latents]:
    """Return fn(z), a log density (K, B) and what it is made of, and the density's slopes.

    These are the derivatives of each particle's log density by its z, without gradient.
    """
    log_density, pull, parts = jax.vjp(fn, z, has_aux=True)
    (slope,) = pull(jnp.ones_like(log_density))
    return log_density, parts, lax.stop_gradient(slope)


def slopes(log_density: Callable[[Latents], Array], z: Latents) -> Latents:
    """Return the derivative of each particle's log density by its z, without gradient."""
    return with_slopes(lambda z: (log_density(z), None), z)[2]


def only(counts: Array, z: Latents, instead: Latents | None = None) -> Latents:
    """Return z or its slopes where particles count (K, B), elsewhere zeros or `instead`."""

    def pick(name: str) -> Array:
        wide = counts.reshape(*counts.shape, *[1] * (z[name].ndim - 2))
        return jnp.where(wide, z[name], 0.0 if instead is None else instead[name])

    return {name: pick(name) for name in z}


def inner(slope: Latents, z: Latents) -> Array:
    """Return the inner products over all sites and their events, shape (K, B)."""
    products = [slope[name] * z[name] for name in z]
    return sum((p.reshape(*p.shape[:2], -1).sum(-1) for p in products), jnp.zeros(()))


def with_gradient_of(value: Array, surrogate: Array) -> Array:
    """Return a value whose gradient is that of the surrogate."""
    return lax.stop_gradient(value) + (surrogate - lax.stop_gradient(surrogate))
