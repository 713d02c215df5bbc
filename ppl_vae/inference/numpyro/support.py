"""Log densities that are -inf outside of the support, and have no gradient there.

NumPyro's own are -inf there too, but the gradient of some is NaN: that of a log-normal goes through
the log of a negative number. A draw meets such values wherever guide and prior have different
supports.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import Distribution, biject_to, constraints

__all__ = ["largest_value", "likelihood_within", "log_prob_within"]


def log_prob_within(d: Distribution, value: Array) -> Array:
    """Return log d(value), and -inf where `value` is outside of d's support."""
    entry = _bounded_entry(d)
    if entry is None:
        return d.log_prob(value)
    inside = entry(value)
    somewhere = biject_to(entry)(jnp.zeros((), jnp.result_type(value)))
    log_prob = d.log_prob(jnp.where(inside, value, somewhere))
    if d.event_shape:
        inside = inside.all(tuple(range(-d.event_dim, 0)))
    return jnp.where(inside, log_prob, -jnp.inf)


def likelihood_within(log_prior: Array, log_likelihood: Array) -> Array:
    """Return log p(x | z), and -inf where z is outside of the prior's support.

    There the likelihood's parameters may be none, a negative scale say, and its density NaN.
    """
    return jnp.where(log_prior == -jnp.inf, -jnp.inf, log_likelihood)


def largest_value(support: Any) -> float:
    """Return the largest value of a discrete support, infinite if it has none that is known."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if support is constraints.boolean:
        return 1.0
    try:
        return float(np.max(getattr(support, "upper_bound", np.inf)))
    except TypeError:  # traced: known only when it runs
        return np.inf


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
