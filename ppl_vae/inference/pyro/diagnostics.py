"""Convergence diagnostics of draws that live on a torch device, without copying them out.

The functions of `ppl_vae.diagnostics`, in the precision of the draws; source: Vehtari et al.
(2021), https://doi.org/10.1214/20-BA1221. Shapes: S scalars, C chains, N draws, H = N // 2,
M = 2 C H, K pairs of lags.

Two departures from ArviZ 0.x, where its result is decided by rounding: a tail quantile that falls
on a draw or on a tie includes it, as in ArviZ 1.x, and an autocorrelation that is zero to rounding
(about one in 10,000 scalars of two-valued data) may end the sum a pair of lags earlier or later.
"""

from collections.abc import Callable
from math import log10, prod

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from ppl_vae.diagnostics import Convergence

__all__ = ["Convergence", "convergence", "ess_bulk", "ess_tail", "mcse_mean", "rhat"]

# Draws worked on at a time; some ten temporaries of this size are alive at once.
BLOCK_SIZE = 2**22
MIN_DRAWS = 4
TAIL_PERCENTS = (5, 95)


def convergence(x: Tensor, *, chunk: int | None = None) -> Convergence:
    """Compute R-hat, bulk and tail ESS and the MCSE of the mean of every scalar.

    Args:
        x: draws, (chain, draw, *scalars); at least 4 draws, or all results are NaN.
        chunk: scalars worked on at a time; by default about 4 million draws.

    Returns:
        Four tensors of shape `scalars` on the device of `x`. A scalar with a NaN among its draws
        gets NaN, one chain has no R-hat, a constant has no R-hat but the full sample size.

    Raises:
        TypeError: the draws are not real numbers.
        ValueError: `x` has no (chain, draw) axes, or `chunk` is below 1.

    Example:
        >>> draws = torch.randn(4, 500, 3, generator=torch.Generator().manual_seed(0))
        >>> bool((convergence(draws).rhat < 1.02).all())
        True
    """
    return Convergence(*_map(_all_of, x, chunk))


def rhat(x: Tensor) -> Tensor:
    """Compute the rank-normalised split R-hat of draws (chain, draw, *scalars).

    Example:
        >>> draws = torch.randn(4, 500, generator=torch.Generator().manual_seed(0))
        >>> bool(rhat(draws + torch.eye(4, 500)) < 1.02)
        True
    """
    return _map(lambda draws: (_rhat(draws),), x)[0]


def ess_bulk(x: Tensor) -> Tensor:
    """Compute the bulk effective sample size of draws (chain, draw, *scalars).

    Example:
        >>> float(ess_bulk(torch.ones(4, 500)))
        2000.0
    """
    return _map(lambda draws: (_ess(_normal_scores(_split(draws))),), x)[0]


def ess_tail(x: Tensor) -> Tensor:
    """Compute the tail effective sample size of draws (chain, draw, *scalars).

    Example:
        >>> ess_tail(torch.randn(4, 500, 2, 3)).shape
        torch.Size([2, 3])
    """
    return _map(lambda draws: (_ess_tail(draws),), x)[0]


def mcse_mean(x: Tensor) -> Tensor:
    """Compute the Monte-Carlo standard error of the mean of draws (chain, draw, *scalars).

    Example:
        >>> float(mcse_mean(torch.ones(4, 500)))
        0.0
    """
    return _map(lambda draws: (_mcse_mean(draws),), x)[0]


@torch.no_grad()
def _map(
    many: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor, chunk: int | None = None
) -> list[Tensor]:
    """Apply `many` to the draws (S, C, N) of `chunk` scalars at a time."""
    x = torch.as_tensor(x)
    if x.is_complex():
        raise TypeError(f"Draws must be real numbers, got dtype {x.dtype}.")
    if x.ndim < 2:
        raise ValueError(
            f"Draws must have shape (chain, draw, ...), got {tuple(x.shape)}; "
            "for a single chain pass x[None]."
        )
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1 scalar, got {chunk}.")
    num_chains, num_draws, *scalars = x.shape
    dtype = torch.promote_types(x.dtype, torch.float32)
    rows = x.reshape(num_chains, num_draws, prod(scalars)).movedim(-1, 0)
    step = chunk or max(1, BLOCK_SIZE // max(1, num_chains * num_draws))
    parts = [_or_nan(many, part.to(dtype).contiguous()) for part in rows.split(step)]
    return [torch.cat(values).reshape(scalars) for values in zip(*parts, strict=True)]


def _or_nan(many: Callable[[Tensor], tuple[Tensor, ...]], draws: Tensor) -> tuple[Tensor, ...]:
    if not draws.numel() or draws.shape[2] < MIN_DRAWS:
        shapes = many(draws.new_zeros(1, 1, MIN_DRAWS))
        return tuple(draws.new_full((len(draws),), torch.nan) for _ in shapes)
    invalid = draws.isnan().any(-1).any(-1)
    return tuple(value.masked_fill(invalid, torch.nan) for value in many(draws))


def _all_of(draws: Tensor) -> tuple[Tensor, ...]:
    scores = _normal_scores(_split(draws))
    return _rhat(draws), _ess(scores), _ess_tail(draws), _mcse_mean(draws)


def _split(draws: Tensor) -> Tensor:
    """Cut each chain in halves, (S, C, N) to (S, 2C, H), without the middle draw of an odd N."""
    half = draws.shape[2] // 2
    return torch.cat([draws[..., :half], draws[..., -half:]], 1)


def _normal_scores(draws: Tensor) -> Tensor:
    """Normal scores of the pooled average ranks r, by Blom's (r - 3/8) / (M + 1/4)."""
    ordered, order = draws.flatten(1).sort()
    size = ordered.shape[1]
    position = torch.arange(size, device=draws.device)
    new = ordered[:, 1:] != ordered[:, :-1]
    edge = new.new_ones(len(new), 1)
    first = torch.where(torch.cat([edge, new], 1), position, 0).cummax(1).values
    last = torch.where(torch.cat([new, edge], 1), position, size - 1)
    last = last.flip(1).cummin(1).values.flip(1)
    # ndtri is exact in the lower tail only; the upper one follows by symmetry.
    twice_rank = first + last + 2
    lower = torch.minimum(twice_rank, 2 * size + 2 - twice_rank) / 2
    score = torch.special.ndtri((lower - 3 / 8).to(draws.dtype) / (size + 1 / 4))
    score = torch.where(twice_rank > size + 1, -score, score)
    return torch.empty_like(ordered).scatter_(1, order, score).reshape(draws.shape)


def _rhat(draws: Tensor) -> Tensor:
    if draws.shape[1] < 2:
        return draws.new_full((len(draws),), torch.nan)
    split = _split(draws)
    size = split[0].numel()
    middle = split.flatten(1).sort().values[:, size // 2 - 1 : size // 2 + 1]
    distance = (split - middle.sum(1)[:, None, None] / 2).abs()
    bulk = _potential_scale(_normal_scores(split))
    folded = _potential_scale(_normal_scores(distance))
    folded = folded.masked_fill(distance.isnan().any(-1).any(-1), torch.nan)
    return torch.where(folded > bulk, folded, bulk)


def _potential_scale(scores: Tensor) -> Tensor:
    """R-hat of split chains (S, 2C, H): total over within-chain standard deviation."""
    num_draws = scores.shape[2]
    between = num_draws * scores.mean(2).var(1)
    within = scores.var(2).mean(1)
    return ((between / within + num_draws - 1) / num_draws).sqrt()


def _ess_tail(draws: Tensor) -> Tensor:
    ordered = draws.flatten(1).sort().values.T
    limits = [_tail_limit(ordered, percent) for percent in TAIL_PERCENTS]
    low, high = (_ess(_split(draws <= limit[:, None, None]).to(draws.dtype)) for limit in limits)
    return torch.where(high < low, high, low)


def _tail_limit(ordered: Tensor, percent: int) -> Tensor:
    """The largest draw not above a quantile (type 7): the order statistic at or just below it."""
    k, weight = divmod((len(ordered) - 1) * percent, 100)
    if not weight:
        return ordered[k]
    return torch.where(ordered[k + 1].isinf(), ordered[k + 1], ordered[k])


def _mcse_mean(draws: Tensor) -> Tensor:
    centred = draws - draws[:, :1, :1]
    return centred.flatten(1).std(1) / _ess(_split(draws)).sqrt()


def _ess(series: Tensor) -> Tensor:
    """Effective sample size C N / tau of each series (S, C, N), constant ones keeping C N."""
    num_chains, num_draws = series.shape[1:]
    size = num_chains * num_draws
    series = series - series[:, :1, :1]  # a large common offset would cost digits below
    covariance = _autocovariance(series)
    within = covariance[:, :1] * num_draws / (num_draws - 1)
    total = covariance[:, :1]
    if num_chains > 1:
        total = total + series.mean(2).var(1, keepdim=True)
    last = max(0, -(-(num_draws - 4) // 2))  # the pair after which no lags are left
    rho = 1 - (within - covariance[:, : 2 * last + 2]) / total
    rho[:, 0] = 1.0
    ess = size / _integrated_time(rho[:, ::2], rho[:, 1::2]).clamp_min(1 / log10(size))
    spread = series.amax((1, 2)) - series.amin((1, 2))
    return torch.where(spread < np.finfo(float).resolution, size, ess)


def _autocovariance(series: Tensor) -> Tensor:
    """Mean over the chains of the autocovariance at each lag, (S, C, N) to (S, N)."""
    num_draws = series.shape[2]
    padded = next_fast_len(2 * num_draws, real=True)
    spectrum = torch.fft.rfft(series - series.mean(2, keepdim=True), padded)
    power = (spectrum.real.square() + spectrum.imag.square()).mean(1)
    return torch.fft.irfft(power, padded)[:, :num_draws] / num_draws


def _integrated_time(even: Tensor, odd: Tensor) -> Tensor:
    """Geyer's monotone sum over pairs of autocorrelations at even and odd lags, each (S, K)."""
    pair = even + odd
    index = torch.arange(pair.shape[1], device=pair.device)
    ends = (pair <= 0) | pair.isnan() | (index == pair.shape[1] - 1)
    stop = ends.int().argmax(1, keepdim=True)
    kept = torch.where(index < stop, pair.cummin(1).values, 0).sum(1)
    even_stop, pair_stop = even.gather(1, stop)[:, 0], pair.gather(1, stop)[:, 0]
    end = torch.where((even_stop > 0) | (pair_stop >= 0), even_stop, 0)
    return (-1 + 2 * kept + end).masked_fill(pair[:, 0].isnan(), torch.nan)
