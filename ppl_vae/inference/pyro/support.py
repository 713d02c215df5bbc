"""Log densities that are -inf outside of the support.

Torch's densities go on beyond their support, or are NaN there, unless they are validated, when they
raise. A sampler meets such values wherever guide and prior have different supports.
"""

from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor
from torch.distributions import (
    Distribution,
    TransformedDistribution,
    biject_to,
    constraints,
)

__all__ = [
    "is_real",
    "largest_value",
    "likelihood_within",
    "log_prob_within",
    "moved_inside",
    "somewhere",
]


def log_prob_within(d: Distribution, value: Tensor) -> Tensor:
    """Return log d(value), and -inf where `value` is outside of d's support."""
    if isinstance(d, MaskedDistribution):  # what is masked may be any filler
        log_prob = log_prob_within(d.base_dist, value)
        return torch.where(torch.as_tensor(d._mask, device=log_prob.device), log_prob, 0.0)
    entry = _checkable_entry(d)
    if entry is None:
        return _log_prob(d, value)
    if entry.is_discrete and not value.is_floating_point():
        value = value.to(d.mean.dtype)  # a Bernoulli's log density takes no integers
    inside = entry.check(value)
    checked = inside[..., None] if entry.event_dim else inside
    log_prob = d.log_prob(torch.where(checked, value, somewhere(entry, value)))
    num_event = len(d.event_shape) - entry.event_dim
    if num_event:
        inside = inside.flatten(-num_event).all(-1)
    return torch.where(inside, log_prob, -torch.inf)


def _log_prob(d: Distribution, value: Tensor) -> Tensor:
    try:
        return d.log_prob(value)
    except KeyError as error:  # Pyro's transforms look for a draw of their own
        if not isinstance(d, TransformedDistribution):
            raise
        raise NotImplementedError(
            "A density has a transform without an inverse, and is asked for at values that it has "
            "not drawn itself. Use one with an inverse: `affine_autoregressive`, `spline`, "
            "`affine_coupling`."
        ) from error


def likelihood_within(log_prior: Tensor, log_likelihood: Tensor) -> Tensor:
    """Return log p(x | z), and -inf where z is outside of the prior's support.

    There the model went on from another z (`moved_inside`).
    """
    return torch.where(log_prior == -torch.inf, -torch.inf, log_likelihood)


def moved_inside(d: Distribution, value: Tensor) -> Tensor:
    """Return `value`, and where it is outside of d's support some value inside.

    A model goes on with it from a latent without density, with parameters that are some.
    """
    entry = _checkable_entry(d)
    if entry is None or entry.is_discrete:
        return value
    return torch.where(entry.check(value), value, somewhere(entry, value))


def largest_value(support: Any) -> float:
    """Return the largest value of a discrete support, infinite if it has none."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if support in (constraints.boolean, constraints.one_hot):
        return 1.0
    return float(torch.as_tensor(getattr(support, "upper_bound", torch.inf)).max())


def _checkable_entry(d: Distribution) -> Any:
    """The interval or the discrete set that each entry lies in, or None for other supports."""
    try:
        support: Any = d.support
    except NotImplementedError:
        return None
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if support is None or is_real(support):
        return None
    return None if support.event_dim and not support.is_discrete else support


def is_real(support: Any) -> bool:
    """Whether any number is in the support, be it of a mixture."""
    if isinstance(support, constraints.MixtureSameFamilyConstraint):
        support = support.base_constraint
    return support is constraints.real


def somewhere(entry: Any, value: Tensor) -> Tensor:
    """Return a value of the support, that entries of `value` can be replaced by."""
    if isinstance(entry, constraints.MixtureSameFamilyConstraint):  # of its first component
        found = somewhere(entry.base_constraint, value[..., None])
        return found[..., 0] if found.ndim else found
    if not entry.is_discrete:
        return biject_to(entry)(value.new_zeros(()))
    if entry.event_dim:  # all of the counts in the first category, of which one-hot has one
        first = torch.arange(value.shape[-1], device=value.device) == 0
        return first * torch.as_tensor(getattr(entry, "upper_bound", 1)).to(value)[..., None]
    bound = getattr(entry, "lower_bound", getattr(entry, "upper_bound", 0))
    return torch.as_tensor(bound).to(value)
