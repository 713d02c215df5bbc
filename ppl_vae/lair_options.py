"""What the options of LAIR kernels must satisfy, in both twins."""

from typing import Any

import numpy as np

__all__ = ["check_lair_options"]


def check_lair_options(
    num_particles: Any, num_prior: Any, num_draws: Any, resample: Any, transform: Any
) -> None:
    """Raise unless these are options of a LAIR kernel.

    Args:
        num_particles: K, at least 1.
        num_prior: R, at least 0.
        num_draws: I, at least 1.
        resample: a function; `local(I)` belongs to a kernel with I draws.
        transform: a function, or None.

    Raises:
        TypeError: `resample` or `transform` is no function.
        ValueError: a number out of range, or `local` of another number of draws.

    Example:
        >>> check_lair_options(4, 1, 1, resample=max, transform=None)
    """
    numbers = {"num_particles": (num_particles, 1), "num_prior": (num_prior, 0)}
    for name, (value, least) in {**numbers, "num_draws": (num_draws, 1)}.items():
        if not (isinstance(value, int | np.integer) and value >= least):
            raise ValueError(f"{name} must be an integer >= {least}, got {value}.")
    if not callable(resample):
        raise TypeError(
            "resample must be a function of `resampling`, such as `resampling.systematic`, got "
            f"{resample!r}."
        )
    if not (transform is None or callable(transform)):
        raise TypeError(
            "transform must be a function of log-weights, such as `weighting.truncate`, got "
            f"{transform!r}."
        )
    expected = getattr(resample, "num_draws", num_draws)
    if expected != num_draws:
        raise ValueError(
            f"local({expected}) is for {expected} draws a proposal, the kernel has {num_draws}: "
            "use `MultiDrawLAIRKernel(..., num_draws=I, resample=resampling.local(I))`."
        )
