"""Where a decoder of pixels starts."""

import numpy as np
import pytest
from scipy.special import expit

from ppl_vae.pixels import pixel_logits

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


@pytest.mark.parametrize("value", [-0.1, 1.5, 255.0, np.inf])
def test_values_that_are_not_grey_are_named(value):
    x = GREY.copy()
    x[3, 1, 2] = value
    message = rf"\[0, 1\], got 1 outside, the first {value}.* index \(3, 1, 2\); divide .*255"
    with pytest.raises(ValueError, match=message):
        pixel_logits(x)


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
