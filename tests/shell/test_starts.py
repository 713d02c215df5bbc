"""Starts of chains: what is observed stays, what is missing has the law that the name says."""

import numpy as np
import pytest
from scipy.stats import kstest

from ppl_vae.starts import hot_deck, random_binary, random_uniform

MASK = np.random.default_rng(0).random((40, 3, 2)) < 0.5
X = np.where(MASK, np.random.default_rng(1).normal(size=MASK.shape), np.nan).astype("float32")
STARTS = [random_binary, random_uniform, hot_deck]


@pytest.mark.parametrize("start", STARTS)
def test_observed_entries_stay_and_chains_differ(start):
    found = start(np.random.default_rng(2), X, 4)
    assert found.shape == (4, *X.shape)
    assert found.dtype == X.dtype
    np.testing.assert_array_equal(found[:, MASK], np.repeat(X[MASK][None], 4, 0))
    assert np.isfinite(found).all()
    assert (found[0] != found[1]).any()
    with_mask = start(np.random.default_rng(2), np.nan_to_num(X), 4, mask=MASK)
    np.testing.assert_array_equal(found, with_mask)


def test_coins_and_uniform_draws():
    """25,000 draws: a share within five standard errors, a test of the law at 1e-6."""
    missing = random_binary(np.random.default_rng(3), X, 200, probability=0.3)[:, ~MASK]
    assert set(np.unique(missing)) == {0, 1}
    assert abs(missing.mean() - 0.3) < 5 * (0.3 * 0.7 / missing.size) ** 0.5
    missing = random_uniform(np.random.default_rng(3), X, 200, low=-2, high=3)[:, ~MASK]
    assert kstest(missing.ravel(), "uniform", (-2, 5)).pvalue > 1e-6


def test_donors_are_of_the_same_feature():
    """And each as likely as the others."""
    found = hot_deck(np.random.default_rng(4), X, 500)
    for feature in np.ndindex(3, 2):
        at = (..., *feature)
        donors, drawn = X[at][MASK[at]], found[at][:, ~MASK[at]]
        values, counts = np.unique(drawn, return_counts=True)
        np.testing.assert_array_equal(values, np.sort(donors))
        expected = drawn.size / len(donors)
        assert np.abs(counts - expected).max() < 6 * expected**0.5


def test_what_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="num_chains must be at least 1, got 0"):
        random_binary(rng, X, 0)
    with pytest.raises(ValueError, match=r"probability must lie in \[0, 1\], got 1.5"):
        random_binary(rng, X, 2, probability=1.5)
    with pytest.raises(ValueError, match="high must be above low, got low=1 and high=1"):
        random_uniform(rng, X, 2, low=1, high=1)
    unseen = X.copy()
    unseen[:, 1, 0] = np.nan
    with pytest.raises(ValueError, match=r"Feature \(1, 0\) is observed in no row"):
        hot_deck(rng, unseen, 2)
    with pytest.raises(TypeError, match="dtype int64, which cannot hold uniform draws"):
        random_uniform(rng, np.ones((4, 2), np.int64), 2, mask=np.ones((4, 2), bool))
