"""Convergence diagnostics of draws that live on a JAX device, without copying them out.

The functions of `ppl_vae.diagnostics`, in the precision of the draws; source: Vehtari et al.
(2021), https://doi.org/10.1214/20-BA1221. Shapes: C chains, N draws, H = N // 2, M = 2 C H,
K pairs of lags. The equations are written for one scalar (C, N) and mapped over all of them.

Two departures from ArviZ 0.x, where its result is decided by rounding: a tail quantile that falls
on a draw or on a tie includes it, as in ArviZ 1.x, and an autocorrelation that is zero to rounding
(about one in 10,000 scalars of two-valued data) may end the sum a pair of lags earlier or later.
"""

from collections.abc import Callable
from functools import partial
from math import log10, prod
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import ndtri
from scipy.fft import next_fast_len

from ppl_vae.diagnostics import Convergence

__all__ = ["Convergence", "convergence", "ess_bulk", "ess_tail", "mcse_mean", "rhat"]

T = TypeVar("T")

# Draws worked on at a time; some ten temporaries of this size are alive at once.
BLOCK_SIZE = 2**24
MIN_DRAWS = 4
TAIL_PERCENTS = (5, 95)


@partial(jax.jit, static_argnames="chunk")
def convergence(x: Array, *, chunk: int | None = None) -> Convergence:
    """Compute R-hat, bulk and tail ESS and the MCSE of the mean of every scalar.

    Args:
        x: draws, (chain, draw, *scalars); at least 4 draws, or all results are NaN.
        chunk: scalars worked on at a time; by default about 16 million draws.

    Returns:
        Four arrays of shape `scalars` on the device of `x`. A scalar with a NaN among its draws
        gets NaN, one chain has no R-hat, a constant has no R-hat but the full sample size.

    Raises:
        TypeError: the draws are not real numbers.
        ValueError: `x` has no (chain, draw) axes, or `chunk` is below 1.

    Example:
        >>> draws = jax.random.normal(jax.random.key(0), (4, 500, 3))
        >>> bool((convergence(draws).rhat < 1.02).all())
        True
    """
    return _map(_all_of_one, x, chunk)


@jax.jit
def rhat(x: Array) -> Array:
    """Compute the rank-normalised split R-hat of draws (chain, draw, *scalars).

    Example:
        >>> bool(rhat(jax.random.normal(jax.random.key(0), (4, 500)) + jnp.eye(4, 500)) < 1.02)
        True
    """
    return _map(_rhat, x)


@jax.jit
def ess_bulk(x: Array) -> Array:
    """Compute the bulk effective sample size of draws (chain, draw, *scalars).

    Example:
        >>> float(ess_bulk(jnp.ones((4, 500))))
        2000.0
    """
    return _map(lambda draws: _ess(_normal_scores(_split(draws))), x)


@jax.jit
def ess_tail(x: Array) -> Array:
    """Compute the tail effective sample size of draws (chain, draw, *scalars).

    Example:
        >>> ess_tail(jax.random.normal(jax.random.key(0), (4, 500, 2, 3))).shape
        (2, 3)
    """
    return _map(_ess_tail, x)


@jax.jit
def mcse_mean(x: Array) -> Array:
    """Compute the Monte-Carlo standard error of the mean of draws (chain, draw, *scalars).

    Example:
        >>> float(mcse_mean(jnp.ones((4, 500))))
        0.0
    """
    return _map(_mcse_mean, x)


def _map(one: Callable[[Array], T], x: Array, chunk: int | None = None) -> T:
    """Apply `one` to the draws (C, N) of every scalar, `chunk` scalars at a time."""
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(f"Draws must be real numbers, got dtype {x.dtype}.")
    if x.ndim < 2:
        raise ValueError(
            f"Draws must have shape (chain, draw, ...), got {x.shape}; "
            "for a single chain pass x[None]."
        )
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1 scalar, got {chunk}.")
    num_chains, num_draws, *scalars = x.shape
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    rows = jnp.moveaxis(x.reshape(num_chains, num_draws, prod(scalars)), -1, 0)
    step = chunk or max(1, BLOCK_SIZE // max(1, num_chains * num_draws))
    result = _vmap_in_steps(lambda draws: _or_nan(one, draws), rows, step)
    return jax.tree.map(lambda values: values.reshape(scalars), result)


def _vmap_in_steps(one: Callable[[Array], T], rows: Array, step: int) -> T:
    return jax.vmap(one)(rows) if len(rows) <= step else lax.map(one, rows, batch_size=step)


def _or_nan(one: Callable[[Array], T], draws: Array) -> T:
    num_chains, num_draws = draws.shape
    if num_chains < 1 or num_draws < MIN_DRAWS:
        shapes = jax.eval_shape(one, jnp.zeros((1, MIN_DRAWS), draws.dtype))
        return jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), shapes)
    invalid = jnp.isnan(draws).any()
    return jax.tree.map(lambda value: jnp.where(invalid, jnp.nan, value), one(draws))


def _all_of_one(draws: Array) -> Convergence:
    scores = _normal_scores(_split(draws))
    return Convergence(_rhat(draws), _ess(scores), _ess_tail(draws), _mcse_mean(draws))


def _split(draws: Array) -> Array:
    """Cut each chain in halves, (C, N) to (2C, H), without the middle draw of an odd N."""
    half = draws.shape[1] // 2
    return jnp.concatenate([draws[:, :half], draws[:, -half:]])


def _normal_scores(draws: Array) -> Array:
    """Normal scores of the pooled average ranks r, by Blom's (r - 3/8) / (M + 1/4)."""
    size = draws.size
    position = jnp.arange(size)
    ordered, order = lax.sort((draws.ravel(), position), num_keys=1)
    new = ordered[1:] != ordered[:-1]
    first = lax.cummax(jnp.where(jnp.append(True, new), position, 0))
    last = lax.cummin(jnp.where(jnp.append(new, True), position, size - 1), reverse=True)
    # ndtri is exact in the lower tail only; the upper one follows by symmetry.
    twice_rank = first + last + 2
    lower = jnp.minimum(twice_rank, 2 * size + 2 - twice_rank) / 2
    score = ndtri((lower - 3 / 8).astype(draws.dtype) / (size + 1 / 4))
    score = jnp.where(twice_rank > size + 1, -score, score)
    return (
        jnp.zeros(size, draws.dtype).at[order].set(score, unique_indices=True).reshape(draws.shape)
    )


def _rhat(draws: Array) -> Array:
    if draws.shape[0] < 2:
        return jnp.full((), jnp.nan, draws.dtype)
    split = _split(draws)
    middle = jnp.sort(split.ravel())[split.size // 2 - 1 : split.size // 2 + 1]
    distance = jnp.abs(split - middle.sum() / 2)
    bulk = _potential_scale(_normal_scores(split))
    folded = _potential_scale(_normal_scores(distance))
    folded = jnp.where(jnp.isnan(distance).any(), jnp.nan, folded)
    return jnp.where(folded > bulk, folded, bulk)


def _potential_scale(scores: Array) -> Array:
    """R-hat of split chains (2C, H): total over within-chain standard deviation."""
    num_draws = scores.shape[1]
    between = num_draws * scores.mean(axis=1).var(ddof=1)
    within = scores.var(axis=1, ddof=1).mean()
    return jnp.sqrt((between / within + num_draws - 1) / num_draws)


def _ess_tail(draws: Array) -> Array:
    ordered = jnp.sort(draws.ravel())
    limits = [_tail_limit(ordered, percent) for percent in TAIL_PERCENTS]
    low, high = (_ess(_split(draws <= limit).astype(draws.dtype)) for limit in limits)
    return jnp.where(high < low, high, low)


def _tail_limit(ordered: Array, percent: int) -> Array:
    """The largest draw not above a quantile (type 7): the order statistic at or just below it."""
    k, weight = divmod((len(ordered) - 1) * percent, 100)
    if not weight:
        return ordered[k]
    return jnp.where(jnp.isinf(ordered[k + 1]), ordered[k + 1], ordered[k])


def _mcse_mean(draws: Array) -> Array:
    centred = draws - draws[0, 0]
    return centred.std(ddof=1) / jnp.sqrt(_ess(_split(draws)))


def _ess(series: Array) -> Array:
    """Effective sample size C N / tau of one series (C, N), constant ones keeping C N."""
    num_chains, num_draws = series.shape
    size = num_chains * num_draws
    series = series - series[0, 0]  # a large common offset would cost digits below
    covariance = _autocovariance(series)
    within = covariance[0] * num_draws / (num_draws - 1)
    total = covariance[0]
    if num_chains > 1:
        total = total + series.mean(axis=1).var(ddof=1)
    last = max(0, -(-(num_draws - 4) // 2))  # the pair after which no lags are left
    rho = (1 - (within - covariance[: 2 * last + 2]) / total).at[0].set(1.0)
    ess = size / jnp.maximum(_integrated_time(rho[::2], rho[1::2]), 1 / log10(size))
    constant = series.max() - series.min() < np.finfo(float).resolution
    return jnp.where(constant, size, ess).astype(series.dtype)


def _autocovariance(series: Array) -> Array:
    """Mean over the chains of the autocovariance at each lag, (C, N) to (N,)."""
    num_draws = series.shape[1]
    padded = next_fast_len(2 * num_draws, real=True)
    spectrum = jnp.fft.rfft(series - series.mean(axis=1, keepdims=True), padded)
    power = (jnp.square(spectrum.real) + jnp.square(spectrum.imag)).mean(axis=0)
    return jnp.fft.irfft(power, padded)[:num_draws] / num_draws


def _integrated_time(even: Array, odd: Array) -> Array:
    """Geyer's monotone sum over pairs of autocorrelations at even and odd lags, each (K,)."""
    pair = even + odd
    index = jnp.arange(len(pair))
    stop = jnp.argmax((pair <= 0) | jnp.isnan(pair) | (index == len(pair) - 1))
    kept = jnp.where(index < stop, lax.cummin(pair), 0).sum()
    end = jnp.where((even[stop] > 0) | (pair[stop] >= 0), even[stop], 0)
    return jnp.where(jnp.isnan(pair[0]), jnp.nan, -1 + 2 * kept + end)
