"""What a run is started from is that run's alone."""

import numpy as np
import pytest
from host_words import X, bernoulli_pair, words


@pytest.fixture
def mcmc(backend):
    """A run that was started at given values."""
    kernel = backend.api.MWGKernel(*bernoulli_pair(words(backend)))
    start = {"x": backend.array(np.ones((2, *X.shape), "float32"))}
    return backend.run(kernel, backend.array(X), num_samples=2, num_chains=2, init_params=start)


def again(backend, mcmc, x):
    if backend.name == "numpyro":
        from jax import random

        mcmc.run(random.key(1), backend.array(x))
    else:
        mcmc.run(backend.array(x))
    return backend.api.to_inference_data(mcmc)["posterior"].attrs["start"]


def test_a_start_is_that_of_one_run(backend, mcmc):
    assert backend.api.to_inference_data(mcmc)["posterior"].attrs["start"] == "init_params"
    assert again(backend, mcmc, X) == "prior predictive"
    assert again(backend, mcmc, X[:2]) == "prior predictive"


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["MWGKernel", "ACMWGKernel", "LAIRKernel"])
def test_missing_entries_start_at_numbers(backend, name, value):
    """Observed entries are the data's own, whatever is given for them."""
    kernel = getattr(backend.api, name)(*bernoulli_pair(words(backend)))
    rows = np.ones((2, *X.shape), "float32")
    rows[:, ~np.isnan(X)] = np.nan
    start = {"x": backend.array(rows)}
    backend.run(kernel, backend.array(X), num_samples=2, num_chains=2, init_params=start)
    row, feature = np.argwhere(np.isnan(X))[-1]
    rows[1, row, feature] = value
    start = {"x": backend.array(rows)}
    message = rf"init_params\['x'\] is {value} at chain 1, row {row}, which is not observed"
    with pytest.raises(ValueError, match=message):
        backend.run(kernel, backend.array(X), num_samples=2, num_chains=2, init_params=start)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_latents_start_at_numbers(backend, value):
    kernel = backend.api.MWGKernel(*bernoulli_pair(words(backend)))
    z = np.zeros((2, len(X), 1), "float32")
    z[1, 2] = value
    start = {"x": backend.array(np.ones((2, *X.shape), "float32")), "z": backend.array(z)}
    with pytest.raises(ValueError, match=rf"init_params\['z'\] is {value} at"):
        backend.run(kernel, backend.array(X), num_samples=2, num_chains=2, init_params=start)


def test_latents_of_another_precision_are_taken(backend):
    kernel = backend.api.MWGKernel(*bernoulli_pair(words(backend)))
    start = {"x": np.ones((2, *X.shape)), "z": np.zeros((2, len(X), 1))}
    mcmc = backend.run(kernel, backend.array(X), num_samples=2, num_chains=2, init_params=start)
    assert backend.draws(mcmc)["z"].dtype == "float32"


def test_a_state_is_to_be_handed_over(backend, mcmc):
    kernel, start = backend.api.MWGKernel(*bernoulli_pair(words(backend))), mcmc.last_state
    with pytest.raises(TypeError, match=r"got KernelState: give `\.hand_over\(\)` of it"):
        backend.run(kernel, backend.array(X), num_samples=2, num_chains=2, init_params=start)
