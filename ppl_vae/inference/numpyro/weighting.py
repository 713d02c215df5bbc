"""How proposals of LAIR are weighed: the density in the denominator, and transforms of weights.

Shapes: K particles, R prior proposals, I draws of each, P = I (K + R), B rows.
"""

from collections.abc import Callable
from math import log

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp

__all__ = ["log_mixture", "log_own_component", "poly", "temper", "truncate"]


def log_mixture(log_q: Array, log_prior: Array, num_prior: int) -> Array:
    """Return the log density of the mixture of K encoders and R prior components.

        log [ (sum_k q_k(z) + R p(z)) / (K + R) ],  log_q (P, K, B), log_prior (P, B)

    Deterministic-mixture weights (DMIS): each proposal is weighed against all that could have made
    it. Source: Elvira et al. (2019), Generalized multiple importance sampling, scheme N3.
    """
    num_particles = log_q.shape[1]
    log_sum = logsumexp(log_q, axis=1)
    if num_prior > 0:
        log_sum = jnp.logaddexp(log_sum, log(num_prior) + log_prior)
    return log_sum - log(num_particles + num_prior)


def log_own_component(log_q: Array, log_prior: Array, num_prior: int) -> Array:
    """Return the log density of the component that each proposal was drawn from, (P, B).

    Stratified weights (SMIS): K times fewer densities and heavier tails than `log_mixture`.
    Arguments as there. Source: Elvira et al. (2019), scheme N1.
    """
    num_particles = log_q.shape[1]
    num_draws = len(log_q) // (num_particles + num_prior)
    proposal = jnp.arange(num_draws * num_particles)
    own = log_q[proposal, proposal // num_draws]
    return jnp.concatenate([own, log_prior[len(proposal) :]])


def temper(power: float) -> Callable[[Array], Array]:
    """Return the transform w -> w^power, with power in (0, 1]; below 1 it flattens the weights.

    Raises:
        ValueError: if `power` is out of range.
    """
    if not 0 < power <= 1:
        raise ValueError(f"power must lie in (0, 1], got {power}.")

    def tempered(log_weight: Array) -> Array:
        return power * log_weight

    tempered.__name__ = f"temper({power})"
    return tempered


def poly(num_iterations: int) -> Callable[[Array], Array]:
    """Return the power min((t + 10) / T, 1) of iteration t of T, for `ScheduledLAIRKernel`.

    Weights are flattened at first, so that a population that starts badly does not collapse onto
    one proposal. Source: Simkus and Gutmann (2023), reference code.

    Raises:
        ValueError: if `num_iterations` is below 1.
    """
    if num_iterations < 1:
        raise ValueError(f"num_iterations must be at least 1, got {num_iterations}.")

    def power(t: Array) -> Array:
        return jnp.minimum((t + 10) / num_iterations, 1.0)

    power.__name__ = f"poly({num_iterations})"
    return power


def truncate(log_weight: Array) -> Array:
    """Cut each row's weights at mean(w) sqrt(P), log-weights (P, B).

    Source: Ionides (2008), Truncated importance sampling.
    """
    log_mean = logsumexp(log_weight, axis=0) - log(len(log_weight))
    return jnp.minimum(log_weight, log_mean + log(len(log_weight)) / 2)
