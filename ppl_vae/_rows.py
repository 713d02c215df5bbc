"""Missing entries gathered by the row they belong to.

Shapes: C chains, N draws, M missing entries, R rows with at least one of them. `index` (M,) is the
place of each entry's row among the R rows, `counts` (R,) the number of entries of each.
"""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

__all__ = [
    "acceptance_rates",
    "frozen_chains",
    "largest_khat",
    "mean_known",
    "missing_draws",
    "order_by_row",
    "sample_statistic",
]


def missing_draws(idata: Any, site: str | None = None) -> xr.DataArray:
    """Return the draws of the missing entries, (chain, draw, missing), with coordinate `row`.

    Raises:
        TypeError: `idata` has no groups.
        ValueError: there is no such variable, or several and `site` does not choose.
    """
    posterior = _group(idata, "posterior")
    names = [str(n) for n in posterior.data_vars if str(n).endswith("_missing")]
    wanted = names if site is None else [n for n in names if n == f"{site}_missing"]
    if len(wanted) != 1:
        raise ValueError(
            f"Expected one variable {site or '<site>'}_missing in the group posterior, found "
            f"{names}; name the one to sum up with site=, or make one with to_inference_data."
        )
    missing = posterior[wanted[0]]
    if "row" not in missing.coords or set(missing.dims) != {"chain", "draw", "missing"}:
        raise ValueError(
            f"{wanted[0]} must have dimensions (chain, draw, missing) and a coordinate row, got "
            f"{missing.dims} and {list(missing.coords)}; to_inference_data makes such a variable."
        )
    return missing.transpose("chain", "draw", "missing")


def sample_statistic(idata: Any, name: str, row: NDArray, dims: tuple[str, ...]) -> NDArray | None:
    """Return a statistic of the given rows with these dimensions, or None where there is none."""
    values = _group(idata, "sample_stats").get(name)
    if values is None or set(values.dims) != set(dims):
        return None
    if "row" not in values.coords:
        values = values.assign_coords(row=np.arange(values.sizes["row"]))
    return values.reindex(row=row).transpose(*dims).values


def acceptance_rates(idata: Any, row: NDArray, shape: tuple[int, int]) -> NDArray:
    """Return the acceptance rates of the given rows, (C, N, R), NaN where there are none."""
    rates = sample_statistic(idata, "acceptance_rate", row, ("chain", "draw", "row"))
    return np.full((*shape, len(row)), np.nan) if rates is None else rates


def largest_khat(idata: Any, row: NDArray) -> NDArray:
    """Return the largest k-hat of the given rows over chains, (R,), NaN where there is none."""
    khat = sample_statistic(idata, "khat", row, ("chain", "row"))
    return np.full(len(row), np.nan) if khat is None else np.fmax.reduce(khat, axis=0)


def mean_known(rates: NDArray) -> NDArray:
    """Mean over chains and draws, (C, N, R) to (R,), of what is not NaN."""
    known = ~np.isnan(rates)
    with np.errstate(invalid="ignore"):
        return np.where(known, rates, 0.0).sum(axis=(0, 1)) / known.sum(axis=(0, 1))


def frozen_chains(draws: NDArray, index: NDArray) -> NDArray:
    """Tell which chains (C, R) leave all entries of a row unchanged, though some entry varies."""
    moved = _any_by_row((draws != draws[:, :1]).any(axis=1), index)
    varied = _any_by_row((draws != draws[:1, :1]).any(axis=(0, 1))[None], index)
    return ~moved & varied


def order_by_row(values: NDArray, index: NDArray, counts: NDArray) -> tuple[NDArray, ...]:
    """Smallest, median and largest value (M,) of each row, each (R,); NaN does not count.

    Example:
        >>> values, index = np.array([3.0, 9.0, np.nan, 1.0, np.nan]), np.array([0, 0, 0, 0, 1])
        >>> [v.tolist() for v in order_by_row(values, index, np.array([4, 1]))]
        [[1.0, nan], [3.0, nan], [9.0, nan]]
    """
    ordered = values[np.lexsort((values, index))]  # by row, each in ascending order, NaN last
    start = np.cumsum(counts) - counts
    valid = np.bincount(index, ~np.isnan(values), len(counts)).astype(int)
    last = np.maximum(valid - 1, 0)
    median = (ordered[start + last // 2] + ordered[start + valid // 2]) / 2
    return ordered[start], median, ordered[start + last]


def _any_by_row(happened: NDArray, index: NDArray) -> NDArray:
    """Per chain (., M) to (., R): did it happen to any entry of the row?"""
    return np.stack([np.bincount(index, weights) > 0 for weights in happened])


def _group(idata: Any, name: str) -> xr.Dataset:
    """Return a group of an InferenceData, DataTree or mapping, empty if it is not there."""
    if not hasattr(idata, "__contains__"):
        raise TypeError(
            "Expected the results of `to_inference_data` or `pool`, got "
            f"{type(idata).__name__}; a run becomes results by `to_inference_data(mcmc)`."
        )
    if name not in idata:
        return xr.Dataset()
    node = idata[name]
    return node.to_dataset() if hasattr(node, "to_dataset") else node
