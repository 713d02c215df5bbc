"""Diagnostics of two-valued draws, such as the pixels of binarised images, from counts alone.

Normal scores, folded scores, quantile indicators and the draws themselves are then affine in one
another, so that R-hat needs only the counts per split chain and the three effective sample sizes
are one. Shapes: S scalars, C chains, N draws, H = N // 2.
"""

import numpy as np
from numpy.typing import NDArray

from ppl_vae._autocorrelation import fast_effective_sample_size
from ppl_vae._ranks import split_chains, tail_quantiles

__all__ = ["binary_diagnostics"]

# Draws per chain that a scalar must pass as two-valued before all of its draws are looked at.
GLANCE = 16


def binary_diagnostics(
    block: NDArray, names: tuple[str, ...]
) -> tuple[dict[str, NDArray], NDArray]:
    """Return the named diagnostics of the two-valued scalars of a block, and their indices.

    Left out, to be computed the general way: scalars with more values, with one that is not
    finite, does not reach the split chains or differs by rounding only; chains that never move;
    an autocorrelation that is zero to rounding.

    Args:
        block: draws, (S, C, N) with N at least 4.
        names: fields of `ppl_vae.diagnostics.Convergence`.
    """
    columns = _two_valued_columns(block)
    if not len(columns):
        return {name: np.empty(0) for name in names}, columns
    block = _select(block, columns)
    low, high = (f(axis=(1, 2)).astype(float) for f in (block.min, block.max))
    ones = block == high[:, None, None]
    split = split_chains(ones)
    share = split.mean(axis=-1)
    within = (share * (1 - share)).mean(axis=-1) / (1 - 1 / split.shape[-1])
    sure = (within > 0) & (high - low > 1e-12)
    result = {}
    if "rhat" in names:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = share.var(axis=-1, ddof=1) / within
        result["rhat"] = np.sqrt(ratio + 1 - 1 / split.shape[-1])
    if set(names) - {"rhat"}:
        ess, doubtful = fast_effective_sample_size(split.astype(float))
        sure &= ~doubtful
        result |= _from_sample_size(ess, split[0].size, ones, low, high)
    return {name: result[name][sure] for name in names}, columns[sure]


def _two_valued_columns(block: NDArray) -> NDArray:
    """Indices of the scalars with exactly two values, both finite."""
    columns = np.flatnonzero(_at_most_two_valued(block[..., :GLANCE]))
    if len(columns):
        seen = _select(block, columns)
        columns = columns[_at_most_two_valued(seen) & (seen != seen[:, :1, :1]).any(axis=(1, 2))]
    return columns


def _at_most_two_valued(block: NDArray) -> NDArray:
    with np.errstate(invalid="ignore", over="ignore"):
        low, high = (f(axis=(1, 2), keepdims=True) for f in (block.min, block.max))
        finite = np.isfinite(high - low)[:, 0, 0]
    return finite & ((block == low) | (block == high)).all(axis=(1, 2))


def _select(block: NDArray, columns: NDArray) -> NDArray:
    return block if len(columns) == len(block) else block[columns]


def _from_sample_size(
    ess: NDArray, num_split: int, ones: NDArray, low: NDArray, high: NDArray
) -> dict[str, NDArray]:
    """The diagnostics that follow from the one effective sample size of two-valued draws."""
    size = ones[0].size
    num_low = size - ones.sum(axis=(1, 2))
    quantiles = tail_quantiles(lambda k: np.where(k < num_low, low, high), size)
    moves = (quantiles >= low) & (quantiles < high)  # else the indicator is constant
    sd = (high - low) * np.sqrt(num_low * (size - num_low) / size / (size - 1))
    return {
        "ess_bulk": ess,
        "ess_tail": np.where(moves, ess, num_split).min(axis=0),
        "mcse_mean": sd / np.sqrt(ess),
    }
