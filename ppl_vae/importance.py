"""Whether importance weights can be trusted: the tail of the largest, its shape and smoothing."""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, logsumexp, softmax
from scipy.stats import genpareto

__all__ = [
    "ess", "importance_weighted_bounds", "pareto_khat", "pareto_smooth", "perplexity",
    "self_normalised", "summarise_weights", "transformed",
]  # fmt: skip

MIN_TAIL = 5
MIN_GROUPS = 10
BLOCK_SIZE = 2**22  # numbers worked on at a time


def importance_weighted_bounds(
    log_weights: ArrayLike, num_particles: Sequence[int]
) -> tuple[NDArray, NDArray]:
    """Return the bounds L_k on log p(x) for several k from one pool of S weights.

        L_k = E log (1/k) sum_{i=1..k} w_i,  estimated over floor(S / k) groups of the pool

    The standard errors are those of the mean over groups; with fewer than ten groups by the delta
    method, sd(w) / (mean(w) sqrt(S)), which believes in the largest weight seen: look at k-hat.

    Args:
        log_weights: log p(x, z) - log q(z | x) of independent z ~ q, shape (S, ...), in nats.
        num_particles: the numbers k, each from 1 to S.

    Returns:
        The bounds and their standard errors, each (len(num_particles), ...).

    Raises:
        ValueError: if a number is out of range.

    Source: Burda, Grosse and Salakhutdinov (2016), eq. 8. https://arxiv.org/abs/1509.00519

    Example:
        >>> weights = np.array([1.0, 3.0, 1.0, 3.0])
        >>> bounds, errors = importance_weighted_bounds(np.log(weights), [1, 4])
        >>> bounds.round(3).tolist()  # mean of the logs, log of the mean
        [0.549, 0.693]
    """
    log_weights = np.asarray(log_weights, float)
    num_weights = len(log_weights)
    bounds, errors = [], []
    for k in num_particles:
        if not 1 <= k <= num_weights:
            raise ValueError(f"num_particles must lie in [1, {num_weights}], got {k}.")
        groups = num_weights // k
        each = log_weights[: groups * k].reshape(groups, k, *log_weights.shape[1:])
        each = logsumexp(each, axis=1) - np.log(k)
        bounds.append(each.mean(0))
        if groups >= MIN_GROUPS:
            errors.append(each.std(0, ddof=1) / groups**0.5)
        else:
            errors.append(_relative_error(log_weights) * (num_weights / (groups * k)) ** 0.5)
    return np.array(bounds), np.array(errors)


def ess(log_weights: ArrayLike) -> NDArray:
    """Return the effective number of weights (sum w)^2 / sum w^2 over the leading axis.

    Example:
        >>> ess(np.log([1.0, 1.0, 1.0, 1e-9])).round(3)
        np.float64(3.0)
    """
    log_weights = np.asarray(log_weights, float)
    return np.exp(2 * logsumexp(log_weights, axis=0) - logsumexp(2 * log_weights, axis=0))


def perplexity(log_weights: ArrayLike) -> NDArray:
    """Return exp(-sum v log v) of the normalised weights v over the leading axis, from 1 to S.

    Like `ess` it is S for S equal weights and 1 for a single one, but small weights count more.

    Example:
        >>> perplexity(np.log([1.0, 1.0, 2.0])).round(3)
        np.float64(2.828)
    """
    shares = softmax(np.asarray(log_weights, float), axis=0)
    return np.exp(entr(shares).sum(axis=0))


def pareto_khat(log_weights: ArrayLike, axis: int = -1) -> NDArray:
    """Return the Pareto shape k-hat of the upper tail of importance weights.

    Averages over the weights are reliable below 0.7 and not above: the variance of the weights,
    and with k-hat > 1 their mean, is then carried by few draws or has not been seen at all.

    The tail is the largest min(S / 5, 3 sqrt(S)) of S weights, above the next one; a generalised
    Pareto distribution is fitted to it as in ArviZ and in R's loo.

    Args:
        log_weights: unnormalised log-weights in nats; -inf is a weight of zero.
        axis: the axis of the S draws.

    Returns:
        The shape of `log_weights` without `axis`. Weights that are all equal have no tail: -inf.
        NaN where no weight is above zero, or one is NaN; inf where fewer than five lie in the tail.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance sampling,
    JMLR 25(72), with the fit of Zhang and Stephens (2009). https://arxiv.org/abs/1507.02646

    Example:
        >>> uniform = np.random.default_rng(0).uniform(size=(2, 1_000))
        >>> (pareto_khat(-0.2 * np.log(uniform)) < 0.7).all()  # w = u^-0.2 has k = 0.2
        np.True_
    """
    log_weights = np.moveaxis(np.asarray(log_weights, float), axis, -1)
    num_draws = log_weights.shape[-1]
    rows = log_weights.reshape(int(np.prod(log_weights.shape[:-1])), num_draws)
    khat = np.full(len(rows), np.nan)
    num_tail = int(np.ceil(min(num_draws / 5, 3 * num_draws**0.5)))
    for at in np.array_split(np.arange(len(rows)), 1 + rows.size // BLOCK_SIZE):
        khat[at] = _of_rows(rows[at], num_tail)
    return khat.reshape(log_weights.shape[:-1])


def summarise_weights(log_weights: ArrayLike, num_particles: Sequence[int]) -> xr.Dataset:
    """Return what S weights a row, (S, B), say of log p(x), and whether they can be trusted.

    Returns:
        `log_likelihood` and `standard_error` (num_particles, row), `ess` and `khat` (row).
    """
    bounds, errors = importance_weighted_bounds(log_weights, num_particles)
    of_each = ("num_particles", "row")
    return xr.Dataset(
        {
            "log_likelihood": (of_each, bounds),
            "standard_error": (of_each, errors),
            "ess": ("row", ess(log_weights)),
            "khat": ("row", pareto_khat(log_weights, axis=0)),
        },
        coords={"num_particles": list(num_particles)},
    )


def self_normalised(log_weights: ArrayLike, values: ArrayLike) -> tuple[NDArray, NDArray]:
    """Return mean and standard deviation of values under S weights a row.

        mean = sum_s w_s v_s / sum_s w_s,  sd^2 = sum_s w_s (v_s - mean)^2 / sum_s w_s

    Args:
        log_weights: unnormalised log-weights in nats, shape (S, B).
        values: shape (S, B, ...).

    Returns:
        Each (B, ...); NaN where a row has no weight above zero.

    Example:
        >>> mean, sd = self_normalised(np.log([[1.0], [3.0]]), [[0.0], [4.0]])
        >>> mean.round(6).tolist(), sd.round(3).tolist()
        ([3.0], [1.732])
    """
    log_weights, values = np.asarray(log_weights, float), np.asarray(values)
    with np.errstate(invalid="ignore"):
        share = np.exp(log_weights - logsumexp(log_weights, axis=0))
    mean = np.einsum("sb,sb...->b...", share, values)
    variance = np.einsum("sb,sb...->b...", share, (values - mean) ** 2)
    return mean, variance**0.5


def transformed(
    transform: Callable[[NDArray], NDArray] | None, log_weights: NDArray, axes: str
) -> NDArray:
    """Return a user's transform of log-weights, whose axes are named for the error.

    Raises:
        ValueError: if it returns another shape or NaN.
    """
    if transform is None:
        return log_weights
    result = np.asarray(transform(log_weights))
    if result.shape != log_weights.shape or np.isnan(result).any():
        raise ValueError(
            f"transform must return log-weights of shape {log_weights.shape} {axes} without NaN; "
            f"it returned shape {result.shape}."
        )
    return result


def pareto_smooth(log_weights: ArrayLike, axis: int = -1) -> NDArray:
    """Return importance weights with the largest replaced by a fitted Pareto tail (PSIS).

    The largest min(S / 5, 3 sqrt(S)) of S weights become the expected order statistics of the
    generalised Pareto distribution that `pareto_khat` fits, at most the largest weight itself.
    That takes variance for a little bias. Tails of fewer than five weights stay as they are.

    Args:
        log_weights: unnormalised log-weights in nats; -inf is a weight of zero.
        axis: the axis of the S draws.

    Returns:
        Unnormalised log-weights of the same shape.

    Source: as in `pareto_khat`.

    Example:
        >>> log_weights = -0.9 * np.log(np.random.default_rng(0).uniform(size=1_000))
        >>> (pareto_smooth(log_weights).max() <= log_weights.max()).item()
        True
    """
    log_weights = np.moveaxis(np.array(log_weights, float), axis, -1)
    num_draws = log_weights.shape[-1]
    num_tail = int(np.ceil(min(num_draws / 5, 3 * num_draws**0.5)))
    for at in np.ndindex(log_weights.shape[:-1]):
        log_weights[at] = _smoothed(log_weights[at], num_tail)
    return np.moveaxis(log_weights, -1, axis)


def _relative_error(log_weights: NDArray) -> NDArray:
    """Standard error of the mean weight over the mean weight; inf from a single weight."""
    if len(log_weights) < 2:
        return np.full(log_weights.shape[1:], np.inf)
    highest = log_weights.max(0)
    weights = np.exp(log_weights - np.where(np.isfinite(highest), highest, 0))
    with np.errstate(invalid="ignore"):
        return weights.std(0, ddof=1) / (weights.mean(0) * len(weights) ** 0.5)


def _smoothed(log_weights: NDArray, num_tail: int) -> NDArray:
    """One row of `pareto_smooth`."""
    highest = log_weights.max(initial=-np.inf)
    if num_tail < MIN_TAIL or not np.isfinite(highest):
        return log_weights
    weights = np.exp(log_weights - highest)
    cutoff = max(np.partition(weights, -num_tail - 1)[-num_tail - 1], np.finfo(float).tiny)
    tail = np.flatnonzero(weights > cutoff)
    if len(tail) < MIN_TAIL:
        return log_weights
    tail = tail[np.argsort(weights[tail], kind="stable")]
    (shape,), (scale,) = _fit_pareto(weights[None, tail] - cutoff)
    share = (np.arange(len(tail)) + 0.5) / len(tail)
    smoothed = np.log(cutoff + genpareto.ppf(share, shape, scale=scale))
    out = log_weights.copy()
    out[tail] = highest + np.minimum(smoothed, 0)
    return out


def _of_rows(log_weights: NDArray, num_tail: int) -> NDArray:
    """K-hat of each row, (rows, draws) to (rows,)."""
    highest = log_weights.max(1, initial=-np.inf, keepdims=True)
    usable = np.isfinite(highest)
    weights = np.exp(np.where(usable, log_weights - np.where(usable, highest, 0), -np.inf))
    khat = np.where(usable[:, 0], np.inf, np.nan)
    if log_weights.shape[1] > 1:  # one weight says nothing of the others
        khat[usable[:, 0] & (weights.min(1, initial=1) > 1 - 1e-6)] = -np.inf
    if num_tail < MIN_TAIL:
        return khat

    largest = np.sort(np.partition(weights, -num_tail - 1)[:, -num_tail - 1 :])
    excess = largest[:, 1:] - np.maximum(largest[:, :1], np.finfo(float).tiny)
    size = (excess > 0).sum(1)
    for n in np.unique(size[(size >= MIN_TAIL) & (khat == np.inf)]):  # ties shorten a tail
        at = np.flatnonzero((size == n) & (khat == np.inf))
        for part in np.array_split(at, 1 + len(at) * n * (30 + int(n**0.5)) // BLOCK_SIZE):
            khat[part], _ = _fit_pareto(excess[part, -n:])
    return khat


def _fit_pareto(excess: NDArray) -> tuple[NDArray, NDArray]:
    """Shape and scale of a generalised Pareto law for each ascending row, (rows, n) to (rows,).

    The posterior mean under Zhang and Stephens' empirical prior, drawn towards 0.5 by the weight
    of ten observations.
    """
    n = excess.shape[1]
    num_points = 30 + int(n**0.5)
    quantile = excess[:, int(n / 4 + 0.5) - 1, None]
    point = 1 - np.sqrt(num_points / (np.arange(1, num_points + 1) - 0.5))
    theta = point / (3 * quantile) + 1 / excess[:, -1:]  # (rows, points)
    tiny = np.finfo(float).eps / excess[:, -1:]
    theta = np.where(theta == 0, tiny, theta)  # as it can be among ties; the limit, not 0 / 0
    shape = np.log1p(-theta[..., None] * excess[:, None]).mean(-1)
    log_likelihood = n * (np.log(-theta / shape) - shape - 1)
    posterior = np.exp(log_likelihood - log_likelihood.max(1, keepdims=True))
    posterior /= posterior.sum(1, keepdims=True)
    posterior[posterior < 10 * np.finfo(float).eps] = 0
    theta = (posterior * theta).sum(1, keepdims=True) / posterior.sum(1, keepdims=True)
    raw = np.log1p(-theta * excess).mean(1)
    return (n * raw + 10 * 0.5) / (n + 10), -raw / theta[:, 0]
