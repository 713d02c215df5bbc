"""AC-MWG with all draws of a warm-up in its history; same text for both twins."""

import numpy as np
import pytest
from oracles import LinearGaussian
from pooled_draws import moment_score

TRUTH = LinearGaussian.example()
X = TRUTH.draw(np.random.default_rng(0), 3).astype("float32")
MASK = np.array([[1, 1, 0, 0, 1], [0, 1, 0, 1, 0], [0, 0, 0, 0, 1]], bool)
DATA = np.where(MASK, X, np.nan).astype("float32")


def kernel(backend, **options):
    return backend.api.ACMWGKernel(*backend.programs.linear_gaussian(TRUTH), **options)


def begin(backend, kernel, handed, num_chains):
    """The first state of some chains."""
    if backend.name == "numpyro":
        from jax import random

        return kernel.init(random.split(random.key(9), num_chains), 0, handed, (DATA,), {})
    return kernel.init(num_chains, handed, (backend.array(DATA),), {})


@pytest.mark.parametrize("num_draws", [1, 3, 20, 50])
@pytest.mark.parametrize("hybrid", [False, True])
def test_the_history_begins_with_the_draws(backend, num_draws, hybrid):
    """Evenly spaced where there are more than it holds, all as often where there are fewer."""
    draws = np.random.default_rng(1).normal(size=(2, num_draws, 3, 5)).astype("float32")
    own = kernel(backend)
    first = backend.api.HMCRefreshKernel(own) if hybrid else own
    history = begin(backend, first, {"x": backend.array(draws)}, 2).chain.history
    expected = np.where(MASK, X, draws)
    which = np.floor(np.arange(20) * num_draws / 20).astype(int)
    np.testing.assert_array_equal(history.x, expected[:, which])
    np.testing.assert_array_equal(history.total, np.full((2, 3), num_draws))
    assert np.ptp(np.bincount(which, minlength=num_draws)) <= 1


def test_one_imputation_is_held_in_every_entry(backend):
    draws = np.random.default_rng(1).normal(size=(2, 3, 5)).astype("float32")
    history = begin(backend, kernel(backend), {"x": backend.array(draws)}, 2).chain.history
    np.testing.assert_array_equal(history.x, np.repeat(np.where(MASK, X, draws)[:, None], 20, 1))
    np.testing.assert_array_equal(history.total, np.ones((2, 3)))


def test_the_draws_of_another_run_are_taken_as_they_are(backend):
    """And the first proposals come from them; the origin is recorded."""
    giver = backend.api.PseudoGibbsKernel(*backend.programs.linear_gaussian(TRUTH))
    warm = backend.draws(backend.run(giver, backend.array(DATA), num_samples=30, num_chains=2))
    mcmc = backend.run(
        kernel(backend), backend.array(DATA), num_samples=2, num_chains=2,
        init_params={"x": backend.array(warm["x"])},
    )  # fmt: skip
    assert (backend.info(mcmc)["history_length"][:, 0] >= 30).all()
    assert backend.api.to_inference_data(mcmc)["posterior"].attrs["start"] == "init_params"


@pytest.mark.exact
def test_bad_draws_in_the_history_do_not_change_the_law(backend):
    """Draws of a warm-up far from the truth; 200 chains, false alarm about 1e-5 in all."""
    rng = np.random.default_rng(2)
    draws = (4.0 + 3 * rng.normal(size=(200, 40, 3, 5))).astype("float32")
    mcmc = backend.run(
        kernel(backend, prior_probability=0.2), backend.array(DATA), num_warmup=50,
        num_samples=100, num_chains=200, init_params={"x": backend.array(draws)},
    )  # fmt: skip
    x = backend.draws(mcmc)["x"]
    assert moment_score(TRUTH, x, X, MASK) < 5


def test_draws_of_another_shape_are_refused(backend):
    draws = np.zeros((2, 7, 4, 5), "float32")  # four rows for three
    with pytest.raises(ValueError, match=r"init_params\['x'\] must have shape \(.*3, 5\)"):
        begin(backend, kernel(backend), {"x": backend.array(draws)}, 2)
