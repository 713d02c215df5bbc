import warnings

import numpy as np
import pytest
from scipy.special import logsumexp

from ppl_vae.importance import (
    ess,
    importance_weighted_bounds,
    pareto_khat,
    pareto_smooth,
    perplexity,
)


def weights(shape, k, seed=0):
    """Log-weights whose tail has the shape k: w = u^-k."""
    return -k * np.log(np.random.default_rng(seed).uniform(size=shape))


def arviz_psis(log_weights):
    """ArviZ's smoothed, normalised log-weights and k-hat of each row."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz
    if not hasattr(arviz, "psislw") or not arviz.__version__.startswith("0."):
        pytest.skip("the peer is ArviZ 0.x: the sign of psislw's argument changed in 1.x")
    with np.errstate(all="ignore"):
        smoothed, khat = zip(*(arviz.psislw(row.copy()) for row in log_weights), strict=True)
    return np.array(smoothed), np.array(khat)


def awkward_weights(num_draws):
    rng = np.random.default_rng(0)
    return np.concatenate(
        [
            weights((5, num_draws), 0.3),
            weights((5, num_draws), 1.2),
            100 * rng.normal(size=(3, num_draws)) - 500,
            np.round(rng.normal(size=(5, num_draws)), 1),  # ties
            np.where(rng.random((3, num_draws)) < 0.3, -np.inf, rng.normal(size=(3, num_draws))),
        ]
    )


@pytest.mark.parametrize("num_draws", [24, 100, 1_000, 5_000])
def test_equal_to_arviz(num_draws):
    rows = awkward_weights(num_draws)
    smoothed, khat = arviz_psis(rows)
    np.testing.assert_allclose(pareto_khat(rows), khat, rtol=1e-6)
    ours = pareto_smooth(rows)
    ours -= logsumexp(ours, axis=1, keepdims=True)
    ours, smoothed = np.exp(ours), np.exp(smoothed)
    tied = np.array([len(np.unique(row)) < num_draws for row in rows])
    np.testing.assert_allclose(ours[~tied], smoothed[~tied], rtol=1e-6)
    # the order of equal weights is free
    np.testing.assert_allclose(np.sort(ours), np.sort(smoothed), rtol=1e-6, atol=1e-12)
    if num_draws > 24:
        raw = np.exp(rows - logsumexp(rows, axis=1, keepdims=True))
        assert (np.abs(ours / np.maximum(raw, 1e-300) - 1).max(1) > 1e-3).any()


def test_smoothing_keeps_scale_and_axis_and_leaves_what_has_no_tail():
    rows = weights((3, 4, 200), 0.4)
    smoothed = pareto_smooth(rows)
    np.testing.assert_array_equal(
        pareto_smooth(np.moveaxis(rows, -1, 0), axis=0), np.moveaxis(smoothed, -1, 0)
    )
    np.testing.assert_allclose(pareto_smooth(rows + 300) - 300, smoothed, atol=1e-9)
    for row in (np.zeros(100), np.full(100, -np.inf), np.arange(20.0)):
        np.testing.assert_array_equal(pareto_smooth(row), row)


def test_smoothing_takes_variance():
    """Weights of k = 0.7, mean 1 / 0.3: the spread of 200 estimates shrinks."""
    rows = weights((200, 500), 0.7)
    estimates = [np.exp(w).mean(1) for w in (rows, pareto_smooth(rows))]
    assert estimates[1].std() < 0.8 * estimates[0].std()


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
def test_finds_the_shape(k):
    """Mean of 50 fits; the prior's pull towards 0.5 is 10 / (n + 10) of the way, n = 213."""
    found = pareto_khat(weights((50, 5_000), k))
    expected = k + (0.5 - k) * 10 / 223
    error = found.std(ddof=1) / 50**0.5
    assert abs(found.mean() - expected) < 4.5 * error + 0.02  # and the fit's own bias
    assert error < 0.03


def test_any_axis_and_shape():
    rows = weights((3, 4, 200), 0.4)
    found = pareto_khat(rows)
    assert found.shape == (3, 4)
    np.testing.assert_array_equal(pareto_khat(np.moveaxis(rows, -1, 0), axis=0), found)
    np.testing.assert_array_equal(pareto_khat(rows + 1e3), pareto_khat(rows - 0.0 + 1e3))
    np.testing.assert_allclose(pareto_khat(rows - 700), found, rtol=1e-9)


def test_chunks_do_not_matter(monkeypatch):
    rows = weights((40, 300), 0.4)
    whole = pareto_khat(rows)
    monkeypatch.setattr("ppl_vae.importance.BLOCK_SIZE", 1_000)
    np.testing.assert_allclose(pareto_khat(rows), whole, rtol=1e-12)


@pytest.mark.filterwarnings("error")
def test_without_a_tail():
    equal = np.full(100, -3.0)
    none = np.full(100, -np.inf)
    one = np.where(np.arange(100) == 7, 0.0, -np.inf)
    broken = np.where(np.arange(100) == 7, np.nan, weights(100, 0.3))
    assert pareto_khat(equal) == -np.inf
    assert pareto_khat(equal[:1]) == np.inf  # one weight
    assert np.isnan(pareto_khat(none))
    assert pareto_khat(one) == np.inf
    assert np.isnan(pareto_khat(broken))
    assert pareto_khat(weights(20, 0.1)) == np.inf  # a tail of four
    assert pareto_khat(np.zeros((3, 0))).shape == (3,)


@pytest.mark.parametrize("num_tail", [100, 110, 120, 130])
def test_ties_in_the_tail(num_tail):
    """Weights of two values: with 100 to 120 of the larger one a point of the fit's grid is 0."""
    log_weights = np.zeros(2_000)
    log_weights[:num_tail] = 1.0
    assert np.isfinite(pareto_khat(log_weights))
    assert np.isfinite(pareto_smooth(log_weights)).all()


def test_perplexity_and_effective_number():
    """Of S weights: S if all are equal, 1 if one carries all; scales and zeros do not matter."""
    log_weights = np.array([[0.0, 0.0], [0.0, -np.inf], [0.0, -np.inf], [0.0, -np.inf]]) - 700
    for number in (perplexity, ess):
        np.testing.assert_allclose(number(log_weights), [4, 1], rtol=1e-10)
    shares = np.random.default_rng(0).dirichlet(np.ones(6))
    by_hand = np.prod(shares**-shares)
    np.testing.assert_allclose(perplexity(np.log(shares) + 900), by_hand, rtol=1e-10)
    assert ess(np.log(shares)) < by_hand  # orders two and one of the same family


def test_bounds_by_hand():
    log_weights = np.log(np.array([[1.0, 4.0], [3.0, 4.0], [5.0, 4.0], [7.0, 4.0]]))
    bounds, errors = importance_weighted_bounds(log_weights, [1, 2, 3])
    np.testing.assert_allclose(bounds[0], log_weights.mean(0))
    np.testing.assert_allclose(bounds[1, 0], (np.log(2) + np.log(6)) / 2)
    np.testing.assert_allclose(bounds[2, 0], np.log(3))
    np.testing.assert_allclose(bounds[:, 1], np.log(4))
    np.testing.assert_allclose(errors[:, 1], 0)
    relative = np.std([1, 3, 5, 7], ddof=1) / 4 / 2
    np.testing.assert_allclose(errors[:, 0], relative * np.sqrt([1, 1, 4 / 3]))
    many = np.random.default_rng(0).normal(size=(1_000, 1))
    bounds, errors = importance_weighted_bounds(many, [1, 10])
    np.testing.assert_allclose(errors[0], many.std(ddof=1) / 1_000**0.5)
    each = logsumexp(many.reshape(100, 10), axis=1) - np.log(10)
    np.testing.assert_allclose([bounds[1, 0], errors[1, 0]], [each.mean(), each.std(ddof=1) / 10])
    with pytest.raises(ValueError, match=r"must lie in \[1, 4\], got 5"):
        importance_weighted_bounds(log_weights, [5])
