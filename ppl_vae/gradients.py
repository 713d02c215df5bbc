"""How noisy gradients are: signal, variance and their ratio, as a dataset and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae._image_grid import new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Moments", "plot_gradient_quality", "summarise_gradients"]

Moments = Mapping[str, tuple[NDArray[Any], NDArray[Any]]]
"""For each block of parameters, mean and variance of each of its gradient's entries, (entries,)."""

LABELS = {
    "norm": "norm of\nthe mean gradient",
    "variance": "variance,\nsummed over entries",
    "snr": "signal-to-noise ratio",
}


def summarise_gradients(
    moments: Mapping[tuple[str, int], Moments],
    objectives: Sequence[str],
    num_particles: Sequence[int],
) -> xr.Dataset:
    """Return norm, variance and signal-to-noise ratio of each block's gradient.

        norm = sqrt(sum_j mean_j^2),  variance = sum_j var_j,
        snr = average over j of |mean_j| / sqrt(var_j)

    Entries without any gradient, mean and variance 0, are left out of the average.

    Args:
        moments: of each objective and number of particles.
        objectives: their names, in the order of the result.
        num_particles: in the order of the result.

    Example:
        >>> moments = {("iwae", 5): {"encoder": (np.array([3.0, 4.0]), np.array([1.0, 4.0]))}}
        >>> ds = summarise_gradients(moments, ["iwae"], [5])
        >>> float(ds.norm.squeeze()), float(ds.variance.squeeze()), float(ds.snr.squeeze())
        (5.0, 5.0, 2.5)
    """
    import xarray as xr

    blocks = list(next(iter(moments.values())))
    dims = ("objective", "num_particles", "block")
    each = np.array(
        [[[_summary(*moments[o, k][b]) for b in blocks] for k in num_particles] for o in objectives]
    )
    variables = {name: (dims, each[..., i]) for i, name in enumerate(LABELS)}
    coords = {
        "objective": list(objectives), "num_particles": list(num_particles), "block": blocks,
    }  # fmt: skip
    return xr.Dataset(variables, coords)


def _summary(mean: NDArray[Any], variance: NDArray[Any]) -> tuple[float, float, float]:
    mean, variance = np.asarray(mean, float), np.asarray(variance, float)
    moves = (mean != 0) | (variance != 0)
    with np.errstate(divide="ignore"):
        ratio = np.abs(mean[moves]) / np.sqrt(variance[moves])
    snr = float(ratio.mean()) if len(ratio) else float("nan")
    return float(np.sqrt((mean**2).sum())), float(variance.sum()), snr


def plot_gradient_quality(ds: xr.Dataset) -> Figure:
    """Draw signal-to-noise ratio, variance and norm of gradients against the particles, log-log.

    One column of panels a block of parameters, one line an objective.

    Args:
        ds: as from `gradient_quality`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: a variable or dimension is missing.

    Example:
        >>> moments = {("iwae", 5): {"encoder": (np.array([3.0, 4.0]), np.array([1.0, 4.0]))}}
        >>> figure = plot_gradient_quality(summarise_gradients(moments, ["iwae"], [5]))
        >>> figure.axes[0].get_title(), figure.axes[0].get_ylabel()
        ('encoder', 'signal-to-noise ratio')
    """
    missing = [name for name in LABELS if name not in ds]
    missing += [dim for dim in ("objective", "num_particles", "block") if dim not in ds.dims]
    if missing:
        raise ValueError(f"ds must be as from gradient_quality; it lacks {', '.join(missing)}.")
    blocks = list(ds["block"].values)
    figure = new_figure(1.2 + 2.6 * len(blocks), 6.6)
    panels = figure.subplots(3, len(blocks), sharex=True, squeeze=False)
    for row, name in zip(panels, ("snr", "variance", "norm"), strict=True):
        for axes, block in zip(row, blocks, strict=True):
            _draw_panel(axes, ds[name].sel(block=block))
        row[0].set_ylabel(LABELS[name])
    for axes, block in zip(panels[0], blocks, strict=True):
        axes.set_title(str(block))
    for axes in panels[-1]:
        axes.set_xlabel("particles a row")
    panels[0][-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def _draw_panel(axes: Axes, values: xr.DataArray) -> None:
    ks = values["num_particles"].values
    markers = "osD^v<>pP*Xh"
    for i, objective in enumerate(values["objective"].values):
        line = values.sel(objective=objective).values
        marker = markers[i % len(markers)]
        axes.plot(ks, line, f"{marker}-", label=str(objective), markersize=4)
    axes.set_xscale("log")
    if (values.values > 0).any():  # where nothing moves there is no logarithm
        axes.set_yscale("log")
        low, high = values.where(values > 0).min().item(), values.max().item()
        axes.set_ylim(10 ** np.floor(np.log10(low * 0.9)), 10 ** np.ceil(np.log10(high * 1.1)))
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
