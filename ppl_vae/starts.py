"""Completed rows that chains can start from, in place of the model's own prior predictive.

Each function returns (num_chains, rows, *event), every chain with draws of its own; a run takes
them as `init_params={"x": rows}`, as an array of its backend, and a run of one chain without the
leading axis. R-hat tells what a start costs: the law of the draws does not depend on it.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.incomplete_data import check_data

__all__ = ["hot_deck", "random_binary", "random_uniform"]


def random_binary(
    rng: np.random.Generator,
    x: ArrayLike,
    num_chains: int,
    *,
    probability: float = 0.5,
    mask: ArrayLike | None = None,
) -> NDArray:
    """Complete rows by coin flips.

    Args:
        rng: source of randomness.
        x: data, (rows, *event), NaN where missing.
        num_chains: chains, at least 1.
        probability: of a one, in [0, 1].
        mask: bool, of the shape of x, True = observed; by default what is not NaN.

    Raises:
        ValueError: if `probability` or `num_chains` is out of range, or the data are bad.

    Example:
        >>> random_binary(np.random.default_rng(0), [[1.0, np.nan]], 3, probability=1.0).tolist()
        [[[1.0, 1.0]], [[1.0, 1.0]], [[1.0, 1.0]]]
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must lie in [0, 1], got {probability}.")
    x, mask = _checked(x, mask, num_chains)
    return np.where(mask, x, rng.random((num_chains, *x.shape)) < probability).astype(x.dtype)


def random_uniform(
    rng: np.random.Generator,
    x: ArrayLike,
    num_chains: int,
    *,
    low: float = 0.0,
    high: float = 1.0,
    mask: ArrayLike | None = None,
) -> NDArray:
    """Complete rows by draws of U[low, high).

    Args:
        rng: source of randomness.
        x: data, (rows, *event), NaN where missing.
        num_chains: chains, at least 1.
        low: least value.
        high: upper bound, above `low`.
        mask: bool, of the shape of x, True = observed; by default what is not NaN.

    Raises:
        ValueError: if `high` is not above `low`, `num_chains` is below 1, or the data are bad.
        TypeError: if the data are integers.

    Example:
        >>> random_uniform(np.random.default_rng(0), [[1.0, np.nan]], 3).shape
        (3, 1, 2)
    """
    if not low < high:
        raise ValueError(f"high must be above low, got low={low} and high={high}.")
    x, mask = _checked(x, mask, num_chains)
    if not np.issubdtype(x.dtype, np.floating):
        raise TypeError(
            f"x has dtype {x.dtype}, which cannot hold uniform draws: convert it first."
        )
    return np.where(mask, x, rng.uniform(low, high, (num_chains, *x.shape))).astype(x.dtype)


def hot_deck(
    rng: np.random.Generator, x: ArrayLike, num_chains: int, *, mask: ArrayLike | None = None
) -> NDArray:
    """Complete each feature by draws from its own observed values.

    Args:
        rng: source of randomness.
        x: data, (rows, *event), NaN where missing.
        num_chains: chains, at least 1.
        mask: bool, of the shape of x, True = observed; by default what is not NaN.

    Raises:
        ValueError: if a feature is observed in no row (named), `num_chains` is below 1, or the data
            are bad.

    Example:
        >>> hot_deck(np.random.default_rng(0), [[1.0], [np.nan], [1.0]], 2).ravel().tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    x, mask = _checked(x, mask, num_chains)
    completed = np.repeat(x[None], num_chains, axis=0)
    for feature in np.ndindex(x.shape[1:]):
        at = (slice(None), *feature)
        donors, missing = x[at][mask[at]], np.flatnonzero(~mask[at])
        if not len(donors):
            raise ValueError(f"Feature {feature} is observed in no row: it has no donors.")
        completed[(slice(None), missing, *feature)] = rng.choice(donors, (num_chains, len(missing)))
    return completed


def _checked(x: ArrayLike, mask: ArrayLike | None, num_chains: int) -> tuple[NDArray, NDArray]:
    """Return the data with zeros where missing, and the mask."""
    if not num_chains >= 1:
        raise ValueError(f"num_chains must be at least 1, got {num_chains}.")
    return check_data(x, mask)
