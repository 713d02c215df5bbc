"""Pictures of imputations and of whether to trust them, as matplotlib figures.

Nothing here touches pyplot or a display: each function returns a `matplotlib.figure.Figure`, shown
by a notebook and written by `figure.savefig(path)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae._image_grid import (
    check_grid,
    checked_rows,
    draw_grid,
    last_draws,
    new_figure,
    pictures,
)
from ppl_vae._program_plots import active_units, gradient_quality

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["acceptance", "active_units", "convergence", "gradient_quality", "image_grid"]

RHAT_LIMIT = 1.01  # Vehtari et al. (2021), https://doi.org/10.1214/20-BA1221
ESS_LIMIT = 400.0  # the same paper: 100 for each of four chains


def image_grid(
    truth: ArrayLike,
    mask: ArrayLike,
    draws: ArrayLike,
    *,
    image_shape: tuple[int, int] | None = None,
    rows: Sequence[int] | None = None,
    num_draws: int = 4,
) -> Figure:
    """Draw images in rows: truth, what was observed, some completions, their mean and their spread.

    The completions shown are the last draws of different chains. Colour images have three channels;
    their spread is the mean over channels.

    Args:
        truth: complete images, (row, *event); NaN where not known.
        mask: bool, of the shape of `truth`, True = observed.
        draws: completed images, (chain, draw, row, *event), as from `completed(idata)`.
        image_shape: (height, width) of flat images; None takes them from the event, which is then
            (height, width) or (channels, height, width).
        rows: which to show; None means the first eight.
        num_draws: completions to show of each image.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: `mask` is not bool.
        ValueError: shapes that do not fit, rows that do not exist, or fewer draws than wanted.

    Example:
        >>> truth, mask = np.eye(4)[None], np.ones((1, 4, 4), bool)
        >>> figure = image_grid(truth, mask, truth[None, None], num_draws=1)
        >>> [axes.get_title() for axes in figure.axes[:3]]
        ['truth', 'observed', 'chain 0\\ndraw 0']
    """
    truth, mask, draws = np.asarray(truth), np.asarray(mask), np.asarray(draws)
    check_grid(truth, mask, draws, num_draws)
    shown = checked_rows(rows, len(truth))
    truth, mask, draws = truth[shown], mask[shown], draws[:, :, shown]
    picked = last_draws(draws.shape[0], draws.shape[1], num_draws)
    shown_draws = [draws[chain, draw] for chain, draw in picked]
    arrays = [truth, np.where(mask, truth, np.nan), *shown_draws, draws.mean(axis=(0, 1))]
    columns = [pictures(array, image_shape) for array in arrays]
    spread = pictures(draws.std(axis=(0, 1)), image_shape)
    headings = ["truth", "observed", *(f"chain {c}\ndraw {d}" for c, d in picked), "mean"]
    return draw_grid(columns, headings, spread, shown)


def convergence(
    summary: Mapping[Any, Any], *, rhat_limit: float = RHAT_LIMIT, ess_limit: float = ESS_LIMIT
) -> Figure:
    """Draw R-hat and the effective sample size (ESS) of every row, with the limits of trust.

    Rows without a finite value, such as those of stuck chains, are crosses at the panel's edge.
    R-hat has a scale that stretches the neighbourhood of 1; ESS has a logarithmic one.

    Args:
        summary: `summary(idata)`, or any mapping from names to arrays (row,). Names that begin with
            "rhat" go to the panel of R-hat, those that begin with "ess" to that of ESS, others are
            left out; "row", or the coordinate of that name, holds the row numbers.
        rhat_limit: largest R-hat to trust; a line.
        ess_limit: smallest ESS to trust, in draws; a line.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: neither an R-hat nor an ESS, or an array that is not (row,).

    Example:
        >>> figure = convergence({"rhat_max": [1.0, 1.3], "ess_bulk_min": [900.0, 20.0]})
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['R-hat', 'effective sample size (draws)']
    """
    rhat, ess = _by_prefix(summary, "rhat"), _by_prefix(summary, "ess")
    if not rhat and not ess:
        raise ValueError(
            "summary must have arrays whose names begin with 'rhat' or 'ess', "
            f"got {', '.join(map(str, summary)) or 'none'}."
        )
    num_rows = len(next(iter({**rhat, **ess}.values())))
    rows = np.asarray(summary["row"]) if "row" in summary else np.arange(num_rows)
    num_panels = bool(rhat) + bool(ess)
    figure = new_figure(8, 2.6 * num_panels)
    if rhat:
        axes = figure.add_subplot(num_panels, 1, 1)
        _draw_series(axes, rows, rhat, rhat_limit, "above")
        _scale_rhat(axes)
        axes.set(ylabel="R-hat", xlabel="row")
    if ess:
        axes = figure.add_subplot(num_panels, 1, num_panels)
        _draw_series(axes, rows, ess, ess_limit, "below")
        _scale_ess(axes)
        axes.set(ylabel="effective sample size (draws)", xlabel="row")
    return figure


def acceptance(rate: ArrayLike) -> Figure:
    """Draw the acceptance rate of every row, and of every chain where there are several.

    Args:
        rate: fraction of proposals accepted, (row,), (chain, row) or (chain, draw, row); over draws
            the mean is shown.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: another number of axes, or a value outside [0, 1].

    Example:
        >>> acceptance([[0.2, 0.4], [0.3, 0.5]]).axes[0].get_ylabel()
        'acceptance rate (fraction)'
    """
    rate = np.asarray(rate, dtype=float)
    if rate.ndim not in (1, 2, 3) or rate.size == 0:
        raise ValueError(
            f"rate must be (row,), (chain, row) or (chain, draw, row), got shape {rate.shape}."
        )
    if not ((rate >= 0) & (rate <= 1)).all():
        raise ValueError(
            f"rate must lie in [0, 1], got values from {rate.min()} to {rate.max()}. "
            "Divide counts by the number of proposals."
        )
    rate = rate.mean(axis=1) if rate.ndim == 3 else np.atleast_2d(rate)
    figure = new_figure(8, 3)
    axes = figure.add_subplot()
    for chain, values in enumerate(rate):
        label = f"chain {chain}" if len(rate) > 1 else None
        axes.plot(values, ".", markersize=_marker_size(len(values)), alpha=0.7, label=label)
    median = float(np.median(rate))
    _dashed_line(axes, median, f"median {median:.2f}")
    axes.set(ylim=(-0.03, 1.03), xlabel="row", ylabel="acceptance rate (fraction)")
    _outer_legend(axes)
    return figure


def _by_prefix(summary: Mapping[Any, Any], prefix: str) -> dict[str, NDArray[Any]]:
    series = {}
    for name in summary:
        if not str(name).startswith(prefix):
            continue
        values = np.asarray(summary[name], dtype=float)
        if values.shape == (0,):
            raise ValueError(f"{name} has no rows: nothing is missing, so nothing was drawn.")
        if values.ndim != 1:
            raise ValueError(f"{name} must have one value per row, (row,), got {values.shape}.")
        series[str(name)] = values
    return series


def _draw_series(
    axes: Axes,
    rows: NDArray[Any],
    series: Mapping[str, NDArray[Any]],
    limit: float,
    wrong_side: str,
) -> None:
    """Draw a few arrays over rows, the limit, and say how many rows are beyond it."""
    _dashed_line(axes, limit, f"limit {limit:g}")
    for name, values in series.items():
        beyond = values > limit if wrong_side == "above" else values < limit
        words = name.replace("rhat", "R-hat").replace("ess", "ESS").replace("_", " ")
        label = f"{words}: {beyond.sum()} of {len(values)} rows {wrong_side}"
        finite = np.isfinite(values)
        size, shown = _marker_size(len(values)), np.where(finite, values, np.nan)
        (line,) = axes.plot(rows, shown, ".", markersize=size, alpha=0.7, label=label)
        if finite.all():
            continue
        heights = np.full((~finite).sum(), 0.97 if wrong_side == "above" else 0.03)
        label = f"not finite: {len(heights)} of {len(values)} rows"
        place = axes.get_xaxis_transform()  # heights are fractions of the panel
        colour = line.get_color()
        axes.plot(rows[~finite], heights, "x", color=colour, transform=place, label=label)
    _outer_legend(axes)


def _scale_rhat(axes: Axes) -> None:
    """Stretch the neighbourhood of 1, where the limit lies, and compress what is far above."""
    forward, inverse = (lambda r: np.arcsinh((r - 1) / 0.01)), (lambda y: 1 + 0.01 * np.sinh(y))
    low, high = axes.dataLim.intervaly
    axes.set_yscale("function", functions=(forward, inverse))
    fine, coarse = [1.02, 1.05, 1.2, 1.5, 3, 5], [1, 1.01, 1.1, 2, 10, 100, 1000, 1e4, 1e6, 1e8]
    ticks = sorted(fine + coarse) if high < 10 else coarse
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_ylim(min(low, 1) - 0.001, 1 + 1.5 * max(high - 1, 0.02))


def _scale_ess(axes: Axes) -> None:
    """Show whole decades, so that at least two ticks have a number."""
    low, high = np.maximum(axes.dataLim.intervaly, 1.0)
    axes.set_yscale("log")
    axes.set_ylim(10 ** np.floor(np.log10(low * 0.99)), 10 ** np.ceil(np.log10(high * 1.01)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")


def _dashed_line(axes: Axes, height: float, label: str) -> None:
    axes.axhline(height, color="0.2", linewidth=1, linestyle="--", label=label, zorder=3)


def _marker_size(num_rows: int) -> float:
    return 6.0 if num_rows <= 200 else 3.0


def _outer_legend(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small")
