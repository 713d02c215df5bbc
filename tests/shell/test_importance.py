import warnings

import numpy as np
import pytest

from ppl_vae.importance import pareto_khat


def weights(shape, k, seed=0):
    """Log-weights whose tail has the shape k: w = u^-k."""
    return -k * np.log(np.random.default_rng(seed).uniform(size=shape))


def arviz_khat(log_weights):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz
    if not hasattr(arviz, "psislw") or not arviz.__version__.startswith("0."):
        pytest.skip("the peer is ArviZ 0.x: the sign of psislw's argument changed in 1.x")
    with np.errstate(all="ignore"):
        return np.array([arviz.psislw(row)[1] for row in log_weights])


@pytest.mark.parametrize("num_draws", [24, 100, 1_000, 5_000])
def test_equal_to_arviz(num_draws):
    rng = np.random.default_rng(0)
    rows = np.concatenate(
        [
            weights((5, num_draws), 0.3),
            weights((5, num_draws), 1.2),
            100 * rng.normal(size=(3, num_draws)) - 500,
            np.round(rng.normal(size=(5, num_draws)), 1),  # ties
            np.where(rng.random((3, num_draws)) < 0.3, -np.inf, rng.normal(size=(3, num_draws))),
        ]
    )
    np.testing.assert_allclose(pareto_khat(rows), arviz_khat(rows), rtol=1e-6)


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
    assert np.isnan(pareto_khat(none))
    assert pareto_khat(one) == np.inf
    assert np.isnan(pareto_khat(broken))
    assert pareto_khat(weights(20, 0.1)) == np.inf  # a tail of four
    assert pareto_khat(np.zeros((3, 0))).shape == (3,)
