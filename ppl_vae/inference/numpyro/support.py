"""Log densities that are -inf outside of the support, and have no gradient there.

NumPyro's own are -inf there too, but the gradient of some is NaN: that of a log-normal goes through
the log of a negative number. A draw meets such values wherever guide and prior have different
supports.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import (
    Distribution,
    MaskedDistribution,
    biject_to,
    constraints,
)
from numpyro.primitives import Messenger

__all__ = ["MovedInside", "largest_value", "likelihood_within", "log_prob_within"]


def log_prob_within(d: Distribution, value: Array) -> Array:
    """Return log d(value), and -inf where `value` is outside of d's support."""
    if isinstance(d, MaskedDistribution):  # what is masked may be any filler
        return jnp.where(d._mask, log_prob_within(d.base_dist, value), 0.0)
    entry = _bounded_entry(d)
    if entry is None:
        return d.log_prob(value)
    inside = entry(value)
    log_prob = d.log_prob(jnp.where(inside, value, _somewhere(entry, value)))
    if d.event_shape:
        inside = inside.all(tuple(range(-d.event_dim, 0)))
    return jnp.where(inside, log_prob, -jnp.inf)


def likelihood_within(log_prior: Array, log_likelihood: Array) -> Array:
    """Return log p(x | z), and -inf where z is outside of the prior's support.

    There the model went on from another z (`MovedInside`).
    """
    return jnp.where(log_prior == -jnp.inf, -jnp.inf, log_likelihood)


class MovedInside(Messenger):
    """Lets a program go on from some value of the support where a latent was given another.

    Such a latent has no density; what follows from it has parameters that are some. Traces keep
    the value that was given.
    """

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and not msg["is_observed"]:
            entry = _bounded_entry(msg["fn"])
            if entry is not None:
                inside, somewhere = entry(msg["value"]), _somewhere(entry, msg["value"])
                msg["value"] = jnp.where(inside, msg["value"], somewhere)


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


def _somewhere(entry: Any, value: Array) -> Array:
    return biject_to(entry)(jnp.zeros((), jnp.result_type(value)))
