"""How a partially observed row is scored, and how the rest of it is drawn.

The distribution at a program's data site decides.  A *rule* is a pair of functions over a
distribution `d` with batch shape `(..., B)`, data `x` and `mask` of shape `(..., B, *event)`
(True = observed):

    log_prob(d, x, mask) = log p(x_o)           shape (..., B), in nats
    sample(key, d, x, mask) ~ p(x_m | x_o)      x with its missing entries drawn anew

Rules ship for everything that factorises over the entries of a row, for the multivariate normal
and for mixtures of either; `register_rule` adds more.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, random
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.scipy.special import logsumexp
from numpyro.distributions import constraints

from ppl_vae.inference.numpyro import bernoulli

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

    log_prob: Callable[[Any, Array, Array], Array]
    sample: Callable[[Array, Any, Array, Array], Array]


_RULES: dict[type, Rule] = {}


def register_rule(
    distribution: type,
    *,
    log_prob: Callable[[Any, Array, Array], Array],
    sample: Callable[[Array, Any, Array, Array], Array],
) -> None:
    """Teach the samplers a distribution at the data site.

    Args:
        distribution: the distribution class; subclasses inherit the rule.
        log_prob: `log_prob(d, x, mask)`, log p(x_o) per row, shape (..., B), in nats.
        sample: `sample(key, d, x, mask)`, rows of x's shape; missing entries ~ p(x_m | x_o).

    Both functions must never let the values of missing entries reach the result.

    Raises:
        TypeError: if `distribution` is not a NumPyro distribution class.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpyro.distributions as dist
        >>> from ppl_vae.numpyro import register_rule
        >>> class Exact(dist.Delta):
        ...     pass
        >>> register_rule(
        ...     Exact,
        ...     log_prob=lambda d, x, mask: jnp.where(mask, d.v == x, True).all(-1) - 1.0,
        ...     sample=lambda key, d, x, mask: jnp.where(mask, x, d.v),
        ... )
    """
    if not (isinstance(distribution, type) and issubclass(distribution, dist.Distribution)):
        raise TypeError(
            f"register_rule expects a numpyro Distribution class, got {distribution!r}."
        )
    _RULES[distribution] = Rule(log_prob, sample)


def find_rule(d: dist.Distribution) -> Rule:
    """Return the rule for `d`.

    Raises:
        NotImplementedError: if no rule is known, with the way to register one.
    """
    core = _without_expand(d)
    for kind in type(core).__mro__:
        if kind in _RULES:
            return _RULES[kind]
    if _entrywise(d).event_shape == ():
        return Rule(_entrywise_log_prob, _entrywise_sample)
    raise NotImplementedError(
        f"No rule says how a partially observed {type(core).__name__} (event shape "
        f"{d.event_shape}) is scored and completed. Make its entries independent "
        "(`.to_event(n)` of an elementwise distribution), or call "
        f"`register_rule({type(core).__name__}, log_prob=..., sample=...)`."
    )


def observed_log_prob(d: dist.Distribution, x: Array, mask: Array) -> Array:
    """Return log p(x_o) per row, in nats; missing entries have no influence."""
    return find_rule(d).log_prob(d, x, mask)


def log_prob(d: dist.Distribution, x: Array) -> Array:
    """Return log p(x) of completed rows, in nats."""
    if find_rule(d).log_prob is _entrywise_log_prob:
        return _sum_event(d, _entry_log_prob(_entrywise(d), x))
    return d.log_prob(x)


def fixed_log_prob(d: dist.Distribution) -> Array:
    """Return the part of log p(x) that no x changes, in nats.

    For Bernoulli entries it is log p of the likeliest row, where all the logarithms are; else 0.
    """
    entry = _entrywise(d)
    if find_rule(d).log_prob is _entrywise_log_prob and isinstance(entry, dist.BernoulliLogits):
        return _sum_event(d, bernoulli.fixed_log_prob(entry.logits))
    return jnp.zeros(d.batch_shape)


def varying_log_prob(d: dist.Distribution, x: Array) -> Array:
    """Return the rest of log p(x) of completed rows, in nats."""
    entry = _entrywise(d)
    if find_rule(d).log_prob is _entrywise_log_prob and isinstance(entry, dist.BernoulliLogits):
        return _sum_event(d, bernoulli.twice_varying_log_prob(entry.logits, x)) / 2
    return log_prob(d, x)


def complete(key: Array, d: dist.Distribution, x: Array, mask: Array) -> Array:
    """Return `x` with its missing entries drawn from p(x_m | x_o); the rest is bit-identical."""
    drawn = find_rule(d).sample(key, d, x, mask)
    return jnp.where(mask, x, drawn.astype(x.dtype))


def is_binary(d: dist.Distribution) -> bool:
    """Whether all entries of a row are 0 or 1."""
    support = d.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.boolean


def _without_expand(d: dist.Distribution) -> dist.Distribution:
    while isinstance(d, dist.ExpandedDistribution):
        d = d.base_dist
    return d


# --- entries independent given the latents --------------------------------------------------


def _entrywise(d: dist.Distribution) -> dist.Distribution:
    """Strip `Independent` and `expand`, down to the distribution of single entries."""
    while isinstance(d, dist.Independent | dist.ExpandedDistribution):
        d = d.base_dist
    return d


def _entrywise_log_prob(d: dist.Distribution, x: Array, mask: Array) -> Array:
    x = _within_support(_entrywise(d), x, mask)
    return _sum_event(d, jnp.where(mask, _entry_log_prob(_entrywise(d), x), 0.0))


def _within_support(entry: dist.Distribution, x: Array, mask: Array) -> Array:
    """Put a value of the support where x is missing: outside of it gradients would be NaN."""
    support = entry.support
    if support is constraints.real or support.is_discrete:
        return x
    return jnp.where(mask, x, dist.biject_to(support)(jnp.zeros(x.shape)).astype(x.dtype))


def _entrywise_sample(key: Array, d: dist.Distribution, x: Array, mask: Array) -> Array:
    del mask
    entry = _entrywise(d)
    if isinstance(entry, dist.BernoulliLogits | dist.BernoulliProbs):
        return bernoulli.uniform(key, x.shape) < entry.probs
    return entry.expand(x.shape).sample(key)


def _entry_log_prob(entry: dist.Distribution, x: Array) -> Array:
    if isinstance(entry, dist.BernoulliLogits):
        return bernoulli.log_prob(entry.logits, x)
    if isinstance(entry, dist.CategoricalLogits | dist.CategoricalProbs):
        x = x.astype(int)  # codes are floats in data that hold NaN; Pyro takes them as they are
    return entry.log_prob(x)


def _sum_event(d: dist.Distribution, log_prob: Array) -> Array:
    return log_prob.sum(tuple(range(-d.event_dim, 0)))


# --- multivariate normal --------------------------------------------------------------------


def _normal_log_prob(d: dist.Distribution, x: Array, mask: Array) -> Array:
    d = _without_expand(d)
    residual = jnp.where(mask, x - d.loc, 0.0)
    chol = jnp.linalg.cholesky(_observed_covariance(d, mask))
    scaled = solve_triangular(chol, residual[..., None], lower=True)[..., 0]
    log_det = jnp.log(jnp.diagonal(chol, axis1=-2, axis2=-1)).sum(-1)
    num_observed = mask.sum(-1)
    return -0.5 * (scaled**2).sum(-1) - log_det - 0.5 * num_observed * jnp.log(2 * jnp.pi)


def _normal_sample(key: Array, d: dist.Distribution, x: Array, mask: Array) -> Array:
    """Draw y ~ N(loc, S), then y + S_mo S_oo^-1 (x_o - y_o) has the law p(x_m | x_o)."""
    d = _without_expand(d)
    noise = random.normal(key, x.shape, d.loc.dtype)
    draw = d.loc + jnp.einsum("...ij,...j->...i", d.scale_tril, noise)
    residual = jnp.where(mask, x - draw, 0.0)
    chol = jnp.linalg.cholesky(_observed_covariance(d, mask))
    weights = cho_solve((chol, True), residual[..., None])[..., 0]
    return draw + jnp.einsum("...ij,...j->...i", d.covariance_matrix, weights)


def _observed_covariance(d: dist.Distribution, mask: Array) -> Array:
    """S with the rows and columns of missing entries replaced by those of the identity."""
    both = mask[..., :, None] & mask[..., None, :]
    return jnp.where(both, d.covariance_matrix, jnp.eye(mask.shape[-1]))


# --- mixtures -------------------------------------------------------------------------------


def _mixture_log_prob(d: dist.Distribution, x: Array, mask: Array) -> Array:
    return logsumexp(_joint_log_prob(d, x, mask), axis=-1)


def _mixture_sample(key: Array, d: dist.Distribution, x: Array, mask: Array) -> Array:
    """Draw the component from its posterior given x_o, then the rest from that component."""
    key_component, key_x = random.split(key)
    component = random.categorical(key_component, _joint_log_prob(d, x, mask), axis=-1)
    each, x_each, mask_each = _components(d, x, mask)
    draws = complete(key_x, each, x_each, mask_each)
    axis = -1 - d.event_dim
    index = jnp.expand_dims(component, tuple(range(axis, 0)))
    return jnp.take_along_axis(draws, index, axis=axis).squeeze(axis)


def _joint_log_prob(d: dist.Distribution, x: Array, mask: Array) -> Array:
    """log p(c) + log p(x_o | c), shape (..., B, components)."""
    d_core = _without_expand(d)
    log_weights = jax.nn.log_softmax(_logits(d_core.mixing_distribution), axis=-1)
    return log_weights + observed_log_prob(*_components(d, x, mask))


def _components(d: dist.Distribution, x: Array, mask: Array) -> tuple[Any, Array, Array]:
    d_core = _without_expand(d)
    axis, cut = -1 - d_core.event_dim, x.ndim - d_core.event_dim
    shape = (*x.shape[:cut], d_core.mixture_size, *x.shape[cut:])
    each = d_core.component_distribution
    return (
        each,
        jnp.broadcast_to(jnp.expand_dims(x, axis), shape),
        jnp.broadcast_to(jnp.expand_dims(mask, axis), shape),
    )


def _logits(d: dist.Distribution) -> Array:
    d = _without_expand(d)
    return d.logits if isinstance(d, dist.CategoricalLogits) else jnp.log(d.probs)


register_rule(dist.MultivariateNormal, log_prob=_normal_log_prob, sample=_normal_sample)
register_rule(dist.MixtureSameFamily, log_prob=_mixture_log_prob, sample=_mixture_sample)
