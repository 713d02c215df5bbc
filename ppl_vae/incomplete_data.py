"""Incomplete data at the library's edge: NaN and mask, and the gate that all data passes.

A mask is a bool array of the shape of the data, (rows, *event), **True where observed**. Behind the
gate data never holds NaN: missing entries are 0 and only the mask tells them from observed ones.
"""

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "check_data", "is_column", "mask_from_nan", "refuse_narrow", "refuse_outside",
    "take_data_site", "with_nan",
]  # fmt: skip

Mask = NDArray[np.bool_]


def mask_from_nan(x: ArrayLike) -> Mask:
    """Return the mask of data that holds NaN where it is missing.

    Args:
        x: floats, (rows, *event).

    Raises:
        TypeError: `x` is not of a float type, so it cannot hold NaN, or is a masked array.

    Example:
        >>> mask_from_nan([[1.0, np.nan]])
        array([[ True, False]])
    """
    _refuse_masked_array(x)
    x = np.asarray(x)
    _require_float(x)
    return ~np.isnan(x)


def with_nan(x: ArrayLike, mask: ArrayLike) -> NDArray[np.floating[Any]]:
    """Return a copy of the data with NaN where the mask is False.

    Args:
        x: floats, (rows, *event).
        mask: bool, of the shape of `x`, True = observed.

    Raises:
        TypeError: `x` is not of a float type or a masked array, or `mask` is not bool.
        ValueError: the shapes differ.

    Example:
        >>> with_nan([[1.0, 2.0]], [[True, False]])
        array([[ 1., nan]])
    """
    _refuse_masked_array(x)
    x = np.array(x)
    _require_float(x)
    x[~_checked_mask(mask, x.shape)] = np.nan
    return x


def check_data(
    x: ArrayLike, mask: ArrayLike | None = None, *, site: str = "x"
) -> tuple[NDArray[Any], Mask]:
    """Check incomplete data and return it without NaN, with its mask: the gate of every sampler.

    Args:
        x: numbers, (rows, *event); without a mask, NaN where missing.
        mask: bool, of the shape of `x`, True = observed; None means `~isnan(x)`.
        site: name of the data in error messages.

    Returns:
        A copy of `x`, of its type, bit-identical where observed and 0 where missing; and the mask.

    Raises:
        TypeError: `x` is not numeric or a masked array, is integer without a mask, or `mask` is
            not bool.
        ValueError: no rows or no entries, a mask of another shape, or an observed entry that is
            NaN or infinite.

    Example:
        >>> check_data([[1.0, np.nan]])
        (array([[1., 0.]]), array([[ True, False]]))
    """
    _refuse_masked_array(x, site)
    data = np.asarray(x)
    _check_rows(data, site)
    _check_numeric(data, site)
    if mask is not None:
        observed = _checked_mask(mask, data.shape, site).copy()
    elif np.issubdtype(data.dtype, np.floating):
        observed = ~np.isnan(data)
    else:
        raise TypeError(
            f"{site} has dtype {data.dtype}, which cannot hold NaN, and came without a mask. Pass "
            f"mask= (bool, True = observed; from a sentinel such as -1: mask={site} != -1; of "
            f"complete data: np.ones({site}.shape, bool)), or a float array with NaN."
        )
    _check_finite(data, observed, site)
    filled = np.array(data, order="C")
    filled[~observed] = 0
    return filled, observed


def is_column(value: Any, num_rows: int) -> bool:
    """Whether `value` is a column of a data frame, or a list of one number a row."""
    if hasattr(value, "to_numpy"):
        return True
    is_list = isinstance(value, list) and len(value) == num_rows
    return is_list and all(isinstance(entry, Real) for entry in value)


def take_data_site(sites: dict[str, Any], site: str) -> Any:
    """Take the data site out of a model's sites.

    Raises:
        ValueError: there is none of that name.
    """
    if site not in sites:
        raise ValueError(
            f"The model has no site {site!r}, only {sorted(sites)}: name the data site with "
            "`site=...`, and give it `obs=x` in the model."
        )
    return sites.pop(site)


def refuse_outside(x: ArrayLike, outside: ArrayLike, site: str) -> None:
    """Raise a `ValueError` if observed entries lie outside the support of the likelihood.

    Args:
        x: data, (rows, *event).
        outside: bool, of the shape of `x`: observed, and not in the support.
        site: name of the data site.

    Example:
        >>> refuse_outside([[0.0, 1.0]], [[False, False]], "x")
    """
    wrong = np.argwhere(np.asarray(outside))
    if len(wrong):
        row, *feature = (int(i) for i in wrong[0])
        raise ValueError(
            f"x has {len(wrong)} observed values outside the support of the likelihood at site "
            f"{site!r}; the first is {np.asarray(x)[tuple(wrong[0])]} at "
            f"row {row}, feature {feature[0] if len(feature) == 1 else tuple(feature)}. "
            "Transform the data (binarise, rescale), or use a likelihood that fits it."
        )


def refuse_narrow(dtype: str, largest: float, site: str) -> None:
    """Raise a `TypeError` if draws of missing counts could be too large for the data's type.

    Args:
        dtype: of x, whole numbers or bool.
        largest: that the likelihood can give; infinite if there is no bound, and then at least 32
            bits are asked for.
        site: name of the data site.

    Example:
        >>> refuse_narrow("uint8", 255, "x")
    """
    held = 1 if np.dtype(dtype).kind == "b" else np.iinfo(dtype).max
    if min(largest, np.iinfo(np.int32).max) > held:
        bound = f"up to {largest:.0f}" if np.isfinite(largest) else "of any size"
        raise TypeError(
            f"x holds {dtype}, numbers up to {held}, and site {site!r} can give counts "
            f"{bound}: draws would not fit. Pass x as `x.astype('int32')`, or as floats."
        )


def _check_rows(x: NDArray[Any], site: str) -> None:
    if x.ndim == 0:
        raise ValueError(
            f"{site} must have rows, shape (rows, *event), got the single value {x[()]!r}. "
            f"Put one row in a list: [row]."
        )
    if x.size == 0:
        lacking = "zero rows" if x.shape[0] == 0 else "rows without entries"
        raise ValueError(
            f"{site} has shape {x.shape}: {lacking}. Expected (rows, *event) with at least one of "
            "each; see whether a filter before left nothing over."
        )


def _check_numeric(x: NDArray[Any], site: str) -> None:
    if x.dtype.kind not in "fiub":
        raise TypeError(
            f"{site} must hold real numbers, got dtype {x.dtype}. Convert it first, for instance "
            f"np.array({site}, dtype=float), which also turns None into NaN; rows must have "
            "equal lengths, and words must be coded as numbers."
        )


def _check_finite(x: NDArray[Any], mask: Mask, site: str) -> None:
    bad = np.argwhere(mask & ~np.isfinite(x))
    if not len(bad):
        return
    index = tuple(int(i) for i in bad[0])
    feature = index[1] if len(index) == 2 else index[1:]
    where = f"row {index[0]}, feature {feature}" if len(index) > 1 else f"row {index[0]}"
    others = f" ({len(bad)} such entries in all)" if len(bad) > 1 else ""
    if np.isnan(x[index]):
        remedy = f"Set the mask to False there: mask & ~np.isnan({site})."
    else:
        remedy = "Replace it with a finite number, or with NaN (mask False) if it is missing."
    raise ValueError(f"{site} is {x[index]} at {where}, which is observed{others}. {remedy}")


def _checked_mask(mask: ArrayLike, shape: tuple[int, ...], site: str = "x") -> Mask:
    mask = np.asarray(mask)
    if mask.dtype != np.bool_:
        raise TypeError(
            f"the mask of {site} must be bool, True = observed, got dtype {mask.dtype}. "
            "If 1 means observed: mask.astype(bool); if 1 means missing: mask == 0."
        )
    if mask.shape != shape:
        raise ValueError(
            f"the mask must have the shape of {site}, {shape}, got {mask.shape}. "
            f"If it is shared by rows or channels: np.broadcast_to(mask, {site}.shape)."
        )
    return mask


def _require_float(x: NDArray[Any]) -> None:
    if not np.issubdtype(x.dtype, np.floating):
        why = "which cannot hold NaN" if x.dtype.kind in "iub" else "none of numpy's own floats"
        raise TypeError(
            f"x has dtype {x.dtype}, {why}. Convert it to float32, x.astype(np.float32), "
            "or keep the mask beside x."
        )


def _refuse_masked_array(x: Any, site: str = "x") -> None:
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(
            f"{site} is a numpy masked array, whose mask means the opposite (True = missing). "
            f"Pass {site}.data with mask=~np.ma.getmaskarray({site})."
        )
