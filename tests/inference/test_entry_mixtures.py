"""Mixtures in every entry, and as prior, against quadrature; same text for both twins.

A row is one posterior; 600 rows and 4 chains are independent draws of it after 60 iterations. Five
standard errors: a false alarm of 6e-7 each.
"""

import numpy as np
import pytest
from host_words import clear_parameters, words
from scipy import stats

NUM_ROWS, NUM_CHAINS = 600, 4
X = np.tile(np.array([[0.9, np.nan, 1.4]], "float32"), (NUM_ROWS, 1))
GRID = np.linspace(-7, 7, 4_001)
STEP = 0.7  # from the first component to the second


def stack(backend, *parts):
    if backend.name == "pyro":
        import torch

        return torch.stack(torch.broadcast_tensors(*parts), -1)
    import jax.numpy as jnp

    return jnp.stack(jnp.broadcast_arrays(*parts), -1)


def programs(backend, family, prior):
    """Entries are mixtures whose weights and components depend on z."""
    ppl = words(backend)
    dist = ppl.dist

    def model(x):
        zero = 0 * x[:, :1]
        with ppl.plate("rows", x.shape[0]):
            if prior == "mixture":
                which = dist.Categorical(logits=stack(backend, zero, zero))
                each = dist.Normal(stack(backend, zero - 1, zero + 1), 0.5)
                z = ppl.sample("z", dist.MixtureSameFamily(which, each).to_event(1))
            else:
                z = ppl.sample("z", dist.Normal(zero, 1.0).to_event(1))
            h = z + 0 * x
            which = dist.Categorical(logits=stack(backend, h, -h))
            loc = stack(backend, h, h + STEP)
            each = dist.Normal(loc, 0.6) if family == "normal" else dist.Gamma(np.e**loc, 2.0)
            ppl.sample("x", dist.MixtureSameFamily(which, each).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z", dist.Normal(0.4 * x[:, :1] - 0.2, 1.2).to_event(1))

    return model, guide


def quadrature(family, prior):
    """E[z], E[x_1] and their squares given x_o, and log p(x_o)."""
    first = 1 / (1 + np.exp(-2 * GRID))

    def density(value):
        if family == "normal":
            parts = (stats.norm.pdf(value, GRID + shift, 0.6) for shift in (0, STEP))
        else:
            parts = (stats.gamma.pdf(value, np.exp(GRID + s), scale=0.5) for s in (0, STEP))
        return sum(w * p for w, p in zip((first, 1 - first), parts, strict=True))

    p_z = stats.norm.pdf(GRID)
    if prior == "mixture":
        p_z = (stats.norm.pdf(GRID, -1, 0.5) + stats.norm.pdf(GRID, 1, 0.5)) / 2
    joint = p_z * density(X[0, 0]) * density(X[0, 2])
    posterior = joint / joint.sum()
    if family == "normal":
        means = np.array([GRID, GRID + STEP])
        squares = means**2 + 0.6**2
    else:
        shape = np.exp(np.array([GRID, GRID + STEP]))
        means, squares = shape / 2, shape * (shape + 1) / 4
    which = np.array([first, 1 - first])
    moments = [GRID, GRID**2, (which * means).sum(0), (which * squares).sum(0)]
    log_evidence = np.log(joint.sum() * (GRID[1] - GRID[0]))
    return np.array([(posterior * m).sum() for m in moments]), log_evidence


CASES = [("normal", "normal"), ("gamma", "normal"), ("normal", "mixture")]


@pytest.mark.exact
@pytest.mark.parametrize(("family", "prior"), CASES)
def test_draws_are_those_of_quadrature(backend, family, prior):
    clear_parameters(backend)
    expected, _ = quadrature(family, prior)
    kernel = backend.api.MWGKernel(*programs(backend, family, prior))
    mcmc = backend.run(
        kernel, backend.array(X), num_warmup=60, num_samples=1, num_chains=NUM_CHAINS
    )
    draws = backend.draws(mcmc)
    z, x = draws["z"].reshape(-1), draws["x"][..., 1].reshape(-1)
    for found, mean in zip((z, z**2, x, x**2), expected, strict=True):
        assert abs(found.mean() - mean) < 5 * found.std() / len(found) ** 0.5


@pytest.mark.parametrize(("family", "prior"), CASES)
def test_training_and_evidence(backend, family, prior):
    """IWAE with many particles is the evidence; missing entries take no part."""
    clear_parameters(backend)
    _, log_evidence = quadrature(family, prior)
    pair = programs(backend, family, prior)
    objective = backend.api.IWAE(num_particles=400)
    x = backend.array(X)
    if backend.name == "numpyro":
        from jax import random

        loss = objective.loss(random.key(0), {}, *pair, x)
    else:
        import pyro

        pyro.set_rng_seed(0)
        loss = objective.loss(*pair, x)
    assert -float(loss) / NUM_ROWS == pytest.approx(log_evidence, abs=0.02)
