"""MCMC runs as ArviZ results: `InferenceData` on ArviZ 0.x, `xarray.DataTree` on 1.x."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ppl_vae import __version__
from ppl_vae._axis_names import data_dims, latent_dims

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", module="arviz")  # 0.23 announces its refactoring at import
    warnings.filterwarnings("ignore", message=".*ArviZ.*")
    import arviz

__all__ = ["Run", "completed", "make_estimates", "make_inference_data", "to_inference_data"]


@dataclass(frozen=True)
class Run:
    """What a finished run leaves, as numpy arrays; kernels return it from `collect(mcmc)`.

    Shapes: C chains, S draws, K particles, B rows.
    """

    site: str  # name of the data site
    x: NDArray  # (B, *event), zeros where missing
    mask: NDArray  # (B, *event), True = observed
    completed: NDArray  # (C, S, B, *event) or, from populations, (C, S, K, B, *event)
    latents: Mapping[str, NDArray]  # (C, S, [K,] B, ...)
    stats: Mapping[str, NDArray]  # (C, B), (C, S, B), (C, S, K, B) or (C, S, P, B)
    constants: Mapping[str, Any] = field(default_factory=dict)  # further arguments of the model
    attrs: Mapping[str, Any] = field(default_factory=dict)  # kernel, settings, seed, wall time


def to_inference_data(
    mcmc: Any,
    *,
    coords: Mapping[str, Sequence[Any]] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
) -> Any:
    """Return the results of a finished run with one of this library's kernels.

    A run of the host's own NUTS or HMC on a `ConditionalModel` is understood too.

    Groups: `posterior` has `<site>_missing` (chain, draw, missing), only the missing entries, with
    coordinates `row` and `feature` (`feature_0`, `feature_1`, ... for rows with several axes), and
    the latent sites (chain, draw, row, ...). `sample_stats` has what the kernel reports per row.
    `observed_data` has the data with NaN where missing, `constant_data` the mask and further
    arguments. The particles of one iteration of LAIR are flattened into `draw`; statistics of
    whole iterations keep a dimension `iteration`.

    Args:
        mcmc: `numpyro.infer.MCMC`, `ppl_vae.pyro.MCMC` or `pyro.infer.MCMC` after `run`.
        coords: labels for dimensions, such as `{"row": names, "feature": columns}`.
        dims: names of the axes of one row by site, such as `{"x": ["height", "width"]}`.

    Raises:
        TypeError: if the run's kernel is not one of this library's, nor on a `ConditionalModel`.
        ValueError: if `run` was not called, or labels and names fit nothing.

    Returns:
        `arviz.InferenceData` on ArviZ 0.x, `xarray.DataTree` on ArviZ 1.x.
    """
    kernel = getattr(mcmc, "kernel", getattr(mcmc, "sampler", None))
    for source in (kernel, getattr(kernel, "model", None)):
        collect = getattr(source, "collect", None)
        if collect is not None:
            return make_inference_data(collect(mcmc), coords=coords, dims=dims)
    raise TypeError(
        "Expected a run of one of this library's kernels, or of the host's on a ConditionalModel, "
        f"got {type(mcmc).__name__} with {type(kernel).__name__}; convert it with "
        "`arviz.from_numpyro` or `arviz.from_pyro`."
    )


def make_inference_data(
    run: Run,
    *,
    coords: Mapping[str, Sequence[Any]] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    estimates: xr.Dataset | None = None,
) -> Any:
    """Arrange a `Run` in ArviZ's groups; see `to_inference_data`. `estimates` is one more group."""
    coords, dims = dict(coords or {}), dict(dims or {})
    if unknown := set(dims) - {run.site, *run.latents}:
        known = ", ".join((run.site, *run.latents))
        raise ValueError(f"dims names no site {min(unknown)!r}; the run has {known}.")
    has_particles = run.completed.ndim == run.x.ndim + 3
    latents = {name: _flat(value, has_particles) for name, value in run.latents.items()}
    event_dims = data_dims(run.site, run.x, dims)
    own_dims = latent_dims(latents, dims, run.site, event_dims)
    draws = _flat(run.completed, has_particles)
    where: tuple[Any, ...] = np.nonzero(~run.mask)
    entries = dict(zip(("row", *event_dims), where, strict=True))
    variables: dict[str, Any] = {
        f"{run.site}_missing": (("chain", "draw", "missing"), draws[:, :, *where])
    }
    for name, value in latents.items():
        variables[name] = (("chain", "draw", "row", *own_dims[name]), value)
    stats = {name: _statistic(run, name, value, has_particles) for name, value in run.stats.items()}
    groups = {
        "posterior": xr.Dataset(variables),
        "sample_stats": xr.Dataset(stats),
        **_data_groups(run.site, run.x, run.mask, run.constants, event_dims),
    }
    if estimates is not None:
        groups["estimates"] = estimates
    groups = _labelled(groups, coords, entries)
    return _container(groups, {**_versions(), **run.attrs, "site": run.site})


def make_estimates(
    estimates: xr.Dataset,
    *,
    site: str,
    x: NDArray,
    mask: NDArray,
    constants: Mapping[str, Any],
    attrs: Mapping[str, Any],
    coords: Mapping[str, Sequence[Any]] | None = None,
) -> Any:
    """Arrange estimates per row in ArviZ's container: groups `estimates` and those of the data.

    Args:
        estimates: variables over `row`, and what other dimensions there are.
        site: name of the data site.
        x: data, shape (B, *event).
        mask: shape of x, True = observed.
        constants: further arguments of the model.
        attrs: settings, seed and wall time.
        coords: labels as in `to_inference_data`.
    """
    groups = {
        "estimates": estimates,
        **_data_groups(site, x, mask, constants, data_dims(site, x, {})),
    }
    attrs = {**_versions(), **attrs, "site": site}
    return _container(_labelled(groups, coords or {}, {}), attrs)


def completed(idata: Any) -> NDArray:
    """Return the completed rows of every draw, shape (chain, draw, row, *event).

    Observed entries are those of `observed_data`; missing ones the draws.

    Raises:
        ValueError: if `idata` does not have the groups of `to_inference_data`.

    Example:
        >>> run = Run("x", np.zeros((2, 3)), np.ones((2, 3), bool), np.zeros((4, 5, 2, 3)), {}, {})
        >>> completed(make_inference_data(run)).shape
        (4, 5, 2, 3)
    """
    try:
        mask = np.asarray(idata["constant_data"]["mask"])
        posterior, observed = idata["posterior"], idata["observed_data"]
        site = next(str(name) for name in observed.data_vars)
        draws = np.asarray(posterior[f"{site}_missing"])
    except (KeyError, StopIteration, AttributeError) as error:
        raise ValueError(
            f"These are no results of `to_inference_data`: {error} is missing."
        ) from error
    x = np.asarray(observed[site])
    dense = np.empty((*draws.shape[:2], *x.shape), draws.dtype)
    dense[...] = np.where(mask, x, 0)
    dense[..., ~mask] = draws
    return dense


def _data_groups(
    site: str,
    x: NDArray,
    mask: NDArray,
    constants: Mapping[str, Any],
    event_dims: tuple[str, ...],
) -> dict[str, xr.Dataset]:
    dims = ("row", *event_dims)
    return {
        "observed_data": xr.Dataset({site: (dims, np.where(mask, x, np.nan))}),
        "constant_data": xr.Dataset({"mask": (dims, mask), **_constants(constants, x, dims)}),
    }


def _labelled(
    groups: Mapping[str, xr.Dataset],
    coords: Mapping[str, Sequence[Any]],
    entries: Mapping[str, NDArray],
) -> dict[str, xr.Dataset]:
    """Label all dimensions named in `coords`, and the missing entries, whose places are given."""
    sizes = {dim: size for group in groups.values() for dim, size in group.sizes.items()}
    for dim, names in coords.items():
        if dim not in sizes:
            known = ", ".join(map(str, sizes))
            raise ValueError(f"coords names no dimension {dim!r}; the results have {known}.")
        if len(names) != sizes[dim]:
            raise ValueError(f"coords[{dim!r}] must have {sizes[dim]} labels, got {len(names)}.")
    rows = list(coords.get("row", ()))
    if len(set(rows)) < len(rows):
        twice = next(name for name in rows if rows.count(name) > 1)
        raise ValueError(f"coords['row'] must tell the rows apart, it has {twice!r} twice.")
    labels = {dim: np.asarray(names) for dim, names in coords.items()}
    places = {
        dim: ("missing", labels[dim][place] if dim in labels else place)
        for dim, place in entries.items()
    }
    labelled = {}
    for name, group in groups.items():
        own = places if name == "posterior" else {}
        axes = {dim: labels[dim] for dim in group.sizes if dim in labels and dim not in own}
        labelled[name] = group.assign_coords({**axes, **own})
    return labelled


def _flat(value: NDArray, has_particles: bool) -> NDArray:
    """(C, S, K, ...) to (C, S K, ...)."""
    return value.reshape(value.shape[0], -1, *value.shape[3:]) if has_particles else value


def _statistic(run: Run, name: str, value: NDArray, has_particles: bool) -> Any:
    if value.ndim == 2:
        return ("chain", "row"), value
    if not has_particles:
        return ("chain", "draw", "row"), value
    if value.ndim == 3:
        return ("chain", "iteration", "row"), value
    if name == "log_weight":
        return ("chain", "iteration", "proposal", "row"), value
    return ("chain", "draw", "row"), _flat(value, True)


def _constants(constants: Mapping[str, Any], x: NDArray, dims: Sequence[str]) -> dict[str, Any]:
    """The program's arguments as variables; with a dimension's name they are `arg_<name>`."""
    variables, num_rows = {}, len(x)
    for name, value in constants.items():
        try:
            value = np.asarray(value)
        except (TypeError, ValueError):  # a random key, a tuple of arrays of different shapes
            continue
        if value.dtype == object:
            continue  # no array: it has no place in a NetCDF file
        first = "row" if value.ndim and len(value) == num_rows else f"{name}_dim_0"
        names = [first, *(f"{name}_dim_{i}" for i in range(1, value.ndim))][: value.ndim]
        variables[f"arg_{name}" if name in dims else name] = (tuple(names), value)
    return variables


def _container(groups: Mapping[str, xr.Dataset], attrs: Mapping[str, Any]) -> Any:
    for group in groups.values():
        group.attrs.update(attrs)
    if arviz.__version__.startswith("0."):  # 1.x keeps the name, for xarray.DataTree
        idata = arviz.InferenceData(**groups, warn_on_custom_groups=False)
        idata.attrs.update(attrs)
        return idata
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=dict(attrs)), **groups})


def _versions() -> dict[str, str]:
    versions = {"inference_library": "ppl_vae", "inference_library_version": __version__}
    for name in ("numpyro", "jax", "pyro-ppl", "torch", "arviz", "xarray"):
        try:
            versions[f"version_{name}"] = version(name)
        except PackageNotFoundError:
            continue  # the other twin's library
    return versions
