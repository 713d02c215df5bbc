"""Priors of bounded support under guides of the whole line, and the other way round.

Torch's densities go on beyond their support; no draw of a sampler may.
"""

import numpy as np
import pytest
from host_words import words

PRIORS = {"Exponential": (1.0,), "LogNormal": (0.0, 1.0), "Beta": (2.0, 2.0)}
X = np.array([[0.3, np.nan], [-0.5, 0.1]], "float32")


def programs(backend, name):
    """z ~ prior, two normal entries; the guide is N(0, 1), half of it outside."""
    ppl = words(backend)

    def model(x):
        with ppl.plate("rows", len(x)):
            first, *rest = PRIORS[name]
            z = ppl.sample("z", getattr(ppl.dist, name)(first + 0 * x[:, 0], *rest))
            ppl.sample("x", ppl.dist.Normal(z[:, None] + 0 * x, 1.0).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(0 * x[:, 0], 1.0))

    return model, guide


@pytest.mark.parametrize(
    ("kernel", "prior"),
    [
        ("MWGKernel", "Exponential"),
        ("MWGKernel", "Beta"),
        ("ACMWGKernel", "LogNormal"),
        ("LAIRKernel", "Exponential"),
    ],
)
def test_no_draw_is_outside(backend, kernel, prior):
    """A start outside is left at the first proposal inside: 100 times refused, 1e-20."""
    pair = programs(backend, prior)
    mcmc = backend.run(
        getattr(backend.api, kernel)(*pair), backend.array(X),
        num_warmup=100, num_samples=100, num_chains=2,
    )  # fmt: skip
    z = backend.draws(mcmc)["z"]
    assert (z >= 0).all()
    assert z.std() > 0
    if prior == "Beta":
        assert (z <= 1).all()


def test_the_evidence_counts_what_is_inside(backend):
    """Importance sampling from N(0, 1) against quadrature on the half line and on the whole one.

    Five standard errors: false alarm 6e-7 a row.
    """
    pair, x = programs(backend, "Exponential"), backend.array(X)
    key = ()
    if backend.name == "numpyro":
        from jax import random

        key = (random.key(0),)
    else:
        import pyro

        pyro.set_rng_seed(0)
    half, whole = (
        backend.api.grid_posterior(*key, *pair, x, bounds=bounds, num_points=points).log_evidence
        for bounds, points in (((0, 9), 900), ((-9, 9), 1_800))
    )
    np.testing.assert_allclose(half, whole, atol=1e-5)
    found = backend.api.log_likelihood(*key, *pair, x, num_particles=20_000, progress_bar=False)
    found = found["estimates"]
    error = np.abs(found["log_likelihood"].values - half.values)
    assert (error < 5 * found["standard_error"].values + 1e-4).all()
