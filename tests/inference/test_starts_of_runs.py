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
