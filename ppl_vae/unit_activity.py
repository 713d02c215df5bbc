"""How much the latents say of the data: the variance of their posterior means, unit by unit.

Shapes: N rows, U units of a site.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

__all__ = ["dead_units", "moments", "summarise_units"]


def moments(draws: Mapping[str, NDArray]) -> xr.Dataset:
    """Return mean and variance of S draws of each row and unit, from sites (S, N, ...)."""
    variables = {}
    for name, value in draws.items():
        flat = np.asarray(value, float).reshape(*value.shape[:2], -1)
        dims = ("row", f"{name}_unit")
        variables[f"mean/{name}"] = dims, flat.mean(0)
        variables[f"variance/{name}"] = dims, flat.var(0, ddof=1)
    return xr.Dataset(variables)


def summarise_units(found: xr.Dataset, num_particles: int, threshold: float) -> xr.Dataset:
    """Return the activity of every unit from the moments of its draws in every row.

    Args:
        found: as from `moments`, of all rows.
        num_particles: draws K a row.
        threshold: activity above which a unit counts as active.

    Returns:
        As `active_units`.
    """
    found = found.dropna("row")  # not reached
    means = {
        str(name).removeprefix("mean/"): value.values
        for name, value in found.data_vars.items()
        if str(name).startswith("mean/")
    }
    num_units = np.array([mean.shape[1] for mean in means.values()])
    shape = (len(means), num_units.max())
    activity, errors = np.full(shape, np.nan), np.full(shape, np.nan)
    for i, (site, mean) in enumerate(means.items()):
        noise = found[f"variance/{site}"].values / num_particles
        squares = (mean - mean.mean(0)) ** 2 * len(mean) / (len(mean) - 1) - noise
        activity[i, : num_units[i]] = squares.mean(0)
        errors[i, : num_units[i]] = squares.std(0, ddof=1) / len(mean) ** 0.5
    active = activity > threshold
    return xr.Dataset(
        {
            "activity": (("site", "unit"), activity),
            "standard_error": (("site", "unit"), errors),
            "active": (("site", "unit"), active),
            "spectrum": (("site", "rank"), -np.sort(-activity, axis=1)),
            "num_active": ("site", active.sum(1)),
            "num_units": ("site", num_units),
        },
        coords={"site": list(means)},
        attrs={
            "threshold": threshold, "num_particles": num_particles, "num_rows": found.sizes["row"]
        },
    )  # fmt: skip


def dead_units(units: Any) -> dict[str, NDArray]:
    """Return the indices or flags of the units to cut, by site, as arrays.

    Raises:
        TypeError: `units` is neither a mapping nor the result of `active_units`, or what it holds
            are neither indices nor flags.
        ValueError: a unit is named twice, or no site at all.
    """
    if isinstance(units, xr.Dataset) and {"active", "num_units"} <= set(units):
        return {
            str(site): ~units["active"].values[i, :num_units]
            for i, (site, num_units) in enumerate(
                zip(units["site"].values, units["num_units"].values, strict=True)
            )
        }
    if not isinstance(units, Mapping):
        raise TypeError(
            "units must map sites to the units to cut, such as {'z': [3, 7]}, or be the result of "
            f"active_units; got {type(units).__name__}."
        )
    if not units:
        raise ValueError("units names no site; give {site: []} to cut no unit of a site.")
    return {site: _checked(site, of_site) for site, of_site in units.items()}


def _checked(site: str, units: ArrayLike) -> NDArray:
    given = np.asarray(units)
    given = given.reshape(-1).astype(int) if given.size == 0 else given
    if given.ndim != 1 or given.dtype.kind not in "bui":
        raise TypeError(
            f"units of site {site!r} must be indices, or one flag a unit, True = cut; got "
            f"{given.dtype} of shape {given.shape}."
        )
    if given.dtype != bool and len(np.unique(given)) < len(given):
        raise ValueError(f"units of site {site!r} name a unit twice: {given.tolist()}.")
    return given


def kept_units(site: str, dead: NDArray, num_units: int) -> NDArray:
    """Return the indices of the units that stay.

    Raises:
        ValueError: a unit that the site does not have, or another number of flags.
    """
    if dead.dtype == bool and len(dead) != num_units:
        raise ValueError(
            f"Site {site!r} has {num_units} units a row, but {len(dead)} flags were given."
        )
    if dead.dtype != bool and ((dead < 0) | (dead >= num_units)).any():
        raise ValueError(
            f"Site {site!r} has units 0 to {num_units - 1}, but units {dead.tolist()} were to be "
            "cut."
        )
    return np.delete(np.arange(num_units), np.flatnonzero(dead) if dead.dtype == bool else dead)


def check_sites(units: Mapping[str, Any], seen: Sequence[str], role: str) -> None:
    """Raise a `ValueError` if a site of which units are to be cut is not among those seen."""
    unknown = sorted(set(units) - set(seen))
    if unknown:
        raise ValueError(
            f"Units of sites {unknown} were to be cut, but the {role} has the latent sites "
            f"{sorted(seen)}."
        )
