"""z is the scale of x: where the guide leaves the prior's support, p(x | z) does not even exist.

z ~ Gamma(2, 1), x ~ N(0, z^2) for two entries; the guide is N(1, 1), a sixth of it below zero.
"""

import numpy as np
import pytest
from host_words import words
from kernel_parts import double_precision
from scipy import stats

X = np.tile(np.array([[1.0, np.nan]]), (60, 1))
EDGES = np.linspace(0, 30, 60_001)
GRID, CELL = (EDGES[:-1] + EDGES[1:]) / 2, EDGES[1] - EDGES[0]


def programs(backend):
    ppl = words(backend)

    def model(x):
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z", ppl.dist.Gamma(2.0 + 0 * x[:, 0], 1.0))
            ppl.sample("x", ppl.dist.Normal(0 * x, z[:, None]).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(1.0 + 0 * x[:, 0], 1.0))

    return model, guide


def joint(x):
    """p(z, x_o) on the grid, x_o one entry."""
    return stats.gamma.pdf(GRID, 2) * stats.norm.pdf(x, scale=GRID)


def key_of(backend):
    if backend.name == "numpyro":
        from jax import random

        return (random.key(0),)
    import pyro

    pyro.set_rng_seed(0)
    return ()


@pytest.mark.parametrize("kernel", ["MWGKernel", "ACMWGKernel", "LAIRKernel"])
def test_every_chain_leaves_its_start(backend, kernel):
    """All 120 chains move, and MWG's and AC-MWG's draws of z have the law by quadrature.

    The score is over 120 independent chains: false alarm 1e-5.
    """
    with double_precision(backend):
        mcmc = backend.run(
            getattr(backend.api, kernel)(*programs(backend)), backend.array(X),
            num_warmup=200, num_samples=200, num_chains=2,
        )  # fmt: skip
    draws = backend.draws(mcmc)
    z = draws["z"]
    assert (z > 0).all()
    assert np.isfinite(draws["x"]).all()
    assert (z.std(1) > 0).all()
    if kernel != "LAIRKernel":  # whose four particles have a bias
        weight = joint(1.0)
        truth = (np.log(GRID) * weight).sum() / weight.sum()
        means = np.log(z).mean(1).ravel()
        error = means.std(ddof=1) / np.sqrt(means.size)
        assert abs(means.mean() - truth) < stats.t.isf(5e-6, means.size - 1) * error


def test_a_start_handed_over_from_outside_is_left(backend):
    """Latents of pseudo-Gibbs need not have a density under the prior."""
    z = np.full((2, len(X)), -1.0)
    x = np.nan_to_num(np.stack([X, X]), nan=0.5)
    with double_precision(backend):
        mcmc = backend.run(
            backend.api.MWGKernel(*programs(backend)), backend.array(X), num_chains=2,
            num_samples=50, init_params={"x": backend.array(x), "z": backend.array(z)},
        )  # fmt: skip
    draws = backend.draws(mcmc)
    assert (draws["z"] > 0).all()
    assert np.isfinite(draws["x"]).all()
    assert not backend.info(mcmc)["diverging"].any()


def test_estimators_give_impossible_latents_no_weight(backend):
    """log p(x_o) against quadrature, five standard errors; draws within the support."""
    pair, truth = programs(backend), np.log(joint(1.0).sum() * CELL)
    with double_precision(backend):
        x = backend.array(X[:2])
        found = backend.api.log_likelihood(
            *key_of(backend), *pair, x, num_particles=20_000, progress_bar=False
        )["estimates"]
        drawn = backend.api.importance_posterior(
            *key_of(backend), *pair, x, num_particles=500, num_samples=50, progress_bar=False
        )
        grid = backend.api.grid_posterior(
            *key_of(backend), *pair, x, bounds=(-10, 30), num_points=8_000
        )
    error = np.abs(found["log_likelihood"].values - truth)
    assert (error < 5 * found["standard_error"].values).all()
    assert (drawn["posterior"]["z"].values > 0).all()
    np.testing.assert_allclose(grid.log_evidence, truth, atol=1e-3)
    assert (np.exp(grid.log_posterior.sel(z_0=slice(-10, 0))) == 0).all()
