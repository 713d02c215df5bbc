"""Maximum mean discrepancy of two samples, from all pairs of points or in linear time.

Shapes: N and M points, D features.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist, pdist

from ppl_vae._two_samples import two_samples

__all__ = ["mmd", "mmd_linear"]

Kernel = Callable[[NDArray, NDArray], NDArray]

KERNELS: dict[str, Callable[[NDArray, NDArray, float], NDArray]] = {
    "gaussian": lambda x, y, h: np.exp(-cdist(x, y, "sqeuclidean") / (2 * h**2)),
    "laplacian": lambda x, y, h: np.exp(-cdist(x, y) / h),
    "energy": lambda x, y, h: -cdist(x, y),
    "hamming": lambda x, y, h: np.exp(-cdist(x, y, "hamming") / h),
    "cubic": lambda x, y, h: (x @ y.T / x.shape[1] + 1) ** 3,
}


def mmd(
    x: ArrayLike, y: ArrayLike, kernel: str | Kernel = "gaussian", bandwidth: float | None = None
) -> float:
    """Return the squared maximum mean discrepancy of two samples, unbiased.

        E k(X, X') + E k(Y, Y') - 2 E k(X, Y)

    Args:
        x: points, shape (N, D), at least two.
        y: points, shape (M, D), at least two.
        kernel: "gaussian", "laplacian", "energy" (minus the distance), "hamming" (exponential, of
            the share of differing entries) or "cubic" ((x y / D + 1)^3, of image features the KID);
            or a function of points (N, D) and (M, D) that returns k of all pairs, (N, M), as
            `ssim_kernel` makes.
        bandwidth: of the first two and "hamming"; by default the median distance of all points.

    Raises:
        ValueError: shapes that do not fit, NaN or infinite values, an unknown kernel, or a
            bandwidth that is not positive.

    Source: Gretton et al. (2012), A kernel two-sample test, JMLR, equation 3.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x, y = rng.normal(size=(2, 200, 3))
        >>> bool(mmd(x, y) < 0.02 < mmd(x, y + 1))
        True
    """
    x, y = two_samples(x, y, at_least=2)
    k = _kernel(kernel, bandwidth, x, y)

    def mean_within(points: NDArray) -> float:
        gram = k(points, points)
        return (gram.sum() - np.trace(gram)) / (len(points) * (len(points) - 1))

    return float(mean_within(x) + mean_within(y) - 2 * k(x, y).mean())


def mmd_linear(
    x: ArrayLike, y: ArrayLike, kernel: str | Kernel = "gaussian", bandwidth: float | None = None
) -> float:
    """Return the squared maximum mean discrepancy from pairs of neighbours alone, unbiased.

        2/N sum_i [k(x_2i, x_2i+1) + k(y_2i, y_2i+1) - k(x_2i, y_2i+1) - k(x_2i+1, y_2i)]

    For samples too large for `mmd`: the work grows as N, the noise is higher.

    Args:
        x: points, shape (N, D), at least two, in random order: neighbours must be independent.
        y: points, shape (M, D), likewise; the larger sample is cut to the size of the smaller.
        kernel: as for `mmd`.
        bandwidth: as for `mmd`; by default the median distance of the first 500 points of each.

    Raises:
        ValueError: as `mmd`.

    Source: Gretton et al. (2012), A kernel two-sample test, JMLR, lemma 14.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x, y = rng.normal(size=(2, 2_000, 3))
        >>> bool(mmd_linear(x, y) < 0.05 < mmd_linear(x, y + 1))
        True
    """
    x, y = two_samples(x, y, at_least=2)
    k = _kernel(kernel, bandwidth, x[:500], y[:500])

    def of_pair(i: int) -> float:
        points = np.concatenate([x[i : i + 2], y[i : i + 2]])
        gram = k(points, points)
        return gram[0, 1] + gram[2, 3] - gram[0, 3] - gram[1, 2]

    return float(np.mean([of_pair(i) for i in range(0, min(len(x), len(y)) - 1, 2)]))


def _kernel(kernel: str | Kernel, bandwidth: float | None, x: NDArray, y: NDArray) -> Kernel:
    """A function of two sets of points; without a bandwidth it is the median distance of x, y."""
    if callable(kernel):
        return kernel
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be a function or one of {sorted(KERNELS)}, got {kernel!r}.")
    if bandwidth is None:
        metric = "hamming" if kernel == "hamming" else "euclidean"
        bandwidth = float(np.median(pdist(np.concatenate([x, y]), metric))) or 1.0
    if not bandwidth > 0:
        raise ValueError(f"bandwidth must be positive, got {bandwidth}.")
    k, width = KERNELS[kernel], bandwidth
    return lambda x, y: k(x, y, width)
