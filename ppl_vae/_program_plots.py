"""Pictures of a program: which of its latent units are active, how noisy its gradients are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ppl_vae._image_grid import new_figure
from ppl_vae.gradients import LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["active_units", "gradient_quality"]

LEGEND: dict[str, Any] = {
    "loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "frameon": False, "fontsize": "small"
}  # fmt: skip


def active_units(units: Any) -> Figure:
    """Draw the activities of the latent units of each site in descending order.

    The scale is logarithmic: inactive units lie orders of magnitude below the threshold, where the
    count does not depend on it. What is not above 0 but for Monte-Carlo error stands at the bottom.

    Args:
        units: the result of `active_units`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `units` does not have the variables of `active_units`.

    Example:
        >>> import xarray as xr
        >>> spectrum = (("site", "rank"), np.array([[1.0, 0.5, 1e-4]]))
        >>> counts = {"num_active": ("site", [2]), "num_units": ("site", [3])}
        >>> attrs = {"threshold": 0.01, "num_rows": 100}
        >>> units = xr.Dataset({"spectrum": spectrum, **counts}, {"site": ["z"]}, attrs)
        >>> active_units(units).axes[0].get_ylabel()
        'activity, Var E[u | x]'
    """
    missing = {"spectrum", "num_active", "num_units"} - set(units)
    if missing:
        raise ValueError(f"These are no results of active_units: {sorted(missing)} are missing.")
    figure = new_figure(7, 3.5)
    axes = figure.add_subplot()
    threshold = float(units.attrs["threshold"])
    spectrum = units["spectrum"].values
    above = spectrum[spectrum > 0]
    floor = min(above.min(initial=np.inf), abs(threshold) or 1.0) / 2
    for i, site in enumerate(units["site"].values):
        active, size = int(units["num_active"][i]), int(units["num_units"][i])
        axes.plot(
            np.arange(1, size + 1), np.maximum(spectrum[i, :size], floor), marker=".",
            label=f"{site}: {active} of {size} active",
        )  # fmt: skip
    label = f"threshold {threshold:g}"
    axes.axhline(threshold, color="0.2", linewidth=1, linestyle="--", label=label, zorder=3)
    axes.set(
        xlabel="rank of the unit", ylabel="activity, Var E[u | x]", yscale="log",
        title=f"Active units on {units.attrs['num_rows']} rows",
    )  # fmt: skip
    axes.locator_params(axis="x", integer=True)
    axes.legend(**LEGEND)
    return figure


def gradient_quality(ds: xr.Dataset) -> Figure:
    """Draw signal-to-noise ratio, variance and norm of gradients against the particles, log-log.

    One column of panels a block of parameters, one line an objective. What has no place on a
    logarithmic axis, 0 or an infinite ratio, is left out: the line has a gap.

    Args:
        ds: as from `gradient_quality`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: a variable or dimension is missing.

    Example:
        >>> from ppl_vae.gradients import summarise_gradients
        >>> moments = {("iwae", 5): {"encoder": (np.array([3.0, 4.0]), np.array([1.0, 4.0]))}}
        >>> figure = gradient_quality(summarise_gradients(moments, ["iwae"], [5]))
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
    panels[0][-1].legend(**LEGEND)
    return figure


def _draw_panel(axes: Axes, values: xr.DataArray) -> None:
    ks = values["num_particles"].values
    markers = "osD^v<>pP*Xh"
    for i, objective in enumerate(values["objective"].values):
        line = values.sel(objective=objective).values
        marker = markers[i % len(markers)]
        axes.plot(ks, line, f"{marker}-", label=str(objective), markersize=4)
    axes.set_xscale("log")
    shown = values.values[(values.values > 0) & (values.values < np.inf)]
    if len(shown):  # where nothing moves there is no logarithm
        axes.set_yscale("log")
        low, high = shown.min(), shown.max()
        axes.set_ylim(10 ** np.floor(np.log10(low * 0.9)), 10 ** np.ceil(np.log10(high * 1.1)))
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
