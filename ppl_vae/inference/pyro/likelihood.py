"""How a partially observed row is scored, and how the rest of it is drawn.

The distribution at a program's data site decides.  A *rule* is a pair of functions over a
distribution `d` with batch shape `(..., B)`, data `x` and `mask` of shape `(..., B, *event)`
(True = observed):

    log_prob(d, x, mask) = log p(x_o)           shape (..., B), in nats
    sample(d, x, mask) ~ p(x_m | x_o)           x with its missing entries drawn anew

Rules ship for everything that factorises over the entries of a row, for the multivariate normal
and for mixtures of either; `register_rule` adds more.
"""

from collections.abc import Callable
from math import log, pi
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    constraints,
)

from ppl_vae.inference.pyro import bernoulli
from ppl_vae.inference.pyro.masking import keep, where
from ppl_vae.inference.pyro.support import is_real, somewhere

__all__ = [
    "Rule",
    "complete",
    "find_rule",
    "fixed_log_prob",
    "is_binary",
    "log_prob",
    "observed_log_prob",
    "register_rule",
    "varying_log_prob",
]


class Rule(NamedTuple):
    """How one family of distributions handles a partially observed row."""

    log_prob: Callable[[Any, Tensor, Tensor], Tensor]
    sample: Callable[[Any, Tensor, Tensor], Tensor]


_RULES: dict[type, Rule] = {}


def register_rule(
    distribution: type,
    *,
    log_prob: Callable[[Any, Tensor, Tensor], Tensor],
    sample: Callable[[Any, Tensor, Tensor], Tensor],
) -> None:
    """Teach the samplers a distribution at the data site.

    Args:
        distribution: the distribution class; subclasses inherit the rule.
        log_prob: `log_prob(d, x, mask)`, log p(x_o) per row, shape (..., B), in nats.
        sample: `sample(d, x, mask)`, rows of x's shape with missing entries ~ p(x_m | x_o).

    Both functions must never let the values of missing entries reach the result.

    Raises:
        TypeError: if `distribution` is not a distribution class.

    Example:
        >>> import pyro.distributions as dist
        >>> from ppl_vae.pyro import register_rule
        >>> class Exact(dist.Delta):
        ...     pass
        >>> register_rule(
        ...     Exact,
        ...     log_prob=lambda d, x, mask: torch.where(mask, d.v == x, True).all(-1) - 1.0,
        ...     sample=lambda d, x, mask: torch.where(mask, x, d.v),
        ... )
    """
    if not (isinstance(distribution, type) and issubclass(distribution, Distribution)):
        raise TypeError(f"register_rule expects a Distribution class, got {distribution!r}.")
    _RULES[distribution] = Rule(log_prob, sample)


def find_rule(d: Distribution) -> Rule:
    """Return the rule for `d`.

    Raises:
        NotImplementedError: if no rule is known, with the way to register one.
    """
    for kind in type(d).__mro__:
        if kind in _RULES:
            return _RULES[kind]
    if _entrywise(d).event_shape == ():
        return Rule(_entrywise_log_prob, _entrywise_sample)
    raise NotImplementedError(
        f"No rule says how a partially observed {type(d).__name__} (event shape "
        f"{tuple(d.event_shape)}) is scored and completed. Make its entries independent "
        "(`.to_event(n)` of an elementwise distribution), or call "
        f"`register_rule({type(d).__name__}, log_prob=..., sample=...)`."
    )


def observed_log_prob(d: Distribution, x: Tensor, mask: Tensor) -> Tensor:
    """Return log p(x_o) per row, in nats; missing entries have no influence."""
    return find_rule(d).log_prob(d, x, mask)


def log_prob(d: Distribution, x: Tensor) -> Tensor:
    """Return log p(x) of completed rows, in nats."""
    if find_rule(d).log_prob is _entrywise_log_prob:
        return _sum_event(d, _entry_log_prob(_entrywise(d), x))
    return d.log_prob(x)


def fixed_log_prob(d: Distribution) -> Tensor:
    """Return the part of log p(x) that no x changes, in nats.

    For Bernoulli entries it is log p of the likeliest row, where all the logarithms are; else 0.
    """
    entry = _entrywise(d)
    if find_rule(d).log_prob is _entrywise_log_prob and isinstance(entry, Bernoulli):
        return _sum_event(d, bernoulli.fixed_log_prob(entry.logits))
    return torch.zeros(())


def varying_log_prob(d: Distribution, x: Tensor) -> Tensor:
    """Return the rest of log p(x) of completed rows, in nats."""
    entry = _entrywise(d)
    if find_rule(d).log_prob is _entrywise_log_prob and isinstance(entry, Bernoulli):
        return _sum_event(d, bernoulli.varying_log_prob(entry.logits, x))
    return log_prob(d, x)


def complete(d: Distribution, x: Tensor, mask: Tensor) -> Tensor:
    """Return `x` with its missing entries drawn from p(x_m | x_o); the rest is bit-identical."""
    drawn = find_rule(d).sample(d, x, mask)
    return where(mask, x, drawn.to(x.dtype))


def is_binary(d: Distribution) -> bool:
    """Whether all entries of a row are 0 or 1."""
    support: Any = d.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.boolean


# --- entries independent given the latents --------------------------------------------------


def _entrywise(d: Distribution) -> Distribution:
    """Strip `Independent`, down to the distribution of single entries."""
    while isinstance(d, Independent):
        d = d.base_dist
    return d


def _entrywise_log_prob(d: Distribution, x: Tensor, mask: Tensor) -> Tensor:
    x = _within_support(_entrywise(d), x, mask)
    return _sum_event(d, keep(mask, _entry_log_prob(_entrywise(d), x)))


def _within_support(entry: Distribution, x: Tensor, mask: Tensor) -> Tensor:
    """Put a value of the support where x is missing: outside of it gradients would be NaN."""
    support: Any = entry.support
    if is_real(support) or support.is_discrete:
        return x
    return torch.where(mask, x, somewhere(support, x))


def _entrywise_sample(d: Distribution, x: Tensor, mask: Tensor) -> Tensor:
    del mask
    entry = _entrywise(d)
    if isinstance(entry, Bernoulli):
        return bernoulli.sample(entry.probs, x.shape)
    return entry.sample() if entry.batch_shape == x.shape else entry.expand(x.shape).sample()


def _entry_log_prob(entry: Any, x: Tensor) -> Tensor:
    if isinstance(entry, Bernoulli):
        return bernoulli.log_prob(entry.logits, x)
    return entry.log_prob(x)


def _sum_event(d: Distribution, log_prob: Tensor) -> Tensor:
    return log_prob.flatten(-len(d.event_shape)).sum(-1) if d.event_shape else log_prob


# --- multivariate normal --------------------------------------------------------------------


def _normal_log_prob(d: MultivariateNormal, x: Tensor, mask: Tensor) -> Tensor:
    residual = torch.where(mask, x - d.loc, 0.0)
    chol = torch.linalg.cholesky(_observed_covariance(d, mask))
    scaled = torch.linalg.solve_triangular(chol, residual[..., None], upper=False)[..., 0]
    log_det = chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    num_observed = mask.sum(-1)
    return -0.5 * (scaled**2).sum(-1) - log_det - 0.5 * num_observed * log(2 * pi)


def _normal_sample(d: MultivariateNormal, x: Tensor, mask: Tensor) -> Tensor:
    """Draw y ~ N(loc, S), then y + S_mo S_oo^-1 (x_o - y_o) has the law p(x_m | x_o)."""
    draw = d.sample()
    residual = torch.where(mask, x - draw, 0.0)
    chol = torch.linalg.cholesky(_observed_covariance(d, mask))
    weights = torch.cholesky_solve(residual[..., None], chol)
    return draw + (d.covariance_matrix @ weights)[..., 0]


def _observed_covariance(d: MultivariateNormal, mask: Tensor) -> Tensor:
    """S with the rows and columns of missing entries replaced by those of the identity."""
    both = mask[..., :, None] & mask[..., None, :]
    eye = torch.eye(mask.shape[-1], dtype=d.loc.dtype, device=d.loc.device)
    return torch.where(both, d.covariance_matrix, eye)


# --- mixtures -------------------------------------------------------------------------------


def _mixture_log_prob(d: MixtureSameFamily, x: Tensor, mask: Tensor) -> Tensor:
    return _joint_log_prob(d, x, mask).logsumexp(-1)


def _mixture_sample(d: MixtureSameFamily, x: Tensor, mask: Tensor) -> Tensor:
    """Draw the component from its posterior given x_o, then the rest from that component."""
    component = torch.distributions.Categorical(logits=_joint_log_prob(d, x, mask)).sample()
    draws = complete(*_components(d, x, mask))
    axis = -1 - len(d.event_shape)
    index = component.reshape(*component.shape, *[1] * -axis)
    return torch.take_along_dim(draws, index, dim=axis).squeeze(axis)


def _joint_log_prob(d: MixtureSameFamily, x: Tensor, mask: Tensor) -> Tensor:
    """log p(c) + log p(x_o | c), shape (..., B, components)."""
    log_weights = d.mixture_distribution.logits.log_softmax(-1)
    return log_weights + observed_log_prob(*_components(d, x, mask))


def _components(
    d: MixtureSameFamily, x: Tensor, mask: Tensor
) -> tuple[Distribution, Tensor, Tensor]:
    axis = -1 - len(d.event_shape)
    shape = list(x.shape)
    shape.insert(x.ndim + axis + 1, d.mixture_distribution.param_shape[-1])
    x, mask = x.unsqueeze(axis).expand(shape), mask.unsqueeze(axis)
    return d.component_distribution, x, mask.expand(shape)


register_rule(MultivariateNormal, log_prob=_normal_log_prob, sample=_normal_sample)
register_rule(MixtureSameFamily, log_prob=_mixture_log_prob, sample=_mixture_sample)
