"""Whole numbers that a caller gives: how many particles, draws, chains."""

from typing import Any

import numpy as np

__all__ = ["check_at_least"]


def check_at_least(least: int, **numbers: Any) -> None:
    """Raise a `ValueError` that names the first number that is no integer or too small.

    Args:
        least: the smallest number allowed.
        **numbers: by the name that the caller knows.

    Example:
        >>> check_at_least(1, num_draws=3)
        >>> check_at_least(1, num_draws=2.5)
        Traceback (most recent call last):
            ...
        ValueError: num_draws must be an integer >= 1, got 2.5.
    """
    for name, number in numbers.items():
        is_number = isinstance(number, int | np.integer) and not isinstance(number, bool)
        if not (is_number and number >= least):
            raise ValueError(f"{name} must be an integer >= {least}, got {number!r}.")
