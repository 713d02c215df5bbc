"""Rank-normalised draws: pooled ranks of split chains turned into normal scores.

Vehtari, Gelman, Simpson, Carpenter and Bürkner (2021), Rank-normalization, folding and
localization, Bayesian Analysis 16(2), https://doi.org/10.1214/20-BA1221.

Shapes: S scalars, C chains, N draws, H = N // 2, M = 2 C H, L levels. A block is (S, C, N), a
split block (S, 2C, H). The order of operations is ArviZ's, so that the scores agree to the bit.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

__all__ = ["MAX_LEVELS", "Scores", "normal_scores", "split_chains", "tail_quantiles"]

# Up to this many distinct values in a block, ranks come from counts instead of a sort.
MAX_LEVELS = 32
TAILS = (0.05, 0.95)


class Scores(NamedTuple):
    """What the diagnostics of a block need from its ranks.

    bulk: normal scores of the draws, (S, 2C, H).
    folded: normal scores of the distances to the pooled median, (S, 2C, H); None if not wanted.
    quantiles: the 5 % and 95 % quantiles of all draws, (2, S).
    """

    bulk: NDArray
    folded: NDArray | None
    quantiles: NDArray


def split_chains(block: NDArray) -> NDArray:
    """Cut each chain in halves, (S, C, N) to (S, 2C, H), without the middle draw of an odd N."""
    half = block.shape[-1] // 2
    return np.concatenate([block[..., :half], block[..., -half:]], axis=1)


def tail_quantiles(order_statistic: Callable[[int], NDArray], size: int) -> NDArray:
    """The 5 % and 95 % quantiles (type 7) from `order_statistic(k)`, the k-th smallest, k from 0.

    The weighted sum is kept as SciPy's `mquantiles` writes it, because its rounding decides on
    which side of the quantile a tied draw falls.
    """
    result = []
    for prob in TAILS:
        position = size * prob + (1.0 - prob)
        k = int(np.floor(np.clip(position, 1, size - 1)))
        weight = np.clip(position - k, 0, 1)
        result.append((1.0 - weight) * order_statistic(k - 1) + weight * order_statistic(k))
    return np.stack(result)


def normal_scores(block: NDArray, *, fold: bool = True) -> Scores:
    """Rank-normalise a block of draws, by counting where it has few levels, else by sorting.

    Args:
        block: finite or infinite draws without NaN, float, (S, C, N) with N at least 2.
        fold: also rank the distances to the median.

    Example:
        >>> import numpy as np
        >>> scores = normal_scores(np.array([[[1.0, 2.0, 3.0, 4.0]]]))
        >>> scores.bulk.round(2).tolist()
        [[[-1.05, -0.3], [0.3, 1.05]]]
    """
    levels, codes = _find_levels(block)
    return _sorted_scores(block, fold) if codes is None else _counted_scores(levels, codes, fold)


def _score_table(size: int) -> NDArray:
    """Normal score of each half-integer rank r at index 2 r, by Blom's (r - 3/8) / (M + 1/4)."""
    ranks = np.arange(2 * size + 2) / 2  # the last for levels above all draws of a scalar
    return ndtri(np.maximum(ranks - 3 / 8, 0) / (size - 2 * 3 / 8 + 1))


def _sorted_scores(block: NDArray, fold: bool) -> Scores:
    split = split_chains(block)
    rows = split.reshape(len(split), -1)
    table = _score_table(rows.shape[1])
    bulk, ordered = _scores_by_sorting(rows.astype(float, copy=False), table)
    folded = _folded_by_sorting(rows, ordered, table).reshape(split.shape) if fold else None

    everything = block.reshape(len(block), -1)
    if everything.shape[1] != rows.shape[1]:
        ordered = np.sort(everything.astype(float, copy=False), axis=1)
    quantiles = tail_quantiles(lambda k: ordered[:, k], everything.shape[1])
    return Scores(bulk.reshape(split.shape), folded, quantiles)


def _folded_by_sorting(rows: NDArray, ordered: NDArray, table: NDArray) -> NDArray:
    half = rows.shape[1] // 2
    # The median keeps the dtype of the draws: ties among the distances depend on its rounding.
    middle = ordered[:, half - 1 : half + 1].astype(rows.dtype, copy=False)
    distance = np.abs(rows - middle.mean(axis=1, keepdims=True))
    folded, _ = _scores_by_sorting(distance.astype(float, copy=False), table)
    folded[np.isnan(distance).any(axis=1)] = np.nan
    return folded


def _scores_by_sorting(rows: NDArray, table: NDArray) -> tuple[NDArray, NDArray]:
    """Normal scores (S, M) of each row and the row in ascending order."""
    # Places in the flat array: one index instead of two halves the time of both moves below.
    order = np.argsort(rows, axis=1)
    order += rows.shape[1] * np.arange(len(rows))[:, None]
    ordered = rows.ravel().take(order)
    result = np.empty(rows.size)
    result[order] = table[2::2]
    _share_ties(result, order, ordered, table)
    return result.reshape(rows.shape), ordered


def _share_ties(scores: NDArray, order: NDArray, ordered: NDArray, table: NDArray) -> None:
    """Give tied draws the score of their average rank, in place; work only where there are ties."""
    same = np.zeros(ordered.shape, bool)  # as the draw before it, never across rows
    np.equal(ordered[:, 1:], ordered[:, :-1], out=same[:, 1:])
    later = np.flatnonzero(same)
    begin = np.flatnonzero(np.diff(later, prepend=-2) != 1)  # of each run within `later`
    first = later[begin] - 1
    last = later[np.append(begin[1:], len(later)) - 1] if len(later) else first
    size = ordered.shape[1]
    shared = table[first % size + last % size + 2]
    scores[order.ravel()[first]] = shared
    scores[order.ravel()[later]] = np.repeat(shared, last - first)


def _find_levels(block: NDArray) -> tuple[NDArray, NDArray | None]:
    """Distinct values of a block in ascending order, and each draw's index among them.

    The index is None where there are more than `MAX_LEVELS`, or infinite ones.
    """
    levels = np.unique(block.reshape(-1)[:: max(1, block.size // 1024)])
    while len(levels) <= MAX_LEVELS and np.isfinite(levels).all():
        codes = np.minimum(np.searchsorted(levels, block), len(levels) - 1)
        unseen = block[levels[codes] != block]
        if not len(unseen):
            return levels, codes
        levels = np.union1d(levels, unseen[:1024])
    return levels, None


def _counted_scores(levels: NDArray, codes: NDArray, fold: bool) -> Scores:
    num_levels, size = len(levels), codes[0].size
    counts_all = _count(codes, num_levels)
    split = split_chains(codes)
    num_split = split[0].size
    counts = counts_all if num_split == size else _count(split, num_levels)
    table = _score_table(num_split)

    def scores(values: NDArray) -> NDArray:
        return np.take_along_axis(table[_twice_level_rank(values, counts)][:, None], split, axis=2)

    median = _pick(levels, counts, num_split // 2 - 1, num_split // 2).mean(axis=0)
    folded = scores(np.abs(levels - median[:, None])) if fold else None
    quantiles = tail_quantiles(lambda k: _pick(levels, counts_all, k)[0].astype(float), size)
    return Scores(scores(np.broadcast_to(levels, counts.shape)), folded, quantiles)


def _count(codes: NDArray, num_levels: int) -> NDArray:
    """How often each level occurs in each scalar, (S, L)."""
    offset = num_levels * np.arange(len(codes)).reshape(-1, 1, 1)
    counts = np.bincount((codes + offset).ravel(), minlength=num_levels * len(codes))
    return counts.reshape(-1, num_levels)


def _pick(levels: NDArray, counts: NDArray, *ks: int) -> NDArray:
    """The k-th smallest draws (k from 0) of each scalar, (len(ks), S)."""
    below = counts.cumsum(axis=1)
    return np.stack([levels[(below <= k).sum(axis=1)] for k in ks])


def _twice_level_rank(values: NDArray, counts: NDArray) -> NDArray:
    """Twice the average rank of each level (S, L), where levels with equal values are tied."""
    below = ((values[:, None] < values[..., None]) * counts[:, None]).sum(axis=2)
    equal = ((values[:, None] == values[..., None]) * counts[:, None]).sum(axis=2)
    return 2 * below + equal + 1
