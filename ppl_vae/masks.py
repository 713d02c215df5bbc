"""Which entries are observed: patterns of missingness.

A mask is a bool array of the shape of the data, (rows, *event), **True where observed**. Patterns
for images treat the last two axes as height and width; axes before them (channels) share the mask.

The random patterns are MCAR, "missing completely at random", in the words of Rubin (1976),
Inference and missing data, Biometrika 63, https://doi.org/10.1093/biomet/63.3.581.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ppl_vae.incomplete_data import Mask, check_data, mask_from_nan, with_nan

__all__ = [
    "check_data",
    "half",
    "mask_from_nan",
    "mcar_bernoulli",
    "mcar_count",
    "mcar_fraction",
    "quadrant",
    "quadrants",
    "rectangle",
    "square",
    "with_nan",
]

Side = Literal["top", "bottom", "left", "right"]
Corner = Literal["top_left", "top_right", "bottom_left", "bottom_right"]
SIDES: tuple[Side, ...] = ("top", "bottom", "left", "right")
CORNERS: tuple[Corner, ...] = ("top_left", "top_right", "bottom_left", "bottom_right")


def mcar_fraction(rng: np.random.Generator, shape: Sequence[int], missing: float = 0.5) -> Mask:
    """Hide a fixed fraction of all entries, every set of that size being equally likely.

    Args:
        rng: source of randomness.
        shape: (rows, *event).
        missing: fraction of the entries to hide, in [0, 1]; the number is rounded to an integer.

    Raises:
        ValueError: `missing` is outside [0, 1], or the shape is not one of rows.

    Example:
        >>> int((~mcar_fraction(np.random.default_rng(0), (10, 7), missing=0.3)).sum())
        21
    """
    shape, missing = _checked_shape(shape), _checked_fraction(missing)
    size = int(np.prod(shape))
    observed = np.arange(size) >= round(missing * size)
    return rng.permutation(observed).reshape(shape)


def mcar_bernoulli(rng: np.random.Generator, shape: Sequence[int], missing: float = 0.5) -> Mask:
    """Hide each entry independently with the same probability.

    Args:
        rng: source of randomness.
        shape: (rows, *event).
        missing: probability that an entry is missing, in [0, 1].

    Raises:
        ValueError: `missing` is outside [0, 1], or the shape is not one of rows.

    Example:
        >>> mcar_bernoulli(np.random.default_rng(0), (2, 3), missing=0.0).all()
        np.True_
    """
    shape, missing = _checked_shape(shape), _checked_fraction(missing)
    return rng.random(shape) >= missing


def mcar_count(
    rng: np.random.Generator, shape: Sequence[int], num_missing: int | Sequence[int]
) -> Mask:
    """Hide a given number of entries in every row, every set of that size being equally likely.

    Args:
        rng: source of randomness.
        shape: (rows, *event).
        num_missing: entries to hide per row, one integer or one per row, (rows,).

    Raises:
        TypeError: `num_missing` is not of an integer type.
        ValueError: `num_missing` is negative or above the entries of a row, or has a wrong shape.

    Example:
        >>> (~mcar_count(np.random.default_rng(0), (3, 6), [0, 2, 6])).sum(axis=1)
        array([0, 2, 6])
    """
    shape = _checked_shape(shape)
    num_rows, num_entries = shape[0], int(np.prod(shape[1:]))
    count = np.asarray(num_missing)
    if not np.issubdtype(count.dtype, np.integer):
        raise TypeError(f"num_missing must be an integer, got {num_missing!r} ({count.dtype}).")
    if count.shape not in ((), (num_rows,)):
        raise ValueError(
            f"num_missing must be one integer or one per row, shape ({num_rows},), "
            f"got shape {count.shape}."
        )
    bad = count[(count < 0) | (count > num_entries)]
    if bad.size:
        raise ValueError(
            f"num_missing must lie between 0 and the {num_entries} entries of a row, got {bad[0]}."
        )
    ranks = rng.permuted(np.tile(np.arange(num_entries), (num_rows, 1)), axis=1)
    return (ranks >= count.reshape(-1, 1)).reshape(shape)


def half(shape: Sequence[int], side: Side = "top") -> Mask:
    """Hide one half of every image; of an odd number of lines the middle one is bottom or right.

    Args:
        shape: (rows, *channels, height, width).
        side: the half that is missing, "top", "bottom", "left" or "right".

    Raises:
        ValueError: unknown side, or a shape without height and width.

    Example:
        >>> half((1, 2, 2), side="top")[0]
        array([[False, False],
               [ True,  True]])
    """
    shape = _checked_image_shape(shape)
    top, left = _first_halves(shape)
    missing = {"top": top, "bottom": ~top, "left": left, "right": ~left}
    if side not in missing:
        raise ValueError(f"side must be one of {', '.join(SIDES)}, got {side!r}.")
    return np.broadcast_to(~missing[side], shape).copy()


def quadrant(shape: Sequence[int], corner: Corner | Sequence[Corner] = "top_left") -> Mask:
    """Hide the same quadrants of every image, cut where `half` cuts.

    Args:
        shape: (rows, *channels, height, width).
        corner: the missing ones of "top_left", "top_right", "bottom_left", "bottom_right".

    Raises:
        ValueError: unknown corner, or a shape without height and width.

    Example:
        >>> quadrant((1, 2, 2), ["top_left", "bottom_right"])[0]
        array([[False,  True],
               [ True, False]])
    """
    shape = _checked_image_shape(shape)
    wanted = [corner] if isinstance(corner, str) else list(corner)
    unknown = [name for name in wanted if name not in CORNERS]
    if unknown:
        raise ValueError(f"corner must be one of {', '.join(CORNERS)}, got {unknown[0]!r}.")
    missing = np.array([name in wanted for name in CORNERS])
    return np.broadcast_to(~missing[_quadrant_number(shape)], shape).copy()


def quadrants(rng: np.random.Generator, shape: Sequence[int], num_missing: int = 1) -> Mask:
    """Hide quadrants chosen at random for each image, cut where `half` cuts.

    Args:
        rng: source of randomness.
        shape: (rows, *channels, height, width).
        num_missing: quadrants to hide per image, 0 to 4.

    Raises:
        ValueError: `num_missing` is outside 0..4, or a shape without height and width.

    Example:
        >>> quadrants(np.random.default_rng(0), (5, 4, 4), num_missing=3).sum(axis=(1, 2))
        array([4, 4, 4, 4, 4])
    """
    shape = _checked_image_shape(shape)
    observed = mcar_count(rng, (shape[0], 4), num_missing)
    per_pixel = observed[:, _quadrant_number(shape)]
    return _over_channels(per_pixel, shape)


def square(rng: np.random.Generator, shape: Sequence[int], size: int) -> Mask:
    """Hide one square of each image, its place uniform among those that lie wholly inside.

    Args:
        rng: source of randomness.
        shape: (rows, *channels, height, width).
        size: side of the square in pixels.

    Raises:
        ValueError: `size` is below 1 or above the height or width.

    Example:
        >>> (~square(np.random.default_rng(0), (2, 1, 8, 8), size=3)).sum(axis=(1, 2, 3))
        array([9, 9])
    """
    return rectangle(rng, shape, height=size, width=size)


def rectangle(
    rng: np.random.Generator,
    shape: Sequence[int],
    *,
    height: int | tuple[int, int],
    width: int | tuple[int, int],
) -> Mask:
    """Hide one rectangle of each image, its place uniform among those that lie wholly inside.

    Args:
        rng: source of randomness.
        shape: (rows, *channels, height, width).
        height: pixels, or (least, most): then uniform between both, included, for each row.
        width: likewise.

    Raises:
        TypeError: a size is not an integer.
        ValueError: a size is below 1 or above that of the image, or least is above most.

    Example:
        >>> mask = rectangle(np.random.default_rng(0), (99, 8, 8), height=2, width=(1, 4))
        >>> sorted({int(n) for n in (~mask).sum(axis=(1, 2))})
        [2, 4, 6, 8]
    """
    shape = _checked_image_shape(shape)
    inside_height = _random_interval(rng, shape[0], shape[-2], "height", height)
    inside_width = _random_interval(rng, shape[0], shape[-1], "width", width)
    return _over_channels(~(inside_height[:, :, None] & inside_width[:, None, :]), shape)


def _checked_fraction(missing: float) -> float:
    if not 0 <= missing <= 1:
        raise ValueError(f"missing is a fraction and must lie in [0, 1], got {missing}.")
    return float(missing)


def _checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    shape = tuple(int(n) for n in shape)
    if not shape or min(shape) < 1:
        raise ValueError(f"shape must be (rows, *event) with positive sizes, got {shape}.")
    return shape


def _checked_image_shape(shape: Sequence[int]) -> tuple[int, ...]:
    shape = _checked_shape(shape)
    if len(shape) < 3:
        raise ValueError(
            f"shape must be (rows, *channels, height, width), got {shape}. "
            "For flat images make the mask with height and width, then reshape it."
        )
    return shape


def _first_halves(shape: tuple[int, ...]) -> tuple[Mask, Mask]:
    """Return the top and the left half, (height, 1) and (1, width)."""
    height, width = shape[-2:]
    return (np.arange(height) < height // 2)[:, None], (np.arange(width) < width // 2)[None, :]


def _quadrant_number(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return for each pixel the position of its quadrant in CORNERS, (height, width)."""
    top, left = _first_halves(shape)
    return 2 * ~top + 1 * ~left


def _over_channels(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """Repeat (rows, height, width) over the axes between rows and height."""
    between = (1,) * (len(shape) - 3)
    return np.broadcast_to(mask.reshape(shape[0], *between, *shape[-2:]), shape).copy()


def _random_interval(
    rng: np.random.Generator,
    num_rows: int,
    length: int,
    name: str,
    size: int | tuple[int, int],
) -> Mask:
    """Return for each row which of `length` lines lie in an interval of random place."""
    low, high = size if isinstance(size, tuple) else (size, size)
    if not all(isinstance(n, int | np.integer) for n in (low, high)):
        raise TypeError(f"{name} must be an integer number of pixels, got {size!r}.")
    if not 1 <= low <= high <= length:
        raise ValueError(
            f"{name} must lie between 1 and the image's {length} pixels "
            f"(a pair: least first), got {size}."
        )
    sizes = rng.integers(low, high, size=num_rows, endpoint=True)
    starts = rng.integers(0, length - sizes, endpoint=True)
    line = np.arange(length)
    return (line >= starts[:, None]) & (line < (starts + sizes)[:, None])
