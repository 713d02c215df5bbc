"""Scores of draws against the truth: per entry, of joint laws, and of class probabilities.

Shapes: S draws, N entries or points, D features, C classes.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp, rel_entr

from ppl_vae._mmd import mmd, mmd_linear
from ppl_vae._ssim import ssim, ssim_kernel
from ppl_vae._two_samples import c2st, energy_score, frechet_distance, sinkhorn, wasserstein

__all__ = [
    "accuracy",
    "c2st",
    "coverage",
    "crps",
    "energy_score",
    "f1",
    "frechet_distance",
    "jensen_shannon",
    "kl_divergence",
    "mae",
    "mmd",
    "mmd_linear",
    "nll",
    "rmse",
    "sinkhorn",
    "ssim",
    "ssim_kernel",
    "wasserstein",
]

# --- per entry ------------------------------------------------------------------------------


def rmse(estimate: ArrayLike, truth: ArrayLike, axis: int | None = None) -> NDArray:
    """Return the root of the mean squared error, in the data's unit.

    Args:
        estimate: one value an entry, such as the mean of its draws.
        truth: the true values, the same shape.
        axis: the axis to average over; all of them by default.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> rmse([0.0, 3.0], [0.0, 0.0]).round(3)
        np.float64(2.121)
    """
    estimate, truth = _same_shape(estimate, truth)
    return np.sqrt(np.mean((estimate - truth) ** 2, axis=axis))


def mae(estimate: ArrayLike, truth: ArrayLike, axis: int | None = None) -> NDArray:
    """Return the mean absolute error, in the data's unit; arguments as in `rmse`.

    The median of the draws minimises it.
    """
    estimate, truth = _same_shape(estimate, truth)
    return np.mean(np.abs(estimate - truth), axis=axis)


def f1(estimate: ArrayLike, truth: ArrayLike, axis: int | None = None) -> NDArray:
    """Return F1 = 2 TP / (2 TP + FP + FN) of binary values, NaN where neither has a one.

    Args:
        estimate: 0 or 1 an entry.
        truth: the true values, the same shape.
        axis: the axis to count over; all of them by default.

    Raises:
        ValueError: the shapes differ, or a value is neither 0 nor 1.

    Example:
        >>> f1([1, 1, 0], [1, 0, 0]).round(3)
        np.float64(0.667)
    """
    estimate, truth = _same_shape(estimate, truth)
    if not (np.isin(estimate, (0, 1)).all() and np.isin(truth, (0, 1)).all()):
        raise ValueError("f1 compares values that are 0 or 1; binarise them first.")
    both = (estimate * truth).sum(axis)
    with np.errstate(invalid="ignore"):
        return 2 * both / (estimate.sum(axis) + truth.sum(axis))


def accuracy(estimate: ArrayLike, truth: ArrayLike, axis: int | None = None) -> NDArray:
    """Return the share of entries that are the true ones, of binary or categorical values.

    Arguments as in `rmse`. NaN where a value is.

    Example:
        >>> accuracy([1, 1, 0, 2], [1, 0, 0, 2])
        np.float64(0.75)
    """
    estimate, truth = _same_shape(estimate, truth)
    unknown = np.isnan(estimate) | np.isnan(truth)
    right: NDArray = np.where(unknown, np.nan, estimate == truth)
    return np.mean(right, axis=axis)


def nll(log_prob: ArrayLike, axis: int = 0) -> NDArray:
    """Return the negative log predictive density, -log [1/S sum_s p(x | z_s)], in nats.

    Args:
        log_prob: log p(x | z_s) of the true value under each draw of the latents.
        axis: the axis of the S draws.

    Example:
        >>> nll(np.log([0.2, 0.6])).round(4)
        np.float64(0.9163)
    """
    log_prob = np.asarray(log_prob, float)
    return np.log(log_prob.shape[axis]) - logsumexp(log_prob, axis=axis)


def crps(draws: ArrayLike, truth: ArrayLike) -> NDArray:
    """Return the continuous ranked probability score E|X - x| - E|X - X'| / 2 of each entry.

    The estimate from draws is unbiased: X and X' are different draws.

    Args:
        draws: shape (S, ...), at least two.
        truth: the true values, shape (...).

    Returns:
        Shape (...), in the data's unit; 0 is best.

    Raises:
        ValueError: fewer than two draws, or the shapes do not fit.

    Source: Gneiting and Raftery (2007), Strictly proper scoring rules, JASA, section 4.2;
    Ferro (2014), Fair scores for ensemble forecasts.

    Example:
        >>> crps([[0.0], [2.0]], [1.0])
        array([0.])
    """
    draws, truth = _draws_of(draws, truth)
    num_draws = len(draws)
    rank = np.arange(1, num_draws + 1).reshape(-1, *(1,) * truth.ndim)
    # sum over i < j of (x_(j) - x_(i)) = sum_i (2 i - S - 1) x_(i)
    spread = ((2 * rank - num_draws - 1) * np.sort(draws, axis=0)).sum(0)
    return np.abs(draws - truth).mean(0) - spread / (num_draws * (num_draws - 1))


def coverage(draws: ArrayLike, truth: ArrayLike, level: float = 0.9) -> NDArray:
    """Return the share of true values in the central interval of their draws.

    Args:
        draws: shape (S, ...), at least two.
        truth: the true values, shape (...).
        level: the interval's probability, in (0, 1); the share that calibrated draws have.

    Returns:
        A share in [0, 1]; NaN if a draw or a true value is NaN.

    Raises:
        ValueError: fewer than two draws, shapes that do not fit, or `level` out of range.

    Example:
        >>> draws = np.linspace(0, 1, 101)[:, None] * np.ones(4)
        >>> coverage(draws, [0.02, 0.5, 0.9, 2.0])
        np.float64(0.5)
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}.")
    draws, truth = _draws_of(draws, truth)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    unknown = np.isnan(low) | np.isnan(high) | np.isnan(truth)
    inside = (low <= truth) & (truth <= high)
    share: NDArray = np.where(unknown, np.nan, inside)
    return np.mean(share)


# --- class probabilities and densities on a grid --------------------------------------------


def kl_divergence(p: ArrayLike, q: ArrayLike, axis: int = -1) -> NDArray:
    """Return KL(p || q) = sum_c p_c log(p_c / q_c) of discrete laws.

    Args:
        p: probabilities of the first law; scaled to sum to one along `axis`.
        q: probabilities of the second law, likewise.
        axis: the axis of the outcomes, in each law; the other axes broadcast.

    Returns:
        Nats, the broadcast shape of the other axes; inf where q misses an outcome that p has.

    Raises:
        ValueError: negative or not finite entries, nothing above zero, or laws of different numbers
            of outcomes.

    Example:
        >>> kl_divergence([1.0, 0.0], [0.5, 0.5]).round(4)
        np.float64(0.6931)
    """
    p, q = _two_laws(p, q, axis)
    return rel_entr(p, q).sum(-1)


def jensen_shannon(p: ArrayLike, q: ArrayLike, axis: int = -1) -> NDArray:
    """Return the Jensen-Shannon divergence of discrete laws, at most log 2 = 0.693 nats.

        JSD = KL(p || m) / 2 + KL(q || m) / 2,  m = (p + q) / 2

    Arguments and errors as in `kl_divergence`.

    Source: Lin (1991), Divergence measures based on the Shannon entropy.

    Example:
        >>> jensen_shannon([1.0, 0.0], [0.0, 1.0]).round(4)
        np.float64(0.6931)
    """
    p, q = _two_laws(p, q, axis)
    middle = (p + q) / 2
    return (rel_entr(p, middle).sum(-1) + rel_entr(q, middle).sum(-1)) / 2


# --- checks ---------------------------------------------------------------------------------


def _same_shape(estimate: ArrayLike, truth: ArrayLike) -> tuple[NDArray, NDArray]:
    estimate, truth = np.asarray(estimate, float), np.asarray(truth, float)
    if estimate.shape != truth.shape:
        raise ValueError(
            f"The estimate must have the truth's shape {truth.shape}, got {estimate.shape}."
        )
    return estimate, truth


def _draws_of(draws: ArrayLike, truth: ArrayLike) -> tuple[NDArray, NDArray]:
    draws, truth = np.asarray(draws, float), np.asarray(truth, float)
    if draws.shape[1:] != truth.shape or len(draws) < 2:
        raise ValueError(
            f"draws must have shape (S >= 2, *{truth.shape}), the truth's, got {draws.shape}."
        )
    return draws, truth


def _two_laws(p: ArrayLike, q: ArrayLike, axis: int) -> tuple[NDArray, NDArray]:
    """Return both laws with their outcomes last, so that the other axes broadcast."""
    first, second = _normalised(p, axis), _normalised(q, axis)
    if first.shape[-1] != second.shape[-1]:
        raise ValueError(
            f"Both laws must have the same outcomes along axis {axis}, got {first.shape[-1]} and "
            f"{second.shape[-1]}, of shapes {np.shape(p)} and {np.shape(q)}."
        )
    return first, second


def _normalised(p: ArrayLike, axis: int) -> NDArray:
    p = np.moveaxis(np.asarray(p, float), axis, -1)
    total = p.sum(-1, keepdims=True)
    if not (np.isfinite(p).all() and (p >= 0).all() and (total > 0).all()):
        raise ValueError("Probabilities must be finite, not negative, and not all zero.")
    return p / total
