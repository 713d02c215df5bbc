"""Pictures: what they show, what they are labelled with, and what they refuse."""

import builtins
import io
import sys
from typing import Any

import numpy as np
import pytest

from ppl_vae import masks, plots

matplotlib = pytest.importorskip("matplotlib")
NUM_CHAINS, NUM_DRAWS, NUM_ROWS = 3, 10, 5


def images(*event: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return truth, mask and completed draws."""
    rng = np.random.default_rng(0)
    truth = rng.random((NUM_ROWS, *event))
    mask = masks.mcar_bernoulli(rng, truth.shape)
    noise = rng.random((NUM_CHAINS, NUM_DRAWS, *truth.shape))
    return truth, mask, np.where(mask, truth, noise)


def shown(axes: Any) -> np.ndarray:
    return axes.images[0].get_array()


def png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=40)
    return file.getvalue()


def test_grid_shows_the_columns_it_names() -> None:
    truth, mask, draws = images(4, 6)
    figure = plots.image_grid(truth, mask, draws, rows=[3], num_draws=4)
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert list(panels) == [
        "truth",
        "observed",
        "chain 0\ndraw 9",
        "chain 1\ndraw 9",
        "chain 2\ndraw 9",
        "chain 0\ndraw 4",
        "mean",
        "standard\ndeviation",
    ]
    assert panels["truth"].get_ylabel() == "row 3"
    np.testing.assert_array_equal(shown(panels["truth"]), truth[3])
    np.testing.assert_array_equal(shown(panels["observed"]).mask, ~mask[3])
    np.testing.assert_array_equal(shown(panels["chain 0\ndraw 4"]), draws[0, 4, 3])
    np.testing.assert_array_equal(shown(panels["chain 2\ndraw 9"]), draws[2, 9, 3])
    np.testing.assert_allclose(shown(panels["mean"]), draws[:, :, 3].mean((0, 1)))
    spread = shown(panels["standard\ndeviation"])
    np.testing.assert_allclose(spread, draws[:, :, 3].std((0, 1)))
    assert spread[~mask[3]].min() > 1e3 * spread[mask[3]].max()
    assert png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("num_draws", [1, 3, 4, 7, NUM_CHAINS * NUM_DRAWS])
def test_grid_never_shows_a_draw_twice(num_draws: int) -> None:
    figure = plots.image_grid(*images(2, 2), rows=[0], num_draws=num_draws)
    titles = [axes.get_title() for axes in figure.axes if "chain" in axes.get_title()]
    assert len(set(titles)) == len(titles) == num_draws


def test_grid_has_grey_scales_shared_by_all_images_and_a_legend() -> None:
    truth, mask, draws = images(4, 4)
    figure = plots.image_grid(truth * 7, mask, draws * 7)
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels.count("pixel value") == 2
    assert labels.count("■ missing") == 1
    greys = [axes.images[0] for axes in figure.axes if axes.images][:7]
    assert len({image.get_clim() for image in greys}) == 1


@pytest.mark.parametrize(
    ("event", "image_shape"), [((12,), (3, 4)), ((1, 3, 4), None), ((36,), (3, 4))]
)
def test_grid_takes_flat_and_channelled_images(event: Any, image_shape: Any) -> None:
    truth, mask, draws = images(*event)
    figure = plots.image_grid(truth, mask, draws, image_shape=image_shape)
    first = shown(figure.axes[0])
    assert first.shape[:2] == (3, 4)
    if first.ndim == 2:
        np.testing.assert_array_equal(first.ravel(), truth[0].ravel())
    assert png(figure)


def test_colour_images_hide_missing_pixels() -> None:
    truth, _, draws = images(3, 4, 4)
    mask = masks.half(truth.shape, "left")
    figure = plots.image_grid(truth, mask, draws, rows=[0])
    opacity = shown(figure.axes[1])[..., 3]
    np.testing.assert_array_equal(opacity > 0, mask[0, 0])


def test_unknown_truth_is_shown_as_missing() -> None:
    truth, mask, draws = images(4, 4)
    figure = plots.image_grid(masks.with_nan(truth, mask), mask, draws, rows=[0])
    np.testing.assert_array_equal(shown(figure.axes[0]).mask, ~mask[0])


GOOD = images(4, 4)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((GOOD[0], GOOD[1].astype(int), GOOD[2]), {}, TypeError, "bool"),
        ((GOOD[0], GOOD[1][1:], GOOD[2]), {}, ValueError, r"\(5, 4, 4\), got \(4, 4, 4\)"),
        ((GOOD[0], GOOD[1], GOOD[2][0]), {}, ValueError, r"chain, draw.*got \(10, 5, 4, 4\)"),
        (GOOD, {"rows": [5]}, ValueError, "rows 0 to 4, got row 5"),
        (GOOD, {"rows": [-1]}, ValueError, "got row -1"),
        (GOOD, {"rows": []}, ValueError, "got none"),
        (GOOD, {"num_draws": 31}, ValueError, "between 1 and 30, got 31"),
        (GOOD, {"image_shape": (3, 4)}, ValueError, r"\(3, 4\) does not fit rows of 16"),
        (images(16), {}, ValueError, "image_shape="),
        (images(2, 4, 4), {}, ValueError, r"got \(2, 4, 4\)"),
    ],
)
def test_grid_refuses(arguments: Any, options: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        plots.image_grid(*arguments, **options)


def legend(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_convergence_counts_rows_beyond_the_limits() -> None:
    summary = {
        "rhat_max": [1.0, 1.02, 3e7, np.inf, np.nan],
        "rhat_median": [1.0, 1.0, 1.0, 1.0, 1.0],
        "ess_bulk_min": [500.0, 399.0, 4.0, 1e3, np.nan],
        "stuck": [False, False, True, True, True],
    }
    figure = plots.convergence(summary)
    upper, lower = figure.axes
    assert (upper.get_xlabel(), upper.get_ylabel()) == ("row", "R-hat")
    assert (lower.get_xlabel(), lower.get_ylabel()) == ("row", "effective sample size (draws)")
    assert legend(upper) == [
        "limit 1.01",
        "R-hat max: 3 of 5 rows above",
        "not finite: 2 of 5 rows",
        "R-hat median: 0 of 5 rows above",
    ]
    assert "ESS bulk min: 2 of 5 rows below" in legend(lower)
    assert upper.get_ylim()[1] > 3e7
    assert png(figure)


def test_convergence_takes_a_dataset_or_one_panel() -> None:
    xarray = pytest.importorskip("xarray")
    data = xarray.Dataset({"ess_tail_min": ("row", [100.0, 500.0])}, {"row": [3, 70]})
    figure = plots.convergence(data, ess_limit=50)
    assert len(figure.axes) == 1
    np.testing.assert_array_equal(figure.axes[0].lines[1].get_xdata(), [3, 70])
    assert "ESS tail min: 0 of 2 rows below" in legend(figure.axes[0])


def test_convergence_draws_even_when_nothing_is_finite() -> None:
    nothing = np.full(3, np.nan)
    assert png(plots.convergence({"rhat_max": nothing, "ess_bulk_min": nothing}))


@pytest.mark.parametrize(
    ("summary", "words"),
    [
        ({"stuck": [True]}, "begin with 'rhat' or 'ess', got stuck"),
        ({}, "got none"),
        ({"rhat_max": []}, "rhat_max has no rows: nothing is missing"),
        ({"rhat_max": [[1.0]]}, r"rhat_max must have one value per row, \(row,\), got \(1, 1\)"),
    ],
)
def test_convergence_refuses(summary: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plots.convergence(summary)


@pytest.mark.parametrize("shape", [(6,), (2, 6), (2, 30, 6)])
def test_acceptance_over_rows_and_chains(shape: tuple[int, ...]) -> None:
    rate = np.random.default_rng(0).random(shape)
    figure = plots.acceptance(rate)
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("row", "acceptance rate (fraction)")
    per_chain = rate.mean(axis=1) if len(shape) == 3 else np.atleast_2d(rate)
    assert legend(axes)[-1] == f"median {np.median(per_chain):.2f}"
    for line, values in zip(axes.lines, per_chain, strict=False):
        np.testing.assert_array_equal(line.get_ydata(), values)
    assert png(figure)


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (np.ones((2, 2, 2, 2)), r"got shape \(2, 2, 2, 2\)"),
        ([], r"got shape \(0,\)"),
        ([3.0, 0.5], r"from 0.5 to 3.0"),
        ([0.5, np.nan], "from nan"),
    ],
)
def test_acceptance_refuses(rate: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plots.acceptance(rate)


def test_plots_never_touch_pyplot(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def guarded(name: str, *args: Any, **kwargs: Any) -> Any:
        assert "pyplot" not in name
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", guarded)
    plots.image_grid(*GOOD)
    plots.acceptance([0.5])


def test_without_matplotlib_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'ppl-vae\[examples\]'"):
        plots.acceptance([0.5])
