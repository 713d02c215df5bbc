"""Mechanisms: what they sample against what they say they do, by counting and by enumeration.

Chi-square and binomial tests at a false-alarm rate of 1e-6 over seeds; the seeds are fixed.
"""

from itertools import product

import numpy as np
import pytest
from oracles import excess_of_counts, largest_score
from scipy.special import expit
from scipy.stats import betabinom

from ppl_vae.missingness import (
    Logistic,
    Patterns,
    Squares,
    class_squares,
    halves,
    mar_logistic,
    mcar,
    mnar_logistic,
    mnar_self_logistic,
    quadrants,
)

X = np.random.default_rng(0).normal(size=(2_000, 4))
LOGISTIC = {"MAR": mar_logistic, "MNAR": mnar_logistic, "self": mnar_self_logistic}
ALL_MASKS = np.array(list(product([False, True], repeat=4)))


def logistic(name, missing=0.4):
    return LOGISTIC[name](np.random.default_rng(1), X, missing)


def every_mask(shape=(4,)):
    return ALL_MASKS.reshape(-1, *shape)


@pytest.mark.parametrize("name", LOGISTIC)
def test_logistic_density_is_that_of_its_samples(name):
    """16 masks, 4 rows, 4,000 samples each."""
    mechanism, rng = logistic(name), np.random.default_rng(2)
    for x in X[:4]:
        rows = np.tile(x, (16, 1))
        probability = np.exp(mechanism.log_prob(every_mask(), rows))
        assert probability.sum() == pytest.approx(1)
        masks = mechanism.sample(rng, np.tile(x, (4_000, 1)))
        counts = np.bincount(masks @ [8, 4, 2, 1], minlength=16)
        assert excess_of_counts(counts[None], 4_000 * probability[None]) > 1e-6


def test_logistic_density_by_hand():
    mechanism = Logistic(np.array([[0.0, 2.0], [0.5, 0.0]]), np.array([-1.0, 0.3]))
    x, mask = np.array([[1.0, -2.0]]), np.array([[True, False]])
    lost = expit([0.5 * -2.0 - 1.0, 2.0 * 1.0 + 0.3])
    assert mechanism.log_prob(mask, x)[0] == pytest.approx(np.log((1 - lost[0]) * lost[1]))


@pytest.mark.parametrize("missing", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("name", LOGISTIC)
def test_logistic_loses_the_share_that_was_asked_for(name, missing):
    lost = logistic(name, missing).probability(X).mean(0)
    inputs = lost == 0
    assert inputs.sum() == (1 if name == "MAR" else 0)
    np.testing.assert_allclose(lost[~inputs], missing, atol=1e-9)


def test_what_each_mechanism_looks_at():
    """MAR: at what stays; MNAR: at inputs that get lost; self-masking: at the entry itself."""
    mar, mnar, own = logistic("MAR"), logistic("MNAR"), logistic("self")
    never_lost = np.isneginf(mar.bias)
    assert (mar.weights[~never_lost] == 0).all()
    assert (mar.weights[never_lost] != 0).any()
    lost_inputs = (mnar.weights != 0).any(1)
    assert lost_inputs.any()
    assert (mnar.probability(X)[:, lost_inputs] > 0).all()
    np.testing.assert_array_equal(own.weights != 0, np.eye(4, dtype=bool))


def test_mcar_is_a_binomial():
    mechanism = mcar(4, missing=0.25)
    expected = np.log(0.25) * (~every_mask()).sum(1) + np.log(0.75) * every_mask().sum(1)
    np.testing.assert_allclose(mechanism.log_prob(every_mask(), np.zeros((16, 4))), expected)
    for missing, observed in ((0.0, True), (1.0, False)):
        mask = mcar(4, missing).sample(np.random.default_rng(0), X)
        assert (mask == observed).all()
        assert (mcar(4, missing).log_prob(mask, X) == 0).all()


PATTERNS = {
    "halves": (halves((2, 2)), 4, 2),
    "one quadrant": (quadrants((2, 2)), 4, 1),
    "two quadrants": (quadrants((2, 2), 2), 6, 2),
    "three quadrants": (quadrants((2, 2), 3), 4, 3),
}


@pytest.mark.parametrize(("mechanism", "number", "lost"), PATTERNS.values(), ids=PATTERNS)
def test_patterns_have_equal_probability(mechanism, number, lost):
    probability = np.exp(mechanism.log_prob(every_mask((2, 2)), np.zeros((16, 2, 2))))
    chosen = (~every_mask()).sum(1) == lost
    assert (probability > 0).sum() == number
    assert chosen[probability > 0].all()
    np.testing.assert_allclose(probability[probability > 0], 1 / number)
    masks = mechanism.sample(np.random.default_rng(3), np.zeros((4_000, 2, 2)))
    counts = np.bincount(masks.reshape(-1, 4) @ [8, 4, 2, 1], minlength=16)
    assert excess_of_counts(counts[None], 4_000 * probability[None]) > 1e-6


def test_squares_of_a_class():
    mechanism = class_squares((1, 4, 6), num_classes=3, size=2)
    assert mechanism.patterns.shape == (6, 1, 4, 6)
    assert ((~mechanism.patterns).sum((1, 2, 3)) == 4).all()
    assert (~mechanism.patterns).sum(0).min() == (~mechanism.patterns).sum(0).max() == 1
    mean = np.array([1, 3, 5]) / 6
    expected = [betabinom.pmf(np.arange(6), 5, 5 * m, 5 * (1 - m)) for m in mean]
    np.testing.assert_allclose(mechanism.probability, expected)

    of_class = np.array([0.2, 0.0, 0.8])
    rows = np.zeros((6, 1, 4, 6))
    log_prob = mechanism.log_prob(mechanism.patterns, rows, np.tile(of_class, (6, 1)))
    np.testing.assert_allclose(np.exp(log_prob), of_class @ expected)
    masks = mechanism.sample(
        np.random.default_rng(4), np.zeros((3_000, 1, 4, 6)), np.tile(of_class, (3_000, 1))
    )
    counts = [(masks == pattern).all((1, 2, 3)).sum() for pattern in mechanism.patterns]
    assert excess_of_counts(np.array([counts]), 3_000 * np.exp(log_prob)[None]) > 1e-6


def test_squares_lie_where_the_beta_binomial_says():
    num_rows = 5_000
    lost = ~Squares(2, spread=2.0).sample(np.random.default_rng(5), np.zeros((num_rows, 3, 5, 6)))
    assert (lost == lost[:, :1]).all()
    assert (lost[:, 0].sum((1, 2)) == 4).all()
    for axis, length in ((1, 6), (2, 5)):
        place = lost[:, 0].any(axis).argmax(1)
        law = betabinom.pmf(np.arange(length - 1), length - 2, 2.0, 2.0)
        counts = np.bincount(place, minlength=length - 1)
        assert excess_of_counts(counts[None], num_rows * law[None]) > 1e-6


def test_number_of_squares():
    """One or two single pixels of 100: they fall together in 1 % of the rows at most."""
    mechanism = Squares(1, counts=(0.3, 0.7), spread=1.0)
    lost = ~mechanism.sample(np.random.default_rng(6), np.zeros((4_000, 10, 10)))
    share = (lost.sum((1, 2)) == 2).mean()
    expected = 0.7 * (1 - 0.01)
    error = np.sqrt(expected * (1 - expected) / 4_000)
    assert abs(share - expected) < largest_score(1, 1e-6) * error


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mcar(3, 1.5), r"missing must lie in \[0, 1\], got 1.5"),
        (lambda: logistic("MAR", 0.0), r"missing must lie in \(0, 1\), got 0"),
        (lambda: mar_logistic(np.random.default_rng(0), X[:, :1]), "two features or more"),
        (lambda: mnar_logistic(np.random.default_rng(0), X, 0.5, 1.0), "share_inputs"),
        (lambda: mnar_self_logistic(np.random.default_rng(0), [[np.nan]]), "complete and finite"),
        (lambda: Patterns(np.ones((2, 3), bool), np.full((1, 2), 0.5)), "all be different"),
        (lambda: Patterns(np.eye(2, dtype=bool), np.ones((1, 2))), "sum to 1"),
        (lambda: Patterns(np.eye(2, dtype=bool), np.ones(2) / 2), r"shape \(classes, 2\)"),
        (lambda: class_squares((4, 5), 2, 2), "size must divide"),
        (lambda: class_squares((4, 4), 1, 2), "num_classes must be at least 2"),
        (lambda: Squares(1).sample(np.random.default_rng(0), np.zeros((2, 4))), "must be images"),
        (lambda: Squares(5).sample(np.random.default_rng(0), np.zeros((1, 4, 9))), "size must lie"),
        (
            lambda: class_squares((4, 4), 3, 2).sample(
                np.random.default_rng(0), np.zeros((2, 4, 4))
            ),
            "3 classes: give the rows' class probabilities",
        ),
        (
            lambda: class_squares((4, 4), 3, 2).log_prob(
                np.ones((2, 4, 4), bool), np.zeros((2, 4, 4)), np.ones((2, 2))
            ),
            r"of_class must have shape \(2, 3\)",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("weights", "bias", "message"),
    [
        (np.eye(3), np.zeros(2), r"got \(3, 3\) and \(2,\)"),
        (np.ones((2, 3)), np.zeros(3), r"got \(2, 3\) and \(3,\)"),
        (np.zeros(3), np.zeros(3), r"got \(3,\) and \(3,\)"),
        (np.eye(3), np.zeros((3, 1)), r"got \(3, 3\) and \(3, 1\)"),
    ],
)
def test_logistic_weights_and_bias_fit_each_other(weights, bias, message):
    with pytest.raises(ValueError, match=rf"weights must have shape \(D, D\) and bias.*{message}"):
        Logistic(weights, bias)


def test_logistic_takes_lists():
    mask = Logistic([[0.0, 0.0], [0.0, 0.0]], [np.inf, -np.inf]).sample(
        np.random.default_rng(0), np.zeros((3, 2))
    )
    np.testing.assert_array_equal(mask, [[False, True]] * 3)


@pytest.mark.parametrize("ask", ["sample", "log_prob"])
def test_logistic_takes_complete_rows_of_its_own_width(ask):
    """A NaN would make its row's probabilities NaN, and every entry of it lost."""
    mechanism, first = logistic("self"), {"sample": np.random.default_rng(0), "log_prob": ALL_MASKS}
    x = X[: len(ALL_MASKS)].copy()
    with pytest.raises(ValueError, match=r"must have 4 features a row.*got shape \(16, 3\)"):
        getattr(mechanism, ask)(first[ask], x[:, :3])
    x[0, 1] = np.nan
    with pytest.raises(ValueError, match="x must be complete and finite"):
        getattr(mechanism, ask)(first[ask], x)


@pytest.mark.parametrize("mechanism", [mcar(4), halves((2, 2))], ids=["logistic", "patterns"])
def test_log_prob_takes_masks_of_the_shape_and_type_of_masks(mechanism):
    shape = (3, 4) if isinstance(mechanism, Logistic) else (3, 2, 2)
    x, mask = np.zeros(shape), np.ones(shape, bool)
    assert mechanism.log_prob(mask, x).shape == (3,)
    for wrong in (mask[:1], mask.reshape(3, *shape[:0:-1], 1), mask[0]):
        with pytest.raises(ValueError, match=r"the mask must have the shape of x.*got \("):
            mechanism.log_prob(wrong, x)
    for wrong in (np.full(shape, np.nan), np.ones(shape), np.ones(shape, int)):
        with pytest.raises(TypeError, match=r"mask of x must be bool.*got dtype"):
            mechanism.log_prob(wrong, x)


def test_patterns_take_rows_of_their_own_shape():
    with pytest.raises(ValueError, match=r"rows of shape \(2, 2\).*got \(3, 4, 1\)"):
        halves((2, 2)).log_prob(np.ones((3, 4, 1), bool), np.zeros((3, 4, 1)))
    with pytest.raises(ValueError, match=r"rows of shape \(8, 8\).*got \(5, 64\)"):
        halves((8, 8)).sample(np.random.default_rng(0), np.zeros((5, 64)))


@pytest.mark.parametrize("row", [[1.5, -0.5, 0.0], [0.2, 0.2, 0.2], [np.nan, 0.5, 0.5]])
def test_classes_of_rows_are_probabilities(row):
    mechanism, x = class_squares((4, 4), 3, 2), np.zeros((2, 4, 4))
    of_class = np.array([[0.2, 0.3, 0.5], row])
    with pytest.raises(ValueError, match=r">= 0 and sum to 1, got .* at row 1"):
        mechanism.sample(np.random.default_rng(0), x, of_class)
    with pytest.raises(ValueError, match=r">= 0 and sum to 1, got .* at row 1"):
        mechanism.log_prob(np.ones(x.shape, bool), x, of_class)


@pytest.mark.parametrize("num_missing", [0, 4, 5])
def test_quadrants_out_of_range(num_missing):
    with pytest.raises(ValueError, match=f"num_missing must be 1, 2 or 3.*got {num_missing}"):
        quadrants((4, 4), num_missing)
