"""What importance-weighted objectives must satisfy, by one and two layers and on mini-batches.

Elsewhere: L_1 equals the ELBO, and bounds grow with k up to the evidence (test_objectives); the
gradient of equation 14, DReG against the exact gradient, its noise, and STL's bias
(test_gradient_estimators); GDReG on a hierarchy with a prior by labels (there too); one estimate
for subsampled rows, which Pyro's own fails (test_objectives); broken code is noticed (mutants.py).
"""

import numpy as np
import pytest
from gaussian_chains import CONDITIONAL_ONE, CONDITIONAL_TWO, ONE, TWO
from host_words import clear_parameters
from kernel_parts import bind, double_precision, module, real, seeded
from objective_runs import loss_and_gradient, losses
from oracles import LinearGaussian
from scipy import stats
from scipy.special import logsumexp

RNG = np.random.default_rng(0)
X = 1.5 * RNG.normal(size=(6, 3))
ALL_TRUE = np.ones(X.shape, bool)
LABEL = np.array([0.0, 1.0, -1.0, 1.0, 2.0, 0.5])
ACCEPT_A_WEIGHT = (
    "AnalyticELBO", "CIWAE", "DReG", "ELBO", "GDReG", "IWAE", "IWAESTL", "JVI", "NormalisedIWAE",
    "Renyi", "STL",
)  # fmt: skip
EVERY = (*ACCEPT_A_WEIGHT, "RWS", "RWSDReG")


@pytest.mark.parametrize("chain", [ONE, TWO], ids=["one layer", "two layers"])
def test_log_weights_are_sums_of_densities(backend, chain):
    """Written by hand, at the draws of the objective."""
    clear_parameters(backend)
    with double_precision(backend):
        program, objective = bind(backend, chain.pair(backend), X, ALL_TRUE), backend.api.IWAE()
        if backend.name == "numpyro":
            from dataclasses import replace

            program = replace(program, params=chain.on(backend))
            drawn = seeded(backend, module(backend, "particles").draw, 0, program, 50)
        else:
            sites = seeded(backend, module(backend, "particles").draw_particles, 0, program, 50)
            drawn = {name: site["value"] for name, site in sites.items()}
        log_weight = np.asarray(seeded(backend, objective.log_weight, 0, program))
    z = [np.asarray(drawn[name]).T for name in ("z1", "z2")[: chain.num_sites]]
    by_hand = chain.log_observed(z, X, ALL_TRUE) + chain.log_prior(z, 0.0) - chain.log_q(z, X)
    np.testing.assert_allclose(log_weight, by_hand.T, rtol=1e-10)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("chain", [CONDITIONAL_ONE, CONDITIONAL_TWO], ids=["1", "2"])
def test_every_objective_runs_at_every_depth(backend, name, chain):
    objective = getattr(backend.api, name)(num_particles=2)
    assert np.isfinite(losses(backend, objective, chain.pair(backend), X, label=LABEL)).all()


@pytest.mark.parametrize("name", ACCEPT_A_WEIGHT)
def test_the_weight_of_the_divergence_changes_the_objective(backend, name):
    """The value, and the gradient of every parameter of the guide; two layers, the same draws."""
    plain, weighted = (
        np.hstack(loss_and_gradient(backend, make(backend, name, b), TWO, X)) for b in (1.0, 0.3)
    )
    assert (np.abs(plain - weighted) > 1e-4)[[True, *TWO.of_guide]].all()


def make(backend, name, kl_weight):
    return getattr(backend.api, name)(num_particles=3, kl_weight=kl_weight)


def test_the_guide_held_fixed_has_the_same_density(backend):
    """Exactly: STL and ELBO have one value, whatever the scale of the guide."""
    for chain in (ONE, TWO):
        pair = chain.pair(backend)
        elbo, stl = (
            losses(backend, getattr(backend.api, name)(num_particles=2), pair, X)
            for name in ("ELBO", "STL")
        )
        np.testing.assert_allclose(elbo, stl, rtol=2e-7)


@pytest.mark.parametrize("chain", [CONDITIONAL_ONE, CONDITIONAL_TWO], ids=["1", "2"])
def test_closed_forms_measure_to_the_learned_prior(backend, chain):
    """Not to N(0, 1): the analytic ELBO has the mean of the ELBO; false alarms 1e-5."""
    copies = 4000
    x, label = np.tile(X, (copies, 1)), np.tile(LABEL, copies)
    with double_precision(backend):
        pair = chain.pair(backend)
        analytic = losses(backend, backend.api.AnalyticELBO(), pair, x, range(8), label=label)
    exact = chain.bound(X, ALL_TRUE, label=LABEL)
    draws = -analytic / copies
    error = draws.std(ddof=1) / np.sqrt(len(draws))
    assert abs(draws.mean() - exact) < stats.t.isf(0.5e-5, len(draws) - 1) * error


def test_bounds_of_parts_of_the_rows_stay_below_the_evidence(backend):
    """10 of 100 rows, N / B times their sum: growing with k, and no larger than log p(x) + 4 s.e.

    The same batches for each k, so that their noise is that of the draws alone.
    """
    truth = LinearGaussian(ONE.parameters["weight"][:, None], np.array([0.5, -1.0, 0.3]), 0.8)
    rows = truth.draw(np.random.default_rng(2), 100)
    evidence = np.array([truth.log_evidence(row, np.ones(3, bool)) for row in rows])
    batches = rows.reshape(10, 10, 3)
    with double_precision(backend):
        pair, means, errors = ONE.pair(backend), [], []
        for k in (1, 5, 50):
            objective = backend.api.IWAE(num_particles=k)
            each = np.array([-losses(backend, objective, pair, b, range(40)) for b in batches])
            estimates = 10 * each  # of the sum over all 100 rows
            means.append(estimates.mean())
            errors.append(estimates.std(1, ddof=1).mean() / np.sqrt(estimates.size))
    assert (np.diff(means) > 0).all(), means
    assert means[-1] <= evidence.sum() + 4 * errors[-1]
    assert means[-1] > evidence.sum() - 5.0  # at k = 5 it is 20 below


def test_log_mean_exp_does_not_overflow(backend):
    """Log weights of -1000 nats, as of images, by the shifted sum of scipy."""
    rng = np.random.default_rng(0)
    log_weight = 30 * rng.normal(size=(5, 4)) - 1000
    with double_precision(backend):
        ours = module(backend, "particles").log_mean_exp(real(backend, log_weight))
    np.testing.assert_allclose(ours, logsumexp(log_weight, 0) - np.log(5), rtol=1e-12)
