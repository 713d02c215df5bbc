"""Where a decoder of black and white pixels starts.

Shapes: B rows, *event. NaN, or a mask that is False, marks a missing pixel.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit

__all__ = ["pixel_logits"]

SMALLEST_MEAN = 1e-3


def pixel_logits(x: ArrayLike, mask: ArrayLike | None = None) -> NDArray[np.float32]:
    """Return the logits of the pixels' means, at which a Bernoulli decoder starts best.

        log m / (1 - m),  m = the mean over rows, at least 0.001 and at most 0.999

    It is the `output_bias` of `VAE`, `HierarchicalVAE` and `ConditionalVAE`, as in the reference
    code of Burda et al. (2016), https://github.com/yburda/iwae. A pixel that no row observes gets
    the logit 0.

    Args:
        x: training images, grey or binary values in [0, 1], (B, *event).
        mask: bool, the shape of x, True = observed; by default what is not NaN.

    Raises:
        ValueError: no rows, a value outside [0, 1], or a mask of another shape.

    Example:
        >>> pixel_logits([[0.0, 1.0, 0.5], [0.0, 1.0, 0.5]]).round(2)
        array([-6.91,  6.91,  0.  ], dtype=float32)
    """
    x = _floats(x)
    observed = ~np.isnan(x) if mask is None else np.asarray(mask)
    if x.ndim < 2 or not len(x) or observed.shape != x.shape or observed.dtype != bool:
        raise ValueError(
            f"x must have shape (rows, *event) with at least one row, and the mask, of bools, the "
            f"same; got {x.shape} and a mask of shape {observed.shape} and type {observed.dtype}."
        )
    seen = np.where(observed, x, x.dtype.type(0))
    _require_grey(seen)
    counts, sums = observed.sum(0), seen.sum(0, dtype=float)
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), 0.5)
    return logit(np.clip(mean, SMALLEST_MEAN, 1 - SMALLEST_MEAN)).astype(np.float32)


def _floats(x: ArrayLike) -> NDArray[np.floating]:
    x = np.asarray(x)
    return x if np.issubdtype(x.dtype, np.floating) else x.astype(float)


def _require_grey(x: NDArray[np.floating]) -> None:
    wrong = np.argwhere(~((x >= 0) & (x <= 1)))
    if len(wrong):
        index = tuple(int(i) for i in wrong[0])
        raise ValueError(
            f"Grey values must lie in [0, 1], got {len(wrong)} outside, the first {x[index]} at "
            f"index {index}; divide by the white level first (255 for bytes)."
        )
