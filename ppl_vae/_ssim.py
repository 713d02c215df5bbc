"""Structural similarity of images, and the kernel made of it."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import correlate1d
from scipy.stats import norm

__all__ = ["ssim", "ssim_kernel"]

REACH = 5  # pixels of the window on either side of its centre
WINDOW = norm.pdf(np.arange(-REACH, REACH + 1), scale=1.5)


def ssim(estimate: ArrayLike, truth: ArrayLike, *, data_range: float = 1.0) -> NDArray:
    """Return the structural similarity of two images, 1 where they are the same.

    With means m, variances v and covariance c of the pixels in a Gaussian window, and the range R,

        SSIM = (2 m_x m_y + (R / 100)^2) (2 c + (3 R / 100)^2)
               / [(m_x^2 + m_y^2 + (R / 100)^2) (v_x + v_y + (3 R / 100)^2)],

    averaged over all windows of 11 x 11 pixels within the image.

    Args:
        estimate: images, shape (..., H, W).
        truth: the true images, of a shape that fits.
        data_range: R, the difference of the highest and the lowest possible value.

    Returns:
        One number an image, shape (...), at most 1.

    Raises:
        ValueError: images of different or too small height and width, or R is not positive.

    Source: Wang et al. (2004), Image quality assessment, IEEE Trans. Image Processing, equation 13.

    Example:
        >>> image = np.eye(14)
        >>> ssim([image, 1 - image], image).round(2)
        array([ 1.  , -0.34])
    """
    x, y = np.asarray(estimate, float), np.asarray(truth, float)
    if x.shape[-2:] != y.shape[-2:] or min(x.ndim, y.ndim) < 2 or min(x.shape[-2:]) <= 2 * REACH:
        raise ValueError(
            f"Expected images (..., H, W) of one size, at least {2 * REACH + 1} pixels high and "
            f"wide, got {x.shape} and {y.shape}."
        )
    if not data_range > 0:
        raise ValueError(f"data_range must be positive, got {data_range}.")
    mean_x, mean_y = _local_mean(x), _local_mean(y)
    variances = _local_mean(x * x) - mean_x**2 + _local_mean(y * y) - mean_y**2
    covariance = _local_mean(x * y) - mean_x * mean_y
    small, larger = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    lightness = (2 * mean_x * mean_y + small) / (mean_x**2 + mean_y**2 + small)
    structure = (2 * covariance + larger) / (variances + larger)
    return (lightness * structure).mean((-2, -1))


def ssim_kernel(
    image_shape: Sequence[int], *, data_range: float = 1.0
) -> Callable[[NDArray, NDArray], NDArray]:
    """Return k(x, y) = exp SSIM(x, y) of flattened images, for `mmd(..., kernel=...)`.

    SSIM is that of `ssim`, averaged over channels. The kernel need not be positive definite.

    Args:
        image_shape: (H, W) or (channels, H, W).
        data_range: as for `ssim`.

    Source: Simkus and Gutmann (2023), reference code.

    Example:
        >>> images = np.random.default_rng(0).random((4, 14 * 14))
        >>> ssim_kernel((14, 14))(images, images[:2]).shape
        (4, 2)
    """
    shape = tuple(image_shape)

    def kernel(x: NDArray, y: NDArray) -> NDArray:
        images = y.reshape(-1, *shape)
        each = [ssim(row.reshape(shape), images, data_range=data_range) for row in x]
        return np.exp(np.reshape(each, (len(x), len(y), -1)).mean(-1))

    return kernel


def _local_mean(images: NDArray) -> NDArray:
    """Averages of the windows that lie within the image."""
    weights = WINDOW / WINDOW.sum()
    inside = slice(REACH, -REACH)
    return correlate1d(correlate1d(images, weights, -1), weights, -2)[..., inside, inside]
