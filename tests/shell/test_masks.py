"""Patterns of missingness, and the gate for incomplete data."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ppl_vae import masks

SHAPE = (6, 3, 8, 7)
PATTERNS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "mcar_fraction": lambda rng: masks.mcar_fraction(rng, SHAPE, 0.3),
    "mcar_bernoulli": lambda rng: masks.mcar_bernoulli(rng, SHAPE, 0.3),
    "mcar_count": lambda rng: masks.mcar_count(rng, SHAPE, 5),
    "half": lambda _: masks.half(SHAPE, "left"),
    "quadrant": lambda _: masks.quadrant(SHAPE, "top_right"),
    "quadrants": lambda rng: masks.quadrants(rng, SHAPE, 2),
    "square": lambda rng: masks.square(rng, SHAPE, 3),
    "rectangle": lambda rng: masks.rectangle(rng, SHAPE, height=(2, 4), width=3),
}
IMAGE_PATTERNS = ["half", "quadrant", "quadrants", "square", "rectangle"]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", PATTERNS)
def test_every_pattern_is_a_writable_bool_array_set_by_the_seed(name: str) -> None:
    first, second = PATTERNS[name](rng()), PATTERNS[name](rng())
    assert first.shape == SHAPE
    assert first.dtype == np.bool_
    assert first.flags.writeable
    assert first.any()
    assert not first.all()
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", IMAGE_PATTERNS)
def test_channels_share_the_mask_of_an_image(name: str) -> None:
    mask = PATTERNS[name](rng())
    np.testing.assert_array_equal(mask, np.broadcast_to(mask[:, :1], SHAPE))


@pytest.mark.parametrize("name", sorted(set(PATTERNS) - {"half", "quadrant"}))
def test_random_patterns_differ_between_rows(name: str) -> None:
    mask = PATTERNS[name](rng())
    assert len(np.unique(mask.reshape(len(mask), -1), axis=0)) > 1


@pytest.mark.parametrize("missing", [0.0, 0.1, 0.5, 1.0])
def test_fraction_is_exact(missing: float) -> None:
    mask = masks.mcar_fraction(rng(), (7, 11), missing)
    assert (~mask).sum() == round(missing * 77)


def test_fraction_is_uniform_over_entries() -> None:
    hidden = sum(~masks.mcar_fraction(rng(seed), (3, 5), 0.4) for seed in range(2_000))
    # Each of 15 counts is binomial(2000, 0.4): 5 standard deviations, false alarm below 1e-5.
    assert np.abs(hidden - 800).max() < 5 * np.sqrt(2_000 * 0.4 * 0.6)


def test_bernoulli_rate_and_its_ends() -> None:
    mask = masks.mcar_bernoulli(rng(), (1_000, 100), 0.25)
    # Binomial(1e5, 0.25): 5 standard deviations, false alarm below 1e-6.
    assert abs((~mask).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 1e5)
    assert masks.mcar_bernoulli(rng(), (50, 50), 0.0).all()
    assert not masks.mcar_bernoulli(rng(), (50, 50), 1.0).any()


def test_count_is_exact_in_every_row_and_uniform_over_entries() -> None:
    counts = np.arange(4_000) % 7
    mask = masks.mcar_count(rng(), (4_000, 2, 3), counts)
    np.testing.assert_array_equal((~mask).sum(axis=(1, 2)), counts)
    one = ~masks.mcar_count(rng(), (6_000, 6), 1)
    assert np.abs(one.sum(axis=0) - 1_000).max() < 5 * np.sqrt(6_000 / 6 * 5 / 6)


@pytest.mark.parametrize("height", [4, 5])
@pytest.mark.parametrize(("side", "other"), [("top", "bottom"), ("left", "right")])
def test_opposite_halves_are_complements(side: Any, other: Any, height: int) -> None:
    shape = (2, height, height)
    mask = masks.half(shape, side)
    np.testing.assert_array_equal(mask, ~masks.half(shape, other))
    first_line = mask[0, 0] if side == "top" else mask[0, :, 0]
    assert not first_line.any()
    assert (~mask[0]).sum() == (height // 2) * height


def test_quadrants_partition_the_image_and_agree_with_halves() -> None:
    shape = (1, 5, 4)
    missing = sum(~masks.quadrant(shape, corner) for corner in masks.CORNERS)
    np.testing.assert_array_equal(missing, np.ones(shape))
    top = masks.quadrant(shape, ["top_left", "top_right"])
    np.testing.assert_array_equal(top, masks.half(shape, "top"))
    left = masks.quadrant(shape, ["top_left", "bottom_left"])
    np.testing.assert_array_equal(left, masks.half(shape, "left"))


def test_random_quadrants_are_whole_and_equally_likely() -> None:
    mask = masks.quadrants(rng(), (4_000, 4, 4), num_missing=1)
    corners = [masks.quadrant((1, 4, 4), corner) for corner in masks.CORNERS]
    counts = np.array([(mask == corner).all(axis=(1, 2)).sum() for corner in corners])
    assert counts.sum() == 4_000
    assert np.abs(counts - 1_000).max() < 5 * np.sqrt(4_000 * 0.25 * 0.75)


def test_rectangles_are_solid_and_reach_every_place() -> None:
    missing = ~masks.rectangle(rng(), (2_000, 5, 6), height=(1, 3), width=2)
    lines, columns = missing.any(axis=2), missing.any(axis=1)
    np.testing.assert_array_equal(missing, lines[:, :, None] & columns[:, None, :])
    assert set(lines.sum(axis=1)) == {1, 2, 3}
    assert set(columns.sum(axis=1)) == {2}
    np.testing.assert_array_equal(np.abs(np.diff(lines.astype(int), axis=1)).sum(1) <= 2, True)
    assert missing[:, 0, 0].any()
    assert missing[:, -1, -1].any()
    # A column of width 2 starts at one of 5 places with equal chance.
    starts = np.bincount(columns.argmax(axis=1), minlength=5)
    assert np.abs(starts - 400).max() < 5 * np.sqrt(2_000 * 0.2 * 0.8)


def test_square_may_fill_the_image() -> None:
    assert not masks.square(rng(), (2, 4, 4), size=4).any()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: masks.mcar_fraction(rng(), (2, 3), 1.5), ValueError, r"\[0, 1\], got 1.5"),
        (lambda: masks.mcar_fraction(rng(), (2, 3), float("nan")), ValueError, "got nan"),
        (lambda: masks.mcar_bernoulli(rng(), (2, 3), -0.1), ValueError, "got -0.1"),
        (lambda: masks.mcar_bernoulli(rng(), (0, 3)), ValueError, r"got \(0, 3\)"),
        (lambda: masks.mcar_count(rng(), (2, 3), 4), ValueError, "the 3 entries of a row, got 4"),
        (lambda: masks.mcar_count(rng(), (2, 3), -1), ValueError, "got -1"),
        (lambda: masks.mcar_count(rng(), (2, 3), 1.0), TypeError, "integer"),
        (lambda: masks.mcar_count(rng(), (2, 3), [1, 1, 1]), ValueError, r"got shape \(3,\)"),
        (lambda: masks.half((2, 8, 8), "up"), ValueError, "top, bottom, left, right, got 'up'"),
        (lambda: masks.half((2, 64)), ValueError, "reshape"),
        (lambda: masks.quadrant((2, 8, 8), "top"), ValueError, "top_left.*got 'top'"),
        (lambda: masks.quadrants(rng(), (2, 8, 8), 5), ValueError, "got 5"),
        (lambda: masks.square(rng(), (2, 8, 6), 7), ValueError, "image's 6 pixels"),
        (lambda: masks.square(rng(), (2, 8, 6), 0), ValueError, "got 0"),
        (lambda: masks.square(rng(), (2, 8, 6), 2.5), TypeError, "got 2.5"),
        (
            lambda: masks.rectangle(rng(), (2, 8, 6), height=(3, 2), width=1),
            ValueError,
            r"least first\), got \(3, 2\)",
        ),
        (lambda: masks.mask_from_nan(np.ones((2, 2), int)), TypeError, "cannot hold NaN"),
        (lambda: masks.with_nan(np.ones((2, 2), int), np.ones((2, 2), bool)), TypeError, "astype"),
        (lambda: masks.with_nan(np.ones((2, 2)), np.ones((2, 2))), TypeError, "must be bool"),
    ],
)
def test_bad_arguments_are_named(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_nan_and_mask_are_two_writings_of_one_thing() -> None:
    x = rng().normal(size=(4, 5)).astype(np.float32)
    mask = masks.mcar_fraction(rng(1), x.shape)
    incomplete = masks.with_nan(x, mask)
    assert incomplete.dtype == np.float32
    assert np.isfinite(x).all()
    np.testing.assert_array_equal(masks.mask_from_nan(incomplete), mask)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.uint8, bool])
@pytest.mark.parametrize("order", ["C", "F"])
def test_gate_keeps_type_and_observed_bits(dtype: Any, order: Any) -> None:
    x = np.asarray(rng().integers(0, 2, (4, 3, 2)), dtype=dtype, order=order)
    x[0, 0, 0] = -0.0 if np.issubdtype(dtype, np.floating) else 1
    mask = masks.mcar_bernoulli(rng(1), x.shape)
    mask[0, 0, 0] = True
    before, mask_before = x.copy(), mask.copy()
    filled, observed = masks.check_data(x, mask)
    assert filled.dtype == x.dtype
    assert filled[mask].tobytes() == x[mask].tobytes()
    assert not filled[~mask].any()
    np.testing.assert_array_equal(observed, mask)
    filled[:], observed[:] = 1, True
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(mask, mask_before)


def test_gate_reads_nan_as_missing_and_fills_whatever_is_hidden() -> None:
    filled, mask = masks.check_data([[1.0, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(filled, [[1, 0], [0, 0]])
    np.testing.assert_array_equal(mask, [[True, False], [False, False]])
    hidden = np.array([[1.0, np.inf, np.nan]])
    filled, _ = masks.check_data(hidden, [[True, False, False]])
    np.testing.assert_array_equal(filled, [[1, 0, 0]])
    filled, mask = masks.check_data([1.0, np.nan])
    assert filled.shape == mask.shape == (2,)


GOOD = np.ones((3, 4))
SEEN = np.ones((3, 4), bool)


def spoilt(value: float) -> np.ndarray:
    x = np.ones((3, 4))
    x[1, 2] = x[2, 0] = value
    return x


@pytest.mark.parametrize(
    ("x", "mask", "error", "words"),
    [
        (GOOD, SEEN[:2], ValueError, r"shape of obs, \(3, 4\), got \(2, 4\).*broadcast_to"),
        (GOOD, SEEN[0], ValueError, r"got \(4,\)"),
        (GOOD, SEEN.astype(int), TypeError, r"bool, True = observed, got dtype int64.*astype"),
        (GOOD, SEEN.astype(float), TypeError, "got dtype float64"),
        (spoilt(np.nan), SEEN, ValueError, r"obs is nan at row 1, feature 2.*\(2 such.*isnan"),
        (spoilt(np.inf), None, ValueError, "obs is inf at row 1, feature 2.*finite"),
        (spoilt(-np.inf), SEEN, ValueError, "obs is -inf at row 1, feature 2"),
        (spoilt(np.inf)[:, None], None, ValueError, r"row 1, feature \(0, 2\)"),
        (spoilt(np.inf)[:, 0], None, ValueError, "obs is inf at row 2, which"),
        (np.ones((0, 4)), None, ValueError, "zero rows"),
        (np.ones((3, 0)), None, ValueError, "rows without entries"),
        (1.0, None, ValueError, "single value"),
        (GOOD.astype(int), None, TypeError, "int64, which cannot hold NaN.*mask=obs != -1"),
        (GOOD.astype(bool), None, TypeError, "bool, which cannot hold NaN"),
        (GOOD.astype(object), None, TypeError, "dtype object.*dtype=float"),
        (GOOD.astype(complex), SEEN, TypeError, "dtype complex128"),
        (GOOD.astype(str), SEEN, TypeError, "dtype <U"),
        (np.ma.masked_invalid(spoilt(np.nan)), None, TypeError, "masked array.*getmaskarray"),
    ],
)
def test_gate_names_the_fault_and_the_remedy(
    x: Any, mask: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        masks.check_data(x, mask, site="obs")
