"""What hid the entries: missingness models p(M | x) as programs, for data missing not at random.

A missingness model is an ordinary program `missingness(x, mask=None)` of completed rows that
observes the mask, at one site or several:

    def missingness(x, mask=None):
        with pyro.plate("rows", len(x)):
            observed = dist.Bernoulli(logits=2 - x).to_event(1)  # large values get lost
            pyro.sample("mask", observed, obs=None if mask is None else mask.float())

The mask is bool, and torch's Bernoulli wants numbers. Further arguments of the run are handed on as
to the model.
"""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppl_vae.inference.pyro.findings import accepts_mask
from ppl_vae.inference.pyro.program import Program
from ppl_vae.missingness import Logistic, Patterns, require_kind

__all__ = [
    "check_missingness",
    "log_missingness",
    "logistic_missingness",
    "pattern_missingness",
]

SURE = 1e30  # a logit of what never or always happens, as an infinite one makes NaN


def log_missingness(program: Program, missingness: Callable[..., Any], x: Tensor) -> Tensor:
    """Return log p(M | x) of completed rows x (..., B, *event), shape (..., B)."""
    sites = program.trace_other(missingness, x).values()
    return sum(site["fn"].log_prob(site["value"]) for site in sites)


def check_missingness(program: Program, missingness: Callable[..., Any]) -> None:
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
    sites = _run(program, missingness)
    if not sites:
        raise ValueError(
            "The missingness model samples nothing: let it observe the mask, "
            "`sample('mask', ..., obs=1.0 * mask)`."
        )
    for name, site in sites.items():
        if not site["is_observed"]:
            raise ValueError(
                f"Site {name!r} of the missingness model is not observed: give it `obs=1.0 * mask`."
            )
        rows = (len(program.x_obs),)
        if site["fn"].batch_shape != rows:
            raise ValueError(
                f"Site {name!r} of the missingness model must have one density a row, batch shape "
                f"{rows}, got {site['fn'].batch_shape}: use a plate over rows and `.to_event`."
            )


def _run(program: Program, missingness: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    """Run and score the missingness model at the rows with zeros where they are missing."""
    try:
        sites = program.trace_other(missingness, program.x_obs)
        for site in sites.values():
            site["fn"].log_prob(site["value"])
    except Exception as error:
        remedy = ": write `obs=1.0 * mask`, for torch's Bernoulli takes no bools"
        raise ValueError(
            "The missingness model could not be run as `missingness(x, mask=mask)`, both of shape "
            f"{tuple(program.x_obs.shape)}{remedy if 'bool' in str(error) else ''}. "
            f"{type(error).__name__}: {error}"
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
        >>> from pyro import poutine
        >>> from ppl_vae.missingness import mnar_self_logistic
        >>> from ppl_vae.pyro import logistic_missingness
        >>> x = torch.randn(20, 3)
        >>> mechanism = mnar_self_logistic(np.random.default_rng(0), x.numpy())
        >>> missingness = logistic_missingness(mechanism)
        >>> poutine.trace(missingness).get_trace(x).nodes["mask"]["value"].shape
        torch.Size([20, 3])
    """
    require_kind(Logistic, mechanism)
    weights, bias = torch.as_tensor(mechanism.weights), torch.as_tensor(mechanism.bias)
    always, never = bias.isposinf(), bias.isneginf()
    bias = bias.clamp(-SURE, SURE)

    def missingness(x: Tensor, *args: Any, mask: Tensor | None = None, **kwargs: Any) -> None:
        del args, kwargs  # of the model: the mechanism is one of x alone
        flat = x.reshape(len(x), -1)
        logits = (flat @ weights.to(flat) + bias.to(flat)).reshape(x.shape)
        with pyro.plate("rows", len(x)):
            observed = dist.Bernoulli(logits=-logits).to_event(x.ndim - 1)
            pyro.sample("mask", observed, obs=None if mask is None else mask.to(x))
            if mask is not None:
                seen = mask.reshape(len(x), -1)
                surely_lost, surely_seen = always.to(x.device), never.to(x.device)
                impossible = ((seen & surely_lost) | (~seen & surely_seen)).any(1)
                pyro.factor("a possible mask", torch.where(impossible, -torch.inf, 0.0).to(x))

    return missingness


def pattern_missingness(
    mechanism: Patterns, classify: Callable[[Tensor], Tensor] | None = None
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
        >>> from pyro import poutine
        >>> from ppl_vae.missingness import quadrants
        >>> from ppl_vae.pyro import pattern_missingness
        >>> missingness = pattern_missingness(quadrants((4, 4)))
        >>> mask = torch.ones(2, 4, 4, dtype=torch.bool)
        >>> mask[:, :2, :2] = False
        >>> sites = poutine.trace(missingness).get_trace(torch.zeros(2, 4, 4), mask=mask).nodes
        >>> sites["pattern"]["value"].tolist()
        [0, 0]
    """
    require_kind(Patterns, mechanism)
    mechanism.check_classes(classify is not None)
    patterns = torch.as_tensor(mechanism.patterns.copy())
    probability = torch.as_tensor(mechanism.probability)

    def missingness(x: Tensor, *args: Any, mask: Tensor | None = None, **kwargs: Any) -> None:
        del args, kwargs  # of the model: the mechanism is one of x alone
        of_class = x.new_ones(len(x), 1) if classify is None else classify(x)
        with pyro.plate("rows", len(x)):
            pattern = dist.Categorical(probs=of_class @ probability.to(x))
            if mask is None:
                pyro.sample("pattern", pattern)
                return
            same = (
                (mask[:, None] == patterns.to(mask.device))
                .reshape(len(x), len(patterns), -1)
                .all(-1)
            )
            pyro.sample("pattern", pattern, obs=same.to(torch.uint8).argmax(1))
            known = torch.where(same.any(1), 0.0, -torch.inf)
            pyro.factor("a known pattern", known.to(x))

    return missingness
