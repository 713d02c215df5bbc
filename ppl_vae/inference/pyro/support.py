"""Log densities that are -inf outside of the support.

Torch's densities go on beyond their support, or are NaN there, unless they are validated, when they
raise. A sampler meets such values wherever guide and prior have different supports.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, biject_to, constraints

__all__ = ["likelihood_within", "log_prob_within"]


def log_prob_within(d: Distribution, value: Tensor) -> Tensor:
    """Return log d(value), and -inf where `value` is outside of d's support."""
    entry = _bounded_entry(d)
    if entry is None:
        return d.log_prob(value)
    inside = entry.check(value)
    somewhere = biject_to(entry)(value.new_zeros(()))
    log_prob = d.log_prob(torch.where(inside, value, somewhere))
    if d.event_shape:
        inside = inside.flatten(-len(d.event_shape)).all(-1)
    return torch.where(inside, log_prob, -torch.inf)


def likelihood_within(log_prior: Tensor, log_likelihood: Tensor) -> Tensor:
    """Return log p(x | z), and -inf where z is outside of the prior's support.

    There the likelihood's parameters may be none, a negative scale say, and its density NaN.
    """
    return torch.where(log_prior == -torch.inf, -torch.inf, log_likelihood)


def _bounded_entry(d: Distribution) -> Any:
    """The interval that each entry lies in, or None for other supports."""
    try:
        support: Any = d.support
    except NotImplementedError:
        return None
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    no_interval = support is None or support is constraints.real
    if no_interval or support.is_discrete or support.event_dim:
        return None
    return support
