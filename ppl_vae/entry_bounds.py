"""Bounds, as a user gives them: of a row's entries, or of a grid; checked once for both twins."""

from typing import Any

import numpy as np

__all__ = ["check_bounds", "check_finite", "check_holds_integers", "check_shape"]


def check_bounds(bounds: Any) -> None:
    """Raise a `ValueError` unless `bounds` is a pair of numbers or arrays with low <= high."""
    try:
        low, high = (np.asarray(bound, float) for bound in bounds)
        ordered = low <= high
    except (TypeError, ValueError) as error:
        raise ValueError(
            "bounds must be (low, high) with low <= high, each a number or an array of one row's "
            f"shape, got {bounds}."
        ) from error
    if np.isnan(low).any() or np.isnan(high).any():
        raise ValueError(f"bounds are NaN somewhere: use -inf or inf where none is, got {bounds}.")
    if not ordered.all():
        raise ValueError(f"bounds must be (low, high) with low <= high, got {bounds}.")


def check_finite(bounds: Any) -> tuple[float, float]:
    """Return the ends of a grid; raise a `ValueError` unless they are finite and in order."""
    try:
        low, high = map(float, bounds)
    except (TypeError, ValueError) as error:
        raise ValueError(f"bounds must be (low, high), two numbers, got {bounds!r}.") from error
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(f"bounds must be (low, high), finite and low < high, got {bounds!r}.")
    return low, high


def check_shape(bounds: Any, event_shape: tuple[int, ...]) -> None:
    """Raise a `ValueError` unless both bounds fit one row."""
    for name, bound in zip(("low", "high"), bounds, strict=True):
        try:
            np.broadcast_to(np.asarray(bound), event_shape)
        except ValueError as error:
            raise ValueError(
                f"bounds must be numbers or arrays of one row's shape {event_shape}, got {name} of "
                f"shape {np.shape(bound)}."
            ) from error


def check_holds_integers(bounds: Any, site: str) -> None:
    """Raise a `ValueError` where no integer lies between the bounds of discrete data."""
    low, high = (np.asarray(bound, float) for bound in bounds)
    if (np.ceil(low) > np.floor(high)).any():
        raise ValueError(
            f"bounds must have an integer between them, as site {site!r} is discrete, got {bounds}."
        )
