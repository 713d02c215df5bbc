"""Distances between two samples of points, and scores of draws of whole rows.

Shapes: S draws, N and M points, D features.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh, eigvalsh
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist, pdist

from ppl_vae._sinkhorn import entropic_cost

__all__ = ["c2st", "energy_score", "frechet_distance", "sinkhorn", "two_samples", "wasserstein"]

MANY_POINTS = 2_000  # from which a tenth of them tells when a classifier has learned


def energy_score(draws: ArrayLike, truth: ArrayLike) -> NDArray:
    """Return E||X - x|| - E||X - X'|| / 2 of each row, unbiased; the CRPS of several features.

    Args:
        draws: shape (S, N, D), at least two draws.
        truth: the true rows, shape (N, D).

    Returns:
        Shape (N,), in the data's unit; 0 is best.

    Raises:
        ValueError: fewer than two draws, the shapes do not fit, or a value is NaN or infinite.

    Source: Gneiting and Raftery (2007), Strictly proper scoring rules, JASA, section 4.3.

    Example:
        >>> energy_score(np.array([[[0.0, 0.0]], [[2.0, 0.0]]]), [[1.0, 0.0]])
        array([0.])
    """
    draws, truth = np.asarray(draws, float), np.asarray(truth, float)
    if truth.ndim != 2 or draws.shape[1:] != truth.shape or len(draws) < 2:
        raise ValueError(
            f"Expected draws (S >= 2, N, D) and truth (N, D), got {draws.shape} and {truth.shape}."
        )
    _refuse_undefined("draws", draws)
    _refuse_undefined("truth", truth)
    to_truth = np.linalg.norm(draws - truth, axis=-1).mean(0)
    return to_truth - np.array([pdist(row).mean() for row in draws.swapaxes(0, 1)]) / 2


def wasserstein(x: ArrayLike, y: ArrayLike, p: int = 2) -> float:
    """Return the Wasserstein distance W_p of two samples of equal size, by exact assignment.

        (min over permutations s of 1/N sum_n ||x_n - y_s(n)||^p)^(1/p)

    Args:
        x: points, shape (N, D); the work grows as N^3.
        y: points, shape (N, D).
        p: order of the distance, 1 or 2.

    Raises:
        ValueError: shapes that do not fit, NaN or infinite values, samples of different size, or
            another order.

    Example:
        >>> wasserstein([[0.0], [1.0]], [[3.0], [2.0]])
        2.0
    """
    x, y = two_samples(x, y)
    if p not in (1, 2):
        raise ValueError(f"p, the order of the distance, must be 1 or 2, got {p!r}.")
    if len(x) != len(y):
        raise ValueError(f"Both samples must have one size, got {len(x)} and {len(y)} points.")
    cost = cdist(x, y) ** p
    return float(cost[linear_sum_assignment(cost)].mean() ** (1 / p))


def sinkhorn(x: ArrayLike, y: ArrayLike, blur: float = 0.05, tolerance: float = 1e-5) -> float:
    """Return the Sinkhorn divergence of two samples, a smoothed W_2^2 / 2 for large samples.

        OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2,  OT entropic with cost ||x - y||^2 / 2

    Args:
        x: points, shape (N, D).
        y: points, shape (M, D).
        blur: the scale below which points are not told apart, in the data's unit; the entropic
            regularisation is its square.
        tolerance: largest error of each of the three costs, over the first.

    Raises:
        ValueError: shapes that do not fit, NaN or infinite values, or `blur` is not positive.
        RuntimeError: the iterations did not converge.

    Source: Feydy et al. (2019), Interpolating between optimal transport and MMD using Sinkhorn
    divergences, equation 3.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 2))
        >>> round(sinkhorn(x, x + [3.0, 0.0]), 2)  # 3^2 / 2
        4.5
    """
    x, y = two_samples(x, y)
    if not blur > 0:
        raise ValueError(f"blur must be positive, got {blur}.")
    cross, of_x, of_y = (cdist(a, b, "sqeuclidean") / 2 for a, b in ((x, y), (x, x), (y, y)))
    value = entropic_cost(cross, blur**2, tolerance)
    selves = (entropic_cost(cost, blur**2, tolerance, beside=value) for cost in (of_x, of_y))
    return float(value - sum(selves) / 2)


def frechet_distance(
    x: ArrayLike, y: ArrayLike, embed: Callable[[NDArray], ArrayLike] | None = None
) -> float:
    """Return the Frechet distance of normal fits to two samples; the FID with an image embedding.

        ||m_x - m_y||^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2))

    Args:
        x: points, shape (N, ...), at least two.
        y: points, shape (M, ...), at least two.
        embed: function from points to features (N, D), such as a classifier's last layer or an
            encoder's mean; by default the points themselves.

    Raises:
        ValueError: shapes that do not fit.

    Source: Heusel et al. (2017), GANs trained by a two time-scale update rule, equation 6.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 2))
        >>> round(frechet_distance(x, x + 1.0), 6)
        2.0
    """
    if embed is not None:
        x, y = embed(np.asarray(x)), embed(np.asarray(y))
    x, y = two_samples(x, y, at_least=2)
    covariance_x, covariance_y = (np.atleast_2d(np.cov(points.T)) for points in (x, y))
    variances, axes = eigh(covariance_x)  # singular where there are fewer points than features
    root = axes * np.sqrt(np.maximum(variances, 0)) @ axes.T
    overlap = np.sqrt(np.maximum(eigvalsh(root @ covariance_y @ root), 0)).sum()
    return float(
        ((x.mean(0) - y.mean(0)) ** 2).sum()
        + np.trace(covariance_x)
        + np.trace(covariance_y)
        - 2 * overlap
    )


def c2st(
    x: ArrayLike, y: ArrayLike, classifier: Any = None, folds: int = 5, seed: int = 0
) -> float:
    """Return how often a classifier tells the samples apart, cross-validated: 0.5 is best, 1 worst.

    Args:
        x: points, shape (N, D).
        y: points, shape (M, D); the larger sample is cut to the size of the smaller.
        classifier: a scikit-learn classifier; by default a small neural net on scaled features.
        folds: of the cross-validation.
        seed: of the folds and of the default classifier.

    Raises:
        ValueError: shapes that do not fit.
        ImportError: scikit-learn is not installed.

    Source: Lopez-Paz and Oquab (2017), Revisiting classifier two-sample tests.
    """
    try:
        from sklearn.model_selection import StratifiedKFold, cross_val_score
        from sklearn.neural_network import MLPClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise ImportError("c2st needs scikit-learn: pip install 'ppl-vae[examples]'") from error
    x, y = two_samples(x, y, at_least=folds)
    size = min(len(x), len(y))
    points = np.concatenate([x[:size], y[:size]])
    labels = np.repeat([0, 1], size)
    if classifier is None:
        stops = size > MANY_POINTS  # of few points it would stop before it has learned
        net = MLPClassifier((32, 32), max_iter=300, early_stopping=stops, random_state=seed)
        classifier = make_pipeline(StandardScaler(), net)
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # the net stops after 300 rounds before it learns by heart
        warnings.filterwarnings("ignore", "Stochastic Optimizer: Maximum iterations")
        return float(cross_val_score(classifier, points, labels, cv=splits).mean())


def two_samples(x: ArrayLike, y: ArrayLike, at_least: int = 1) -> tuple[NDArray, NDArray]:
    """Return both as arrays (points, features), or say what is wrong with them."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    fits = x.ndim == y.ndim == 2 and x.shape[1] == y.shape[1]
    if not fits or min(len(x), len(y)) < at_least:
        raise ValueError(
            f"Expected two samples of shape (points >= {at_least}, features), got {x.shape} and "
            f"{y.shape}."
        )
    _refuse_undefined("x", x)
    _refuse_undefined("y", y)
    return x, y


def _refuse_undefined(name: str, values: NDArray) -> None:
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        index = tuple(bad[0].tolist())
        raise ValueError(
            f"{name} has {len(bad)} values that are NaN or infinite, the first {values[index]} at "
            f"{index}: leave such points out, or see where they come from."
        )
