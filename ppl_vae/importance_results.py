"""What importance resampling leaves, block by block and as a whole, in ArviZ's groups.

Shapes: S particles, T draws, B rows.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ppl_vae.importance import self_normalised, summarise_weights
from ppl_vae.inference_data import Run, make_inference_data

__all__ = ["arrange", "divergences", "particle_numbers", "tabulate"]

COMPLETED = "completed"


def particle_numbers(num_particles: int | Sequence[int]) -> list[int]:
    """Return one or several numbers of particles as a list, or raise a `ValueError`.

    Example:
        >>> particle_numbers(5), particle_numbers((1, 5))
        ([5], [1, 5])
    """
    several = isinstance(num_particles, Sequence | np.ndarray)
    numbers: list[Any] = [*num_particles] if several else [num_particles]  # type: ignore[misc]
    for k in numbers or [None]:
        if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
            raise ValueError(f"num_particles must be an integer >= 1 or several, got {k!r}.")
    return numbers


def tabulate(
    log_weights: NDArray,
    used: NDArray,
    particles: Mapping[str, NDArray],
    draws: Mapping[str, NDArray],
    stats: Mapping[str, NDArray],
    completed: NDArray | None,
) -> xr.Dataset:
    """Return one block of rows as a table; names say their group.

    Args:
        log_weights: of the particles, (S, B), as they were.
        used: the log-weights after a transform.
        particles: latent sites, (S, B, ...).
        draws: resampled latent sites, (T, B, ...).
        stats: statistics of each draw, (T, B).
        completed: rows with their missing entries drawn, (T, B, *event), if any are missing.
    """
    weightless = np.isneginf(used).all(0)
    if weightless.any():
        warnings.warn(
            f"{weightless.sum()} rows have no particle with a weight above zero, the first is row "
            f"{weightless.argmax()} of its block: there is nothing to draw from, and their latents "
            "are NaN. Does the guide reach the prior's support?",
            stacklevel=5,
        )
    of_weights = summarise_weights(log_weights, [len(log_weights)])
    table = of_weights.isel(num_particles=0, drop=True)
    variables: dict[str, Any] = {f"estimates/{name}": table[name] for name in table.data_vars}
    for name, value in particles.items():
        for moment, number in zip(("mean", "sd"), self_normalised(used, value), strict=True):
            variables[f"estimates/{name}_{moment}"] = _of_row(name, number)
    for name, value in draws.items():
        if weightless.any():
            value = np.where(weightless.reshape(-1, *[1] * (value.ndim - 2)), np.nan, value)
        variables[f"posterior/{name}"] = _of_draw(name, value)
    for name, value in stats.items():
        variables[f"sample_stats/{name}"] = _of_draw(name, value)
    if completed is not None:
        variables[COMPLETED] = _of_draw(COMPLETED, completed)
    return xr.Dataset(variables)


def divergences(log_ratios: Mapping[str, NDArray], log_observed: NDArray) -> xr.Dataset:
    """Return mean and standard error of what the bound consists of, for one block of rows.

    Args:
        log_ratios: log q(z_l | ...) - log p(z_l | ...) at S draws of every latent site, (S, B).
        log_observed: log p(x_o | z), (S, B).
    """
    each = np.stack([np.asarray(value, float) for value in log_ratios.values()])
    log_observed = np.asarray(log_observed, float)
    variables: dict[str, Any] = {}
    for name, draws, dims in (
        ("kl", each, ("site", "row")),
        ("expected_log_likelihood", log_observed, ("row",)),
        ("elbo", log_observed - each.sum(0), ("row",)),
    ):
        num_draws = draws.shape[-2]
        spread = draws.std(-2, ddof=1) if num_draws > 1 else np.full_like(draws.sum(-2), np.inf)
        variables[name] = dims, draws.mean(-2)
        variables[f"{name}_standard_error"] = dims, spread / num_draws**0.5
    return xr.Dataset(variables, coords={"site": list(log_ratios)})


def arrange(
    found: xr.Dataset,
    *,
    site: str,
    x: NDArray,
    mask: NDArray,
    constants: Mapping[str, Any],
    attrs: Mapping[str, Any],
    nothing_seen: NDArray,
    coords: Mapping[str, Sequence[Any]] | None = None,
) -> Any:
    """Return the container of `to_inference_data`, of one chain, with a group `estimates`.

    Args:
        found: the tables of all rows, joined along `row`.
        site: name of the data site.
        x: data, shape (B, *event).
        mask: shape of x, True = observed.
        constants: further arguments of the model.
        attrs: settings, seed and wall time.
        nothing_seen: whether nothing at all is observed of a row, shape (B,), bool.
        coords: labels as in `to_inference_data`.
    """
    if COMPLETED in found:
        rows = found[COMPLETED].values
    else:  # nothing is missing: every draw is the data
        rows = np.broadcast_to(x, (found.sizes["draw"], *x.shape))
    estimates = _group(found, "estimates")
    for name in ("log_likelihood", "standard_error"):  # log p of no entry at all
        estimates[name] = estimates[name].where(~nothing_seen, 0.0)
    run = Run(
        site=site,
        x=x,
        mask=mask,
        completed=rows[None],
        latents={name: v.values[None] for name, v in _group(found, "posterior").items()},
        stats={name: v.values[None] for name, v in _group(found, "sample_stats").items()},
        constants=constants,
        attrs=attrs,
    )
    return make_inference_data(run, coords=coords, estimates=xr.Dataset(estimates))


def _of_row(name: str, value: NDArray) -> tuple[tuple[str, ...], NDArray]:
    return ("row", *(f"{name}_dim_{i}" for i in range(value.ndim - 1))), value


def _of_draw(name: str, value: NDArray) -> tuple[tuple[str, ...], NDArray]:
    return ("draw", "row", *(f"{name}_dim_{i}" for i in range(value.ndim - 2))), value


def _group(found: xr.Dataset, group: str) -> dict[str, Any]:
    names = [str(name) for name in found.data_vars if str(name).startswith(f"{group}/")]
    return {name.removeprefix(f"{group}/"): found[name] for name in names}
