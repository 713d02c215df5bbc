"""How proposals of LAIR are weighed: the density in the denominator, and transforms of weights.

Shapes: C chains, K particles, R prior proposals, I draws of each, P = I (K + R), B rows.
"""

from collections.abc import Callable
from math import log

import torch
from torch import Tensor

__all__ = ["log_mixture", "log_own_component", "poly", "temper", "truncate"]


def log_mixture(log_q: Tensor, log_prior: Tensor, num_prior: int) -> Tensor:
    """Return the log density of the mixture of K encoders and R prior components.

        log [ (sum_k q_k(z) + R p(z)) / (K + R) ],  log_q (C, P, K, B), log_prior (C, P, B)

    Deterministic-mixture weights (DMIS): each proposal is weighed against all that could have made
    it. Source: Elvira et al. (2019), Generalized multiple importance sampling, scheme N3.
    """
    num_particles = log_q.shape[2]
    log_sum = log_q.logsumexp(2)
    if num_prior > 0:
        log_sum = torch.logaddexp(log_sum, log(num_prior) + log_prior)
    return log_sum - log(num_particles + num_prior)


def log_own_component(log_q: Tensor, log_prior: Tensor, num_prior: int) -> Tensor:
    """Return the log density of the component that each proposal was drawn from, (C, P, B).

    Stratified weights (SMIS): K times fewer densities and heavier tails than `log_mixture`.
    Arguments as there. Source: Elvira et al. (2019), scheme N1.
    """
    num_particles = log_q.shape[2]
    num_draws = log_q.shape[1] // (num_particles + num_prior)
    proposal = torch.arange(num_draws * num_particles, device=log_q.device)
    own = log_q[:, proposal, proposal // num_draws]
    return torch.cat([own, log_prior[:, len(proposal) :]], 1)


def temper(power: float) -> Callable[[Tensor], Tensor]:
    """Return the transform w -> w^power, with power in (0, 1]; below 1 it flattens the weights.

    Raises:
        ValueError: if `power` is out of range.
    """
    if not 0 < power <= 1:
        raise ValueError(f"power must lie in (0, 1], got {power}.")

    def tempered(log_weight: Tensor) -> Tensor:
        return power * log_weight

    tempered.__name__ = f"temper({power})"
    return tempered


def poly(num_iterations: int) -> Callable[[Tensor], Tensor]:
    """Return the power min((t + 10) / T, 1) of iteration t of T, for `ScheduledLAIRKernel`.

    Weights are flattened at first, so that a population that starts badly does not collapse onto
    one proposal. Source: Simkus and Gutmann (2023), reference code.

    Raises:
        ValueError: if `num_iterations` is below 1.
    """
    if num_iterations < 1:
        raise ValueError(f"num_iterations must be at least 1, got {num_iterations}.")

    def power(t: Tensor) -> Tensor:
        return ((t + 10) / num_iterations).clamp(max=1.0)

    power.__name__ = f"poly({num_iterations})"
    return power


def truncate(log_weight: Tensor) -> Tensor:
    """Cut each row's weights at mean(w) sqrt(P), log-weights (C, P, B).

    Source: Ionides (2008), Truncated importance sampling.
    """
    num_proposals = log_weight.shape[1]
    log_mean = log_weight.logsumexp(1, keepdim=True) - log(num_proposals)
    return torch.minimum(log_weight, log_mean + log(num_proposals) / 2)
