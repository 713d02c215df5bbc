"""The parts of a grid of images: which draws to show, arrays as pictures, the figure itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec

__all__ = ["check_grid", "checked_rows", "draw_grid", "last_draws", "new_figure", "pictures"]

MISSING_COLOUR = "#e8833a"  # neither a grey nor on the colour map of the spread
_CELL = 0.85  # inches


def new_figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'ppl-vae[examples]'") from error
    return Figure(figsize=(width, height), layout="constrained", dpi=150)


def check_grid(
    truth: NDArray[Any], mask: NDArray[Any], draws: NDArray[Any], num_draws: int
) -> None:
    if mask.dtype != np.bool_:
        raise TypeError(f"mask must be bool, True = observed, got dtype {mask.dtype}.")
    if mask.shape != truth.shape:
        raise ValueError(f"mask must have the shape of truth, {truth.shape}, got {mask.shape}.")
    if draws.shape[2:] != truth.shape or draws.ndim == 2:
        raise ValueError(
            f"draws must be (chain, draw, *{truth.shape}), the shape of truth behind chain and "
            f"draw, got {draws.shape}."
        )
    available = draws.shape[0] * draws.shape[1]
    if not 1 <= num_draws <= available:
        raise ValueError(f"num_draws must lie between 1 and {available}, got {num_draws}.")


def checked_rows(rows: Sequence[int] | None, num_rows: int) -> list[int]:
    if rows is None:
        return list(range(min(8, num_rows)))
    wrong = [row for row in rows if not 0 <= row < num_rows]
    if wrong or not len(rows):
        found = f"row {wrong[0]}" if wrong else "none"
        raise ValueError(f"rows must name some of the rows 0 to {num_rows - 1}, got {found}.")
    return [int(row) for row in rows]


def last_draws(num_chains: int, num_draws: int, wanted: int) -> list[tuple[int, int]]:
    """Return (chain, draw) of the last draw of each chain, then of earlier ones, evenly spread."""
    stride = num_draws // -(-wanted // num_chains)
    return [(i % num_chains, num_draws - 1 - i // num_chains * stride) for i in range(wanted)]


def pictures(x: NDArray[Any], image_shape: tuple[int, int] | None) -> NDArray[Any]:
    """Return (row, height, width), or (row, height, width, 3) of colour images."""
    if image_shape is not None:
        channels = x.size // (len(x) * image_shape[0] * image_shape[1])
        if channels * len(x) * image_shape[0] * image_shape[1] != x.size:
            raise ValueError(
                f"image_shape {image_shape} does not fit rows of {x.size // len(x)} values."
            )
        x = x.reshape(len(x), channels, *image_shape)
    if x.ndim == 4 and x.shape[1] == 1:
        return x[:, 0]
    if x.ndim == 4 and x.shape[1] == 3:
        return np.moveaxis(x, 1, -1)
    if x.ndim != 3:
        raise ValueError(
            f"rows must be images (height, width), (1, height, width) or (3, height, width), got "
            f"{x.shape[1:]}. For flat rows give image_shape=(height, width)."
        )
    return x


def draw_grid(
    columns: list[NDArray[Any]], headings: list[str], spread: NDArray[Any], rows: list[int]
) -> Figure:
    """Draw columns of pictures under their headings, the spread last, colour bars below."""
    num_rows, num_columns = len(rows), len(columns) + 1
    figure = new_figure(_CELL * num_columns + 0.3, _CELL * num_rows + 1.3)
    places = figure.add_gridspec(num_rows + 1, num_columns, height_ratios=[1] * num_rows + [0.1])
    grid = np.array(
        [[figure.add_subplot(places[i, j]) for j in range(num_columns)] for i in range(num_rows)]
    )
    for axes, row in zip(grid[:, 0], rows, strict=True):
        axes.set_ylabel(f"row {row}", fontsize="small")
    values = np.concatenate([column[np.isfinite(column)] for column in columns])
    for number, (heading, images) in enumerate(zip(headings, columns, strict=True)):
        grid[0, number].set_title(heading, fontsize="small")
        grey = _show(grid[:, number], images, (values.min(), values.max()), "gray")
    grid[-1, 1].set_xlabel("\u25a0 missing", color=MISSING_COLOUR, fontsize="small")
    grid[0, -1].set_title("standard\ndeviation", fontsize="small")
    spread = spread.mean(axis=-1) if spread.ndim == 4 else spread
    deviation = _show(grid[:, -1], spread, (0, spread.max()), "viridis")
    if columns[0].ndim == 3:
        _colour_bar(figure, grey, places[-1, 2:-1])
    _colour_bar(figure, deviation, places[-1, -1])
    return figure


def _colour_bar(figure: Figure, image: Any, place: SubplotSpec) -> None:
    bar = figure.colorbar(image, cax=figure.add_subplot(place), orientation="horizontal")
    bar.ax.tick_params(labelsize="x-small")
    bar.set_label("pixel value", fontsize="small")


def _show(
    column: NDArray[Any], images: NDArray[Any], limits: tuple[float, float], colours: str
) -> Any:
    """Draw images below each other, their NaN pixels in the colour of the missing."""
    from matplotlib.colors import Normalize

    scale = Normalize(limits[0], max(limits[1], limits[0] + 1e-12), clip=True)
    for axes, image in zip(column, images, strict=True):
        axes.set(xticks=[], yticks=[], facecolor=MISSING_COLOUR)
        if image.ndim == 3:
            visible = ~np.isnan(image).any(axis=-1, keepdims=True)
            rgb = np.asarray(scale(np.where(visible, image, limits[0])))
            image = np.concatenate([rgb, visible], axis=-1)
        drawn = axes.imshow(np.ma.masked_invalid(image), norm=scale, cmap=colours)
    return drawn
