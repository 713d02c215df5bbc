"""K draws of the guide for each row, and the log densities that importance weights are made of.

Objectives whose gradient is not that of their value say both: `with_gradient_of(value, surrogate)`.
Shapes: K particles, B rows.
"""

from collections.abc import Callable
from math import log
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jax.scipy.special import logsumexp

from ppl_vae.inference.numpyro.program import Latents, Program

__all__ = [
    "Terms",
    "draw",
    "draw_without_gradient",
    "inner",
    "log_mean_exp",
    "log_terms",
    "shares",
    "slopes",
    "with_gradient_of",
]


class Terms(NamedTuple):
    """Log densities at K draws of the latents, each of shape (K, B), in nats."""

    log_observed: Array  # log p(x_o | z_k)
    log_prior: Array  # log p(z_k), and of other observed sites
    log_q: Array  # log q(z_k | x_o)


def draw(key: Array, program: Program, num_particles: int) -> Latents:
    """Draw z_k ~ q(z | x_o), shape (K, B, ...), refusing sites through which no gradient flows."""
    keys = random.split(key, num_particles)
    return jax.vmap(lambda key: program.propose_reparameterised(key, program.x_obs))(keys)


def draw_without_gradient(key: Array, program: Program, num_particles: int) -> Latents:
    """Draw z_k ~ q(z | x_o), shape (K, B, ...), of any kind."""
    keys = random.split(key, num_particles)
    return lax.stop_gradient(jax.vmap(lambda key: program.propose(key, program.x_obs))(keys))


def log_terms(program: Program, z: Latents) -> Terms:
    """Return the log densities at z, shape (K, B, ...)."""

    def of_one_particle(z: Latents) -> Terms:
        log_prior, likelihood = program.decode(z)
        log_q = program.log_proposal(z, program.x_obs)
        return Terms(program.log_observed(likelihood), log_prior, log_q)

    return jax.vmap(of_one_particle)(z)


def shares(log_weight: Array) -> Array:
    """Return w_k / sum_j w_j of each row, without gradient, shape (K, B)."""
    return jax.nn.softmax(lax.stop_gradient(log_weight), axis=0)


def log_mean_exp(log_weight: Array) -> Array:
    """Return log (1/K) sum_k w_k of each row, shape (B,)."""
    return logsumexp(log_weight, axis=0) - log(len(log_weight))


def slopes(log_density: Callable[[Latents], Array], z: Latents) -> Latents:
    """Return the derivative of each particle's log density by its z, without gradient."""
    return lax.stop_gradient(jax.grad(lambda z: log_density(z).sum())(z))


def inner(slope: Latents, z: Latents) -> Array:
    """Return the inner products over all sites and their events, shape (K, B)."""
    products = [slope[name] * z[name] for name in z]
    return sum((p.reshape(*p.shape[:2], -1).sum(-1) for p in products), jnp.zeros(()))


def with_gradient_of(value: Array, surrogate: Array) -> Array:
    """Return a value whose gradient is that of the surrogate."""
    return lax.stop_gradient(value) + (surrogate - lax.stop_gradient(surrogate))
