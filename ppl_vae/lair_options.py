"""What the options of LAIR kernels must satisfy, in both twins."""

import inspect
from typing import Any

from ppl_vae.counts import check_at_least

__all__ = ["check_lair_options", "require_function"]

MAKERS = {"local": "local(I)", "poly": "poly(T)", "temper": "temper(0.5)"}  # of functions


def check_lair_options(num_particles: Any, num_prior: Any, num_draws: Any, resample: Any) -> None:
    """Raise a `ValueError` unless these are options of a LAIR kernel.

    Args:
        num_particles: K, at least 1.
        num_prior: R, at least 0.
        num_draws: I, at least 1.
        resample: `local(I)` belongs to a kernel with I draws.

    Example:
        >>> check_lair_options(4, 1, 1, resample=max)
    """
    check_at_least(1, num_particles=num_particles, num_draws=num_draws)
    check_at_least(0, num_prior=num_prior)
    expected = getattr(resample, "num_draws", num_draws)
    if expected != num_draws:
        raise ValueError(
            f"local({expected}) is for {expected} draws a proposal, the kernel has {num_draws}: "
            "use `MultiDrawLAIRKernel(..., num_draws=I, resample=resampling.local(I))`."
        )


def require_function(name: str, value: Any, arguments: str, example: str) -> None:
    """Raise a `TypeError` unless an option is a function of these arguments.

    Args:
        name: of the option.
        value: what was given.
        arguments: that it is called with, such as "log_weight, num_draws".
        example: one that does, such as "resampling.systematic".

    Example:
        >>> require_function("power", lambda t: 1.0, "t", "weighting.poly(100)")
    """
    made = MAKERS.get(getattr(value, "__name__", ""))
    if made is not None:
        raise TypeError(f"{name} must be what {value.__name__} returns: write `{made}`.")
    if not callable(value) or not _takes(value, len(arguments.split(","))):
        raise TypeError(
            f"{name} must be a function of ({arguments}), such as `{example}`, got {value!r}."
        )


def _takes(fn: Any, num_arguments: int) -> bool:
    try:
        inspect.signature(fn).bind(*[None] * num_arguments)
    except TypeError:
        return False
    except ValueError:  # a function without a signature
        return True
    return True
