"""Diagnostics of two-valued draws, such as the pixels of binarised images, from counts alone.

Normal scores, folded scores, quantile indicators and the draws themselves are then affine in one
another, so that R-hat needs only the counts per split chain and the three effective sample sizes
are one. Shapes: S scalars, C chains, N draws, H = N // 2.
"""

import numpy as np
from numpy.typing import NDArray

from ppl_vae._autocorrelation import fast_effective_sample_size
from ppl_vae._ranks import split_chains, tail_quantiles

__all__ = ["binary_columns", "binary_diagnostics"]


def binary_columns(block: NDArray) -> NDArray:
    """Tell which scalars of a block (S, C, N) have exactly two values, both finite: bool (S,)."""
    binary = _two_valued(block[:, :, : 1 + block.shape[2] // 16])
    if binary.any():
        low, high = block.min(axis=(1, 2)), block.max(axis=(1, 2))
        binary &= np.isfinite(low) & np.isfinite(high) & (low < high) & _two_valued(block)
    return binary


def _two_valued(block: NDArray) -> NDArray:
    low, high = (f(axis=(1, 2), keepdims=True) for f in (block.min, block.max))
    return ((block == low) | (block == high)).all(axis=(1, 2))


def binary_diagnostics(
    block: NDArray, names: tuple[str, ...]
) -> tuple[dict[str, NDArray], NDArray]:
    """Return the named diagnostics of two-valued scalars, and which of them can be relied on.

    Not reliable, and left to the general way: a value that does not reach the split chains or
    differs by rounding only, chains that never move, an autocorrelation that is zero to rounding.

    Args:
        block: two-valued draws, (S, C, N) with N at least 4.
        names: fields of `ppl_vae.diagnostics.Convergence`.
    """
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
    return result, sure


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
