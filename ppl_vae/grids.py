"""Densities of one or two latents on a grid: where its cells lie, and what they say together."""

import warnings

import numpy as np
import xarray as xr
from numpy.typing import NDArray

__all__ = ["Grid", "summarise_grid"]

_SMALL = 1e-2  # share of a law


class Grid:
    """Cells of one size along each of one or two latents, and one more on every side.

    The cells on the sides are looked at for what lies outside of the bounds alone.

    Args:
        bounds: the ends of the grid along each latent, (low, high).
        num_points: cells along each latent.
        num_latents: one or two.
    """

    def __init__(self, bounds: tuple[float, float], num_points: int, num_latents: int) -> None:
        low, high = bounds
        width = (high - low) / num_points
        self.axis = low + width * (np.arange(num_points) + 0.5)
        self.cell = width**num_latents
        wide = low + width * (np.arange(-1, num_points + 1) + 0.5)
        points = np.stack(np.meshgrid(*[wide] * num_latents, indexing="ij"), -1)
        self.points = points.reshape(-1, num_latents)
        self.shape = (num_points + 2,) * num_latents

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Whether a point lies within the bounds, (points,)."""
        inside = np.zeros(self.shape, bool)
        inside[(slice(1, -1),) * len(self.shape)] = True
        return inside.ravel()


def summarise_grid(grid: Grid, log_joint: NDArray, log_guide: NDArray) -> xr.Dataset:
    """Return the posterior, log p(x) and the guide's divergence, of densities on a grid.

    Args:
        grid: where the densities were taken.
        log_joint: log p(x_o, z), (points, rows).
        log_guide: log q(z | x_o), (points, rows).

    Warns:
        UserWarning: where a law of a row lies outside of the bounds, or between the points.

    Example:
        >>> grid = Grid((-5.0, 5.0), 201, 1)
        >>> normal = -0.5 * grid.points**2 - 0.5 * np.log(2 * np.pi)
        >>> abs(float(summarise_grid(grid, normal, normal).log_evidence[0])) < 1e-5
        True
    """
    log_joint, log_guide = (a.astype(np.float64) for a in (log_joint, log_guide))
    log_cell = np.log(grid.cell)
    inside = grid.inside
    log_evidence = np.logaddexp.reduce(log_joint[inside], 0) + log_cell
    log_posterior, log_q = log_joint - log_evidence, log_guide[inside]
    beside = np.exp(log_posterior[~inside] + log_cell).sum(0)
    outside = beside > _SMALL
    if outside.any():
        _warn(f"The posterior of {_rows(outside)} goes on outside of the grid: widen `bounds`.")
    of_guide = np.exp(log_q + log_cell).sum(0)
    is_off = abs(of_guide - 1) > _SMALL
    if is_off.any():
        _warn(
            f"The guide of {_rows(is_off)} does not sum to 1 on the grid, and `kl_guide` is wrong "
            "there: widen `bounds`, or take more `num_points`."
        )
    log_posterior = log_posterior[inside]
    with np.errstate(invalid="ignore"):  # where neither has mass
        ratio = np.where(log_q == -np.inf, 0, log_q - log_posterior)
    axes = [f"z_{i}" for i in range(len(grid.shape))]
    shape = (-1, *[len(grid.axis)] * len(grid.shape))
    return xr.Dataset(
        {
            "log_posterior": (("row", *axes), log_posterior.T.reshape(shape)),
            "log_guide": (("row", *axes), log_q.T.reshape(shape)),
            "log_evidence": ("row", log_evidence),
            "posterior_mean": (
                ("row", "latent"), np.exp(log_posterior + log_cell).T @ grid.points[inside]
            ),
            "kl_guide": ("row", (np.exp(log_q + log_cell) * ratio).sum(0)),
        },
        coords=dict.fromkeys(axes, grid.axis),
    )  # fmt: skip


def _rows(chosen: NDArray[np.bool_]) -> str:
    return f"{chosen.sum()} rows, the first of them row {chosen.argmax()},"


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
