"""Effective sample size of many series at once: FFT autocovariance and Geyer's monotone sequence.

Geyer (1992), Practical Markov chain Monte Carlo, Statistical Science 7(4); Vehtari et al. (2021),
https://doi.org/10.1214/20-BA1221. Shapes: S series, C chains, N draws, K pairs of lags.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len

__all__ = ["effective_sample_size", "fast_effective_sample_size"]

# A pair of autocorrelations this near zero (unit: variance) is zero to rounding.
ROUNDING = 1e-10


def effective_sample_size(series: NDArray) -> NDArray:
    """Return the effective sample size of each series, (S,), as `arviz.ess` with method "identity".

    ess = C N / tau with tau = -1 + 2 sum_k P_k, P_k the sum of the autocorrelations at the lags
    2 k and 2 k + 1, cut at the first P_k that is not positive and made non-increasing.

    Args:
        series: draws, float64, (S, C, N) with N at least 2.

    Returns:
        C N for a constant series, NaN for one that holds an infinite value.

    Example:
        >>> import numpy as np
        >>> slow = np.repeat(np.random.default_rng(0).normal(size=(1, 2, 100)), 5, axis=2)
        >>> 100 < effective_sample_size(slow)[0] < 400
        np.True_
    """
    ess, doubtful = fast_effective_sample_size(series)
    if doubtful.any():
        series = series[doubtful]
        spectrum = _spectrum(series)
        covariance = _autocovariance(spectrum * np.conjugate(spectrum), series.shape[-1])
        # numpy adds a contiguous axis pairwise, as it does the single column in ArviZ
        chains_last = np.ascontiguousarray(np.moveaxis(covariance, 1, -1))
        ess[doubtful], _ = _geyer(chains_last.mean(axis=-1), series)
    return ess


def fast_effective_sample_size(series: NDArray) -> tuple[NDArray, NDArray]:
    """Return the effective sample sizes (S,) and which of them hang on rounding, bool (S,).

    The cut-off is a comparison with zero, and in tied data exact zeros happen: there the order of
    the sums decides. `effective_sample_size` repeats those few in ArviZ's own order.
    """
    spectrum = _spectrum(series)
    parts = spectrum.view(float)  # real and imaginary in turn
    squares = np.einsum("scf,scf->sf", parts, parts)
    power = (squares[:, ::2] + squares[:, 1::2]) / series.shape[1]
    return _geyer(_autocovariance(power, series.shape[-1]), series)


def _spectrum(series: NDArray) -> NDArray:
    """Fourier transform of each centred chain, padded against wrap-around."""
    centred = series - series.mean(axis=-1, keepdims=True)
    return np.fft.rfft(centred, n=next_fast_len(2 * series.shape[-1], real=True))


def _autocovariance(power: NDArray, num_draws: int) -> NDArray:
    padded = next_fast_len(2 * num_draws, real=True)
    return np.fft.irfft(power, n=padded)[..., :num_draws] / num_draws


def _geyer(covariance: NDArray, series: NDArray) -> tuple[NDArray, NDArray]:
    """Effective sample sizes from mean autocovariances (S, N), and whether rounding decided."""
    num_chains, num_draws = series.shape[1:]
    size = num_chains * num_draws
    within = covariance[:, :1] * num_draws / (num_draws - 1.0)
    total = within * (num_draws - 1.0) / num_draws
    if num_chains > 1:
        total = total + series.mean(axis=-1).var(axis=-1, ddof=1, keepdims=True)

    with np.errstate(invalid="ignore", divide="ignore"):
        last = max(0, -(-(num_draws - 4) // 2))  # the pair after which no lags are left
        rho = 1.0 - (within - covariance[:, : 2 * last + 2]) / total
        rho[:, 0] = 1.0
        tau, doubtful = _integrated_time(rho[:, ::2], rho[:, 1::2])
        spread = series.max(axis=(1, 2)) - series.min(axis=(1, 2))

    ess = size / np.maximum(tau, 1 / np.log10(size))
    constant = spread < np.finfo(float).resolution
    ess[constant] = size
    return ess, doubtful & ~constant


def _integrated_time(even: NDArray, odd: NDArray) -> tuple[NDArray, NDArray]:
    """Autocorrelation time from the autocorrelations at even and odd lags, each (S, K)."""
    pair = even + odd
    last = pair.shape[1] - 1
    positive = pair[:, :last] > 0
    stop = np.where(positive.all(axis=1), last, np.argmin(positive, axis=1) if last else 0)

    index = np.arange(last + 1)
    decreasing = np.minimum.accumulate(pair, axis=1)
    kept = np.where(index < stop[:, None], decreasing, 0.0).sum(axis=1)
    even_stop, pair_stop = (np.take_along_axis(a, stop[:, None], 1)[:, 0] for a in (even, pair))
    tau = -1.0 + 2.0 * kept + np.where((even_stop > 0) | (pair_stop >= 0), even_stop, 0.0)
    tau[np.isnan(pair[:, 0])] = np.nan

    near_zero = (np.abs(pair) < ROUNDING) & (index <= stop[:, None])
    return tau, near_zero.any(axis=1)
