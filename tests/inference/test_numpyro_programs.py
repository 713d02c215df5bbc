"""What only NumPyro could get wrong: parameters that are Python numbers, labels that are lists."""

from functools import partial
from itertools import product

import numpy as np
import pytest

numpyro = pytest.importorskip("numpyro")

import numpyro.distributions as dist  # noqa: E402
from jax import random  # noqa: E402

import ppl_vae.numpyro as api  # noqa: E402
from ppl_vae.numpyro import MCMC, ACMWGKernel, LAIRKernel, MWGKernel  # noqa: E402

X = np.array([[0.4, np.nan], [np.nan, 0.1], [-0.3, np.nan]], "float32")
ESTIMATORS = (
    "active_units", "grid_posterior", "importance_posterior",
    "kl_per_site", "log_likelihood", "map_start",
)  # fmt: skip


def guide(x, y=None):
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("z", dist.Normal(x.sum(1), 1.0))


LIKELIHOODS = {
    "truncated": lambda z: dist.TruncatedNormal(z, 1.0, low=-1.0, high=2.0),
    "transformed": lambda z: dist.TransformedDistribution(
        dist.Normal(z, 1.0), dist.transforms.AffineTransform(0.0, 2.0)
    ),
}


def run(kernel, model, *args):
    mcmc = MCMC(
        kernel(model, guide), num_warmup=2, num_samples=5, num_chains=2,
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip
    mcmc.run(random.key(0), X, *args)
    return np.asarray(mcmc.get_samples()["x"])


@pytest.mark.parametrize("kernel", [MWGKernel, ACMWGKernel, LAIRKernel])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_parameters_that_are_numbers(kernel, name):
    def model(x):
        with numpyro.plate("rows", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(0, 1))
            likelihood = LIKELIHOODS[name](z[:, None] + 0 * x)
            numpyro.sample("x", likelihood.to_event(1), obs=x)

    x = run(kernel, model)
    assert np.isfinite(x).all()
    if name == "truncated":
        assert ((x >= -1) & (x <= 2)).all()


@pytest.mark.parametrize("kernel", [MWGKernel, LAIRKernel])
def test_labels_in_a_list_are_labels_in_an_array(kernel):
    def model(x, y):
        with numpyro.plate("rows", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(1.0 * y, 1))
            numpyro.sample("x", dist.Normal(z[:, None] + 0 * x, 1.0).to_event(1), obs=x)

    labels = np.array([0, 2, 1])
    expected = run(kernel, model, labels)
    np.testing.assert_array_equal(run(kernel, model, labels.tolist()), expected)


def test_what_is_no_key_is_refused_by_name():
    """JAX's own message speaks of key data."""

    def model(x, y=None):
        with numpyro.plate("rows", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("x", dist.Normal(z[:, None], 1.0).expand([len(x), 2]).to_event(1), obs=x)

    def of_pair(estimator, key):
        estimator(key, *pair, X)

    pair = (model, guide)
    mcmc = MCMC(LAIRKernel(*pair), num_warmup=1, num_samples=2, progress_bar=False)
    calls = [
        lambda key: api.fit(key, pair, X),
        lambda key: api.fit_replicas(key, lambda: pair, X, num_replicas=2),
        lambda key: api.gradient_quality(key, pair, X),
        lambda key: api.pool(key, mcmc, 3),
        lambda key: api.conditional_log_likelihood(key, *pair, X, given=~np.isnan(X)),
        *(partial(of_pair, getattr(api, name)) for name in ESTIMATORS),
    ]
    for call, key in product(calls, (0, np.zeros((3, 2), np.uint32))):
        with pytest.raises(TypeError, match=r"key must be a random key such as jax\.random\.key"):
            call(key)
