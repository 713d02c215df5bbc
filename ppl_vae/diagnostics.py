"""Convergence diagnostics for millions of scalars: R-hat, effective sample sizes, MCSE.

The numbers are ArviZ's (`arviz.rhat`, `arviz.ess`, `arviz.mcse`), computed for all scalars at
once. Shapes: C chains, N draws, S scalars. Source: Vehtari et al. (2021), Rank-normalization,
folding and localization, https://doi.org/10.1214/20-BA1221.
"""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from ppl_vae._autocorrelation import effective_sample_size
from ppl_vae._binary import binary_diagnostics
from ppl_vae._ranks import normal_scores, split_chains
from ppl_vae._rows import (
    acceptance_rates,
    frozen_chains,
    largest_khat,
    mean_known,
    missing_draws,
    order_by_row,
    sample_statistic,
)

__all__ = ["Convergence", "convergence", "ess_bulk", "ess_tail", "mcse_mean", "rhat", "summary"]

# Elements of one block: its few temporaries stay in a CPU's cache.
BLOCK_SIZE = 2**17
MIN_DRAWS = 4


class Convergence(NamedTuple):
    """Diagnostics of every scalar; each field has the shape of one draw.

    rhat: rank-normalised split R-hat, the larger of the bulk and the folded one.
    ess_bulk: effective sample size of the normal scores, in draws.
    ess_tail: the smaller effective sample size of the 5 % and 95 % quantiles, in draws.
    mcse_mean: Monte-Carlo standard error of the mean, in units of the draws.
    """

    rhat: Any
    ess_bulk: Any
    ess_tail: Any
    mcse_mean: Any


def convergence(x: ArrayLike, *, chunk: int | None = None) -> Convergence:
    """Compute all four diagnostics of every scalar, sharing the ranks and the memory between them.

    Args:
        x: draws, (chain, draw, *scalars); at least 4 draws, or all results are NaN.
        chunk: scalars worked on at a time; by default about 1 MB of draws. No result depends on it.

    Returns:
        Four float64 arrays of shape `scalars`. As in ArviZ, a scalar with a NaN among its draws
        gets NaN, one chain has no R-hat, and a constant has no R-hat but the full sample size.

    Raises:
        TypeError: the draws are not real numbers.
        ValueError: `x` has no (chain, draw) axes, or `chunk` is below 1.

    Note:
        Where a tail quantile falls on a draw (chains x draws - 1 divisible by 20) or on a tie,
        the tail ESS follows ArviZ 0.x to its rounding error, which may put such draws above
        their own quantile. There, and for infinite draws, ArviZ 1.x differs; nowhere else.

    Example:
        >>> draws = np.random.default_rng(0).normal(size=(4, 500, 3))
        >>> bool((convergence(draws).rhat < 1.01).all())
        True
    """
    return Convergence(**_run(x, Convergence._fields, chunk))


def rhat(x: ArrayLike) -> NDArray:
    """Compute the rank-normalised split R-hat of every scalar (`arviz.rhat`, method "rank").

    Args:
        x: draws, (chain, draw, *scalars); NaN below 2 chains or 4 draws.

    Example:
        >>> apart = np.random.default_rng(0).normal(size=(4, 500)) + np.arange(4)[:, None]
        >>> bool(rhat(apart) > 1.3)
        True
    """
    return _run(x, ("rhat",))["rhat"]


def ess_bulk(x: ArrayLike) -> NDArray:
    """Compute the bulk effective sample size of every scalar (`arviz.ess`, method "bulk").

    Args:
        x: draws, (chain, draw, *scalars); NaN below 4 draws.

    Example:
        >>> float(ess_bulk(np.ones((4, 500))))
        2000.0
    """
    return _run(x, ("ess_bulk",))["ess_bulk"]


def ess_tail(x: ArrayLike) -> NDArray:
    """Compute the tail effective sample size of every scalar (`arviz.ess`, method "tail").

    Args:
        x: draws, (chain, draw, *scalars); NaN below 4 draws.

    Example:
        >>> ess_tail(np.random.default_rng(0).normal(size=(4, 500, 2, 3))).shape
        (2, 3)
    """
    return _run(x, ("ess_tail",))["ess_tail"]


def mcse_mean(x: ArrayLike) -> NDArray:
    """Compute the Monte-Carlo standard error of every mean (`arviz.mcse`, method "mean").

    Args:
        x: draws, (chain, draw, *scalars); NaN below 4 draws. The result has the unit of `x`.

    Example:
        >>> draws = np.random.default_rng(0).normal(size=(4, 500))
        >>> bool(0.5 < mcse_mean(draws) * 2000**0.5 < 2)
        True
    """
    return _run(x, ("mcse_mean",))["mcse_mean"]


def _run(x: ArrayLike, names: tuple[str, ...], chunk: int | None = None) -> dict[str, NDArray]:
    draws = np.asarray(x)
    if draws.dtype.kind not in "biuf":
        raise TypeError(f"Draws must be real numbers, got dtype {draws.dtype}.")
    if draws.ndim < 2:
        raise ValueError(
            f"Draws must have shape (chain, draw, ...), got {draws.shape}; "
            "for a single chain pass x[None]."
        )
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1 scalar, got {chunk}.")
    num_chains, num_draws, *scalars = draws.shape
    flat = draws.reshape(num_chains, num_draws, int(np.prod(scalars)))
    result = {name: np.full(flat.shape[2], np.nan) for name in names}
    step = chunk or max(1, BLOCK_SIZE // max(1, num_chains * num_draws))
    for start in range(0, flat.shape[2] if num_chains and num_draws >= MIN_DRAWS else 0, step):
        part = slice(start, start + step)
        for name, values in _block(_as_block(flat[..., part]), names).items():
            result[name][part] = values
    return {name: values.reshape(scalars)[()] for name, values in result.items()}


def _as_block(part: NDArray) -> NDArray:
    """Bring draws (C, N, S) to (S, C, N), contiguous, in single or double precision."""
    dtype = part.dtype if part.dtype in (np.float32, np.float64) else np.dtype(float)
    return np.ascontiguousarray(np.moveaxis(part, -1, 0), dtype=dtype)


def _block(block: NDArray, names: tuple[str, ...]) -> dict[str, NDArray]:
    """Diagnostics of a block (S, C, N): NaN, two-valued and other scalars each in their way."""
    result = {name: np.full(len(block), np.nan) for name in names}
    two_valued, binary = binary_diagnostics(block, names)
    for name in names:
        result[name][binary] = two_valued[name]
    todo = ~np.isnan(block).any(axis=(1, 2))
    todo[binary] = False
    if todo.any():
        for name, values in _general(block if todo.all() else block[todo], names).items():
            result[name][todo] = values
    if block.shape[1] < 2 and "rhat" in result:
        result["rhat"][:] = np.nan
    return result


def _general(block: NDArray, names: tuple[str, ...]) -> dict[str, NDArray]:
    """Diagnostics of a block without NaN, straight from their definitions."""
    result = {}
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        if set(names) & {"rhat", "ess_bulk", "ess_tail"}:
            scores = normal_scores(block, fold="rhat" in names)
        if "rhat" in names:
            bulk = _potential_scale(scores.bulk)
            folded = _potential_scale(np.asarray(scores.folded))
            # Two equidistant values leave the folded R-hat undefined; the bulk one then stands.
            result["rhat"] = np.where(folded > bulk, folded, bulk)
        if "ess_bulk" in names:
            result["ess_bulk"] = effective_sample_size(scores.bulk)
        if "ess_tail" in names:
            low, high = (
                effective_sample_size(split_chains(block <= q[:, None, None]).astype(float))
                for q in scores.quantiles
            )
            result["ess_tail"] = np.where(high < low, high, low)
        if "mcse_mean" in names:
            ess = effective_sample_size(split_chains(block).astype(float, copy=False))
            sd = block.reshape(len(block), -1).std(axis=1, ddof=1, dtype=float)
            result["mcse_mean"] = sd / np.sqrt(ess)
    return result


def _potential_scale(scores: NDArray) -> NDArray:
    """R-hat of split chains (S, 2C, H): total over within-chain standard deviation."""
    num_draws = scores.shape[-1]
    between = num_draws * scores.mean(axis=-1).var(axis=-1, ddof=1)
    within = scores.var(axis=-1, ddof=1).mean(axis=-1)
    return np.sqrt((between / within + num_draws - 1) / num_draws)


def summary(idata: Any, *, site: str | None = None) -> xr.Dataset:
    """Sum up the convergence of the missing entries of each row, and flag rows with stuck chains.

    Args:
        idata: `arviz.InferenceData`, `xarray.DataTree` or mapping with a group `posterior` that
            holds `<site>_missing` (chain, draw, missing) with a coordinate `row` along `missing`,
            and perhaps a group `sample_stats` with `acceptance_rate` (chain, draw, row) and
            `khat` (chain, row).
        site: name of the data site; may be left out where only one has missing entries.

    Returns:
        Dataset over `row`, the rows with something missing in ascending order: `num_missing`;
        `rhat_worst` (largest), `rhat_median`; `ess_bulk_worst` (smallest), `ess_bulk_median`,
        `ess_tail_worst`, `ess_tail_median` (draws); `acceptance_rate` (mean over chains and draws,
        NaN if unknown); `khat_worst` (largest over chains, NaN without weights); `stuck` (bool).
        Entries that are the same in all draws of all chains have no R-hat and do not count towards
        the row's, which is NaN if it has only such entries.

        A row is `stuck` when one of its chains never moved in the window of at least two draws.
        Where the row has acceptance rates in that chain: they are all 0, those of every move of the
        latents (`hmc_acceptance_rate` too) or those of the moves of x (`acceptance_rate_x`). Where
        it has none: none of the row's missing entries ever changes in that chain, although some
        entry differs from it in another chain. (A chain of very likely pixels that accepts is thus
        not stuck.)

    Raises:
        TypeError: `idata` has no groups, such as a run itself.
        ValueError: no such group, variable or coordinate, or several sites to choose from.

    Example:
        >>> draws = np.random.default_rng(0).normal(size=(4, 100, 3))
        >>> x = xr.DataArray(draws, dims=["chain", "draw", "missing"])
        >>> x = x.assign_coords(row=("missing", [0, 0, 7]))
        >>> summary({"posterior": xr.Dataset({"x_missing": x})}).stuck.to_series().to_dict()
        {0: False, 7: False}
    """
    missing = missing_draws(idata, site)
    row, index, counts = np.unique(missing["row"].values, return_inverse=True, return_counts=True)
    draws = missing.values
    values = convergence(draws)
    acceptance = acceptance_rates(idata, row, draws.shape[:2])
    unknown, refused = _refused(idata, row, acceptance)
    stuck = np.where(unknown, frozen_chains(draws, index), refused) & (draws.shape[1] > 1)
    columns = {"num_missing": counts}
    for name in ("rhat", "ess_bulk", "ess_tail"):
        smallest, median, largest = order_by_row(getattr(values, name), index, counts)
        columns[f"{name}_worst"] = largest if name == "rhat" else smallest
        columns[f"{name}_median"] = median
    columns["acceptance_rate"] = mean_known(acceptance)
    columns["khat_worst"] = largest_khat(idata, row)
    columns["stuck"] = stuck.any(axis=0)
    return xr.Dataset({k: ("row", v) for k, v in columns.items()}, coords={"row": row})


def _refused(idata: Any, row: NDArray, of_guide: NDArray) -> tuple[NDArray, NDArray]:
    """Whether a row's acceptance rates are unknown, and whether all moves of z or x failed."""
    dims = ("chain", "draw", "row")
    of_hmc = sample_statistic(idata, "hmc_acceptance_rate", row, dims)
    of_z = of_guide if of_hmc is None else np.fmax(of_guide, of_hmc)
    of_x = sample_statistic(idata, "acceptance_rate_x", row, dims)
    moves = [of_z] if of_x is None else [of_z, of_x]
    unknown = np.all([np.isnan(rates).all(axis=1) for rates in moves], axis=0)
    failed = [(rates <= 0).any(axis=1) & ~(rates > 0).any(axis=1) for rates in moves]
    return unknown, np.any(failed, axis=0)
