"""Summaries of gradients and their picture."""

import io

import numpy as np
import pytest

from ppl_vae.gradients import summarise_gradients
from ppl_vae.plots import gradient_quality

RNG = np.random.default_rng(0)


def dataset(variance=1.0):
    rng = np.random.default_rng(0)
    moments = {
        (name, k): {
            b: (rng.random(3) / k, np.full(3, variance / k)) for b in ("encoder", "decoder")
        }
        for name in ("iwae", "dreg")
        for k in (1, 5, 50)
    }
    return summarise_gradients(moments, ["iwae", "dreg"], [1, 5, 50])


def test_entries_that_never_move_do_not_count():
    mean, variance = np.array([2.0, 0.0, 0.0]), np.array([4.0, 1.0, 0.0])
    ds = summarise_gradients({("iwae", 1): {"b": (mean, variance)}}, ["iwae"], [1]).squeeze()
    assert (ds.norm, ds.variance, ds.snr) == (2.0, 5.0, 0.5)


def test_a_block_that_never_moves_has_no_ratio():
    nothing = (np.zeros(3), np.zeros(3))
    ds = summarise_gradients({("iwae", 1): {"b": nothing}}, ["iwae"], [1])
    assert np.isnan(ds.snr.values).all()
    gradient_quality(ds)


@pytest.mark.parametrize("mean", [[1.0, 2.0], [0.0, 0.0]])
def test_an_entry_without_noise_has_an_infinite_ratio(mean):
    """The picture leaves it out, and its limits are those of the other ratios."""
    pytest.importorskip("matplotlib")
    noise_free = np.array(mean), np.zeros(2)
    other = np.array([3.0, 3.0]), np.ones(2)
    moments = {
        ("iwae", 1): {"first": noise_free, "second": other},
        ("iwae", 5): {"first": noise_free, "second": noise_free},
    }
    ds = summarise_gradients(moments, ["iwae"], [1, 5])
    assert np.isinf(ds.snr.sel(block="first").values).all() == any(mean)
    figure = gradient_quality(ds)
    assert [figure.axes[i].get_yscale() for i in (0, 1)] == ["linear", "log"]
    low, high = figure.axes[1].get_ylim()
    assert low < 3 < high < 100
    figure.savefig(io.BytesIO(), format="png", dpi=20)


def test_the_picture_has_a_panel_for_each_block_and_number():
    pytest.importorskip("matplotlib")
    figure = gradient_quality(dataset())
    panels = figure.axes
    assert [axes.get_title() for axes in panels[:2]] == ["encoder", "decoder"]
    labels = [
        "signal-to-noise ratio",
        "variance,\nsummed over entries",
        "norm of\nthe mean gradient",
    ]
    assert [axes.get_ylabel() for axes in panels[::2]] == labels
    assert [axes.get_xlabel() for axes in panels[-2:]] == ["particles a row"] * 2
    assert {(axes.get_xscale(), axes.get_yscale()) for axes in panels} == {("log", "log")}
    assert [t.get_text() for t in panels[1].get_legend().get_texts()] == ["iwae", "dreg"]
    line, _ = panels[0].get_lines()
    np.testing.assert_array_equal(line.get_xdata(), [1, 5, 50])


def test_another_dataset_is_refused():
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="it lacks snr"):
        gradient_quality(dataset().drop_vars("snr"))
