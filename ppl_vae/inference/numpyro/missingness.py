"""What hid the entries: missingness models p(M | x) as programs, for data missing not at random.

A missingness model is an ordinary program `missingness(x, mask=None)` of completed rows that
observes the mask, at one site or several:

    def missingness(x, mask=None):
        with numpyro.plate("rows", len(x)):
            observed = dist.Bernoulli(logits=2 - x).to_event(1)  # large values get lost
            numpyro.sample("mask", observed, obs=mask)

Further arguments of the run are handed on to it as to the model.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array

from ppl_vae.inference.numpyro.program import Program, accepts_mask
from ppl_vae.missingness import Logistic, Patterns, require_kind

__all__ = [
    "check_missingness",
    "log_missingness",
    "logistic_missingness",
    "pattern_missingness",
]

SURE = 1e30  # a logit of what never or always happens, as an infinite one makes NaN


def log_missingness(program: Program, missingness: Callable[..., Any], x: Array) -> Array:
    """Return log p(M | x) of completed rows x (B, *event), shape (B,)."""
    sites = program.trace_other(missingness, x).values()
    return sum(site["fn"].log_prob(site["value"]) for site in sites)


def check_missingness(key: Array, program: Program, missingness: Callable[..., Any]) -> None:
    """Raise unless `missingness` gives every row's mask a density.

    Raises:
        TypeError: it is no function, or has no parameter `mask`.
        ValueError: it fails; no site, one that is not observed, or one without one value a row.
    """
    if not callable(missingness):
        raise TypeError(
            f"missingness must be a function of x and mask, got {type(missingness).__name__}."
        )
    if not accepts_mask(missingness):
        raise TypeError("missingness must have a parameter `mask`, which it observes.")
    sites = _run(key, program, missingness)
    if not sites:
        raise ValueError(
            "The missingness model samples nothing: let it observe the mask, "
            "`sample('mask', ..., obs=mask)`."
        )
    for name, site in sites.items():
        if not site["is_observed"]:
            raise ValueError(
                f"Site {name!r} of the missingness model is not observed: give it `obs=mask`."
            )
        rows = (len(program.x_obs),)
        if site["fn"].batch_shape != rows:
            raise ValueError(
                f"Site {name!r} of the missingness model must have one density a row, batch shape "
                f"{rows}, got {site['fn'].batch_shape}: use a plate over rows and `.to_event`."
            )


def _run(key: Array, program: Program, missingness: Callable[..., Any]) -> dict[str, Any]:
    """Run and score the missingness model at the rows with zeros where they are missing."""
    try:
        sites = program.trace_other(missingness, program.x_obs, key=key)
        for site in sites.values():
            site["fn"].log_prob(site["value"])
    except Exception as error:
        raise ValueError(
            "The missingness model could not be run as `missingness(x, mask=mask)`, both of shape "
            f"{program.x_obs.shape}. {type(error).__name__}: {error}"
        ) from error
    return sites


def logistic_missingness(mechanism: Logistic) -> Callable[..., None]:
    """Return a logistic mechanism as missingness model.

    Args:
        mechanism: of `ppl_vae.missingness`, for example `mnar_logistic(rng, x)`.

    Raises:
        TypeError: another kind of mechanism.

    Example:
        >>> import numpy as np
        >>> from jax import random
        >>> from numpyro import handlers
        >>> from ppl_vae.missingness import mnar_self_logistic
        >>> from ppl_vae.numpyro import logistic_missingness
        >>> x = random.normal(random.key(0), (20, 3))
        >>> mechanism = mnar_self_logistic(np.random.default_rng(0), np.asarray(x))
        >>> missingness = handlers.seed(logistic_missingness(mechanism), 0)
        >>> handlers.trace(missingness).get_trace(x)["mask"]["value"].shape
        (20, 3)
    """
    require_kind(Logistic, mechanism)
    weights, bias = jnp.asarray(mechanism.weights), jnp.asarray(mechanism.bias)
    always, never = jnp.isposinf(bias), jnp.isneginf(bias)
    bias = jnp.clip(bias, -SURE, SURE)

    def missingness(x: Array, *args: Any, mask: Array | None = None, **kwargs: Any) -> None:
        del args, kwargs  # of the model: the mechanism is one of x alone
        flat = x.reshape(len(x), -1)
        logits = (flat @ weights.astype(flat.dtype) + bias.astype(flat.dtype)).reshape(x.shape)
        with numpyro.plate("rows", len(x)):
            observed = dist.Bernoulli(logits=-logits).to_event(x.ndim - 1)
            numpyro.sample("mask", observed, obs=mask)
            if mask is not None:
                seen = mask.reshape(len(x), -1)
                impossible = ((seen & always) | (~seen & never)).any(1)
                numpyro.factor("a possible mask", jnp.where(impossible, -jnp.inf, 0.0))

    return missingness


def pattern_missingness(
    mechanism: Patterns, classify: Callable[[Array], Array] | None = None
) -> Callable[..., None]:
    """Return a choice among fixed masks as missingness model.

    Its site is `pattern`, the number of the mask.

    Args:
        mechanism: of `ppl_vae.missingness`, for example `quadrants((28, 28))`.
        classify: returns the class probabilities (B, classes) of completed rows; None where the
            mechanism has a single class.

    Raises:
        TypeError: another kind of mechanism.
        ValueError: the mechanism has several classes and there is no `classify`.

    Example:
        >>> from numpyro import handlers
        >>> from ppl_vae.missingness import quadrants
        >>> from ppl_vae.numpyro import pattern_missingness
        >>> missingness = pattern_missingness(quadrants((4, 4)))
        >>> mask = jnp.ones((2, 4, 4), bool).at[:, :2, :2].set(False)
        >>> site = handlers.trace(missingness).get_trace(jnp.zeros((2, 4, 4)), mask=mask)["pattern"]
        >>> site["value"].tolist()
        [0, 0]
    """
    require_kind(Patterns, mechanism)
    mechanism.check_classes(classify is not None)
    patterns, probability = jnp.asarray(mechanism.patterns), jnp.asarray(mechanism.probability)

    def missingness(x: Array, *args: Any, mask: Array | None = None, **kwargs: Any) -> None:
        del args, kwargs  # of the model: the mechanism is one of x alone
        of_class = jnp.ones((len(x), 1), x.dtype) if classify is None else classify(x)
        with numpyro.plate("rows", len(x)):
            pattern = dist.Categorical(probs=of_class @ probability.astype(x.dtype))
            if mask is None:
                numpyro.sample("pattern", pattern)
                return
            same = (mask[:, None] == patterns).reshape(len(x), len(patterns), -1).all(-1)
            numpyro.sample("pattern", pattern, obs=same.argmax(1))
            numpyro.factor("a known pattern", jnp.where(same.any(1), 0.0, -jnp.inf))

    return missingness
