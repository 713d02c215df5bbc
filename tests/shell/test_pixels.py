"""Where a decoder of pixels starts, and pixels drawn from grey values."""

import numpy as np
import pytest
from scipy.special import expit

from ppl_vae.pixels import binarise, pixel_logits

GREY = np.random.default_rng(0).random((50, 2, 3)).astype(np.float32)
NAN = np.nan


def test_pixel_logits_are_those_of_the_means():
    came = pixel_logits(GREY)
    assert came.shape == (2, 3)
    assert came.dtype == np.float32
    np.testing.assert_allclose(expit(came), GREY.mean(0), rtol=1e-5)


def test_pixels_that_are_always_on_or_off_stay_finite():
    """As the reference code clips: 0.001 and 0.999."""
    came = pixel_logits([[0, 1, 0.0004], [0, 1, 0.0004]])
    np.testing.assert_allclose(came, np.log(999) * np.array([-1, 1, -1]), rtol=1e-6)


@pytest.mark.parametrize("how", ["nan", "mask"])
def test_missing_pixels_do_not_count(how):
    x = np.array([[1.0, 0.2, 0.3], [0.0, 0.4, 0.3], [0.25, 0.0, 0.3]])
    mask = np.array([[True, True, False], [True, True, False], [True, False, False]])
    args = (np.where(mask, x, NAN),) if how == "nan" else (np.where(mask, x, 9.0), mask)
    np.testing.assert_allclose(expit(pixel_logits(*args)), [1.25 / 3, 0.3, 0.5], rtol=1e-5)


def test_binarise_draws_each_pixel_with_its_grey_value():
    """False alarms: 3e-6 a pixel, by the standard error of 4000 draws of 6 pixels."""
    grey = GREY[0]
    drawn = binarise(np.random.default_rng(1), np.broadcast_to(grey, (4000, 2, 3)))
    assert drawn.dtype == np.float32
    assert set(np.unique(drawn)) == {0, 1}
    error = np.sqrt(grey * (1 - grey) / 4000)
    assert (np.abs(drawn.mean(0) - grey) < 5 * error).all()


def test_binarise_is_static():
    first, again, other = (binarise(np.random.default_rng(s), GREY) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_binarise_keeps_what_is_missing_missing():
    drawn = binarise(np.random.default_rng(0), [[0.0, NAN], [NAN, 1.0]])
    np.testing.assert_array_equal(drawn, [[0, NAN], [NAN, 1]])


@pytest.mark.parametrize("value", [-0.1, 1.5, 255.0, np.inf])
def test_values_that_are_not_grey_are_named(value):
    x = GREY.copy()
    x[3, 1, 2] = value
    message = rf"\[0, 1\], got 1 outside, the first {value}.* index \(3, 1, 2\); divide .*255"
    with pytest.raises(ValueError, match=message):
        pixel_logits(x)
    with pytest.raises(ValueError, match=message):
        binarise(np.random.default_rng(0), x)


@pytest.mark.parametrize(
    ("x", "mask"),
    [
        (np.zeros((0, 4)), None),
        (np.zeros(4), None),
        (np.zeros((3, 4)), np.ones((3, 5), bool)),
        (np.zeros((3, 4)), np.ones((3, 4))),
    ],
    ids=["no rows", "one axis", "mask of another shape", "mask of numbers"],
)
def test_data_without_rows_or_with_another_mask_are_refused(x, mask):
    with pytest.raises(ValueError, match=r"shape \(rows, \*event\).* the mask, of bools"):
        pixel_logits(x, mask)
