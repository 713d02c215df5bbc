"""Values of importance-weighted bounds against their equations."""

import numpy as np
import pytest
from gaussian_chains import ONE
from kernel_parts import double_precision
from objective_runs import losses
from scipy.special import softmax

from ppl_vae.schedules import Linear

RNG = np.random.default_rng(0)
X = 1.5 * RNG.normal(size=(6, 3))
MASK = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]], bool)
LOG_WEIGHT = 2 * np.random.default_rng(1).normal(size=(4, 3)) - 50


def value(backend, objective, log_weight=LOG_WEIGHT):
    """What an objective makes of log weights (K, B), by row."""
    nothing = [None] * (2 if backend.name == "numpyro" else 1)
    objective.num_particles = len(log_weight)
    objective.log_weight = lambda *args: backend.array(log_weight)
    return np.asarray(objective.value(*nothing))


def test_renyi_goes_from_iwae_to_the_elbo_and_beyond(backend):
    orders = (-1.0, 0.0, 0.5, 1 - 1e-6, 1.0, 1 + 1e-6, 2.0)
    with double_precision(backend):
        renyi = [value(backend, backend.api.Renyi(alpha=alpha)) for alpha in orders]
        np.testing.assert_allclose(renyi[1], value(backend, backend.api.IWAE()), rtol=1e-12)
        np.testing.assert_allclose(renyi[4], value(backend, backend.api.ELBO()), rtol=1e-12)
    squares = 0.5 * np.log(np.exp(2 * LOG_WEIGHT).mean(0))
    np.testing.assert_allclose(renyi[0], squares, rtol=1e-12)
    np.testing.assert_allclose(renyi[3], LOG_WEIGHT.mean(0), rtol=1e-6)
    np.testing.assert_allclose(renyi[5], LOG_WEIGHT.mean(0), rtol=1e-6)
    assert (np.diff(renyi, axis=0) < 0).all()


def test_renyi_close_to_the_elbo_in_single_precision(backend):
    """The logarithm of a mean close to 1, over a power close to 0, had lost three digits."""
    log_weight = (5 * RNG.normal(size=(20, 6)) - 300).astype("float32")
    exact = log_weight.astype(float)
    for power in (1e-6, -1e-5, 1e-3, -0.7, 3.0):
        found = value(backend, backend.api.Renyi(alpha=1 - power), log_weight)
        power = 1 - np.float64(1 - power)
        top = exact.max(0)
        expected = top + np.log(np.exp(power * (exact - top)).mean(0)) / power
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(("alpha", "expected"), [(0.5, -2 * np.log(2)), (2.0, -np.inf)])
def test_renyi_of_a_particle_without_weight(backend, alpha, expected):
    """Two particles, w = 1 and 0: 1 / (1 - alpha) log ((1 + 0^(1 - alpha)) / 2)."""
    found = value(backend, backend.api.Renyi(alpha=alpha), np.array([[0.0], [-np.inf]]))
    np.testing.assert_allclose(found, [expected], rtol=1e-6)
    nothing = value(backend, backend.api.Renyi(alpha=alpha), np.full((2, 1), -np.inf))
    np.testing.assert_array_equal(nothing, [-np.inf])


def test_ciwae_goes_from_iwae_to_the_elbo(backend):
    elbo, iwae = LOG_WEIGHT.mean(0), np.log(np.exp(LOG_WEIGHT).mean(0))
    with double_precision(backend):
        for beta in (0.0, 0.25, 1.0):
            bound = value(backend, backend.api.CIWAE(beta=beta))
            np.testing.assert_allclose(bound, beta * elbo + (1 - beta) * iwae, rtol=1e-12)


def test_ciwae_takes_a_schedule(backend):
    options = {"num_particles": 4}
    elbo, ciwae = (
        losses(backend, objective, ONE.pair(backend), X, mask=MASK, step=2)
        for objective in (
            backend.api.ELBO(**options),
            backend.api.CIWAE(beta=Linear(0.0, 1.0, 2), **options),
        )
    )
    np.testing.assert_allclose(ciwae, elbo, rtol=1e-5)


def test_jackknife_by_leaving_one_out(backend):
    def bound(log_weight):
        return np.log(np.exp(log_weight).mean(0))

    left_out = np.mean([bound(np.delete(LOG_WEIGHT, k, 0)) for k in range(4)], 0)
    with double_precision(backend):
        jackknife = value(backend, backend.api.JVI())
    np.testing.assert_allclose(jackknife, 4 * bound(LOG_WEIGHT) - 3 * left_out, rtol=1e-12)


def test_the_value_of_equation_14(backend):
    with double_precision(backend):
        weighted = value(backend, backend.api.NormalisedIWAE())
    expected = (softmax(LOG_WEIGHT, 0) * LOG_WEIGHT).sum(0)
    np.testing.assert_allclose(weighted, expected, rtol=1e-12)
