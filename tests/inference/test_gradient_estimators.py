"""Gradient estimators of importance-weighted bounds: by hand, by quadrature, and their noise."""

import numpy as np
import pytest
from gaussian_chains import BIAS, CONDITIONAL_ONE, CONDITIONAL_TWO, NOISE, ONE, TWO, Chain, flat
from kernel_parts import double_precision, module, real, seeded
from objective_runs import assert_unbiased, gradients, loss_and_gradient
from scipy.special import logsumexp, softmax

RNG = np.random.default_rng(0)
X = 1.5 * RNG.normal(size=(6, 3))
MASK = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]], bool)
LABEL = np.array([0.0, 1.0, -1.0, 1.0, 2.0, 0.5])
COPIES = 20


def estimates(backend, chain, name, num_draws=60, **options):
    """Gradients of all rows for two particles, means over copies of them, (draws, parameters)."""
    label = {"label": np.tile(LABEL, COPIES)} if "prior_gain" in chain.parameters else {}
    objective = getattr(backend.api, name)(num_particles=2, **options)
    x, mask = np.tile(X, (COPIES, 1)), np.tile(MASK, (COPIES, 1))
    with double_precision(backend):
        draws = gradients(backend, objective, chain, x, num_draws, mask=mask, **label)
    return draws / COPIES


# --- by hand, draw by draw ------------------------------------------------------------------


def drawn_and_gradient(backend, objective, chain):
    """The draws of one site (K, B), and the loss and its gradient with the same seed."""
    loss, gradient = loss_and_gradient(backend, objective, chain, X, mask=MASK, label=LABEL)
    params = {"params": chain.on(backend)} if backend.name == "numpyro" else {}
    x, mask = real(backend, np.where(MASK, X, 0.0)), backend.array(MASK)
    program = module(backend, "program").Program(*chain.pair(backend), x, mask, **params)
    num_particles = objective.num_particles
    if backend.name == "numpyro":
        z = seeded(backend, module(backend, "particles").draw, 0, program, num_particles)["z1"]
    else:
        draw = module(backend, "particles").draw_particles
        z = seeded(backend, draw, 0, program, num_particles)["z1"]["value"]
    return np.asarray(z).reshape(num_particles, -1), loss, gradient


def by_hand(chain, z, coefficient, kl_weight=1.0, wake=False, generalised=False):
    """The bound and its gradient by the equations of the papers, at draws z (K, B)."""
    p, x = chain.parameters, np.where(MASK, X, 0.0)
    loc, prior_loc = x @ p["gain"] + p["shift"], p["prior_gain"] * LABEL + p["prior_shift"]
    residual = np.where(MASK, x - BIAS - z[..., None] * p["weight"], 0.0) / NOISE**2
    log_ratio = chain.log_prior([z.T], LABEL) - chain.log_q([z.T], x)
    log_weight = (chain.log_observed([z.T], x, MASK) + kl_weight * log_ratio).T
    share = softmax(log_weight, 0)

    slope_q, slope_p = (loc - z) / p["scale"] ** 2, (prior_loc - z) / p["prior_scale"] ** 2
    slope = residual @ p["weight"] + kl_weight * (slope_p - slope_q)
    noise, prior_noise = (z - loc) / p["scale"], (z - prior_loc) / p["prior_scale"]
    by_loc, by_scale = coefficient(share) * slope, coefficient(share) * slope * noise
    if wake:
        by_loc, by_scale = -share * slope_q, share * (noise**2 - 1) / p["scale"]
    prior_by_loc = kl_weight * share * -slope_p
    prior_by_scale = kl_weight * share * (prior_noise**2 - 1) / p["prior_scale"]
    if generalised:
        prior_by_loc = kl_weight * share * ((1 - share) * slope + slope_q - slope_p)
        prior_by_scale = prior_by_loc * prior_noise
    gradient = {
        "gain": by_loc.sum(0) @ x, "shift": by_loc.sum(), "scale": by_scale.sum(),
        "prior_gain": prior_by_loc.sum(0) @ LABEL, "prior_shift": prior_by_loc.sum(),
        "prior_scale": prior_by_scale.sum(),
        "weight": ((share * z)[..., None] * residual).sum((0, 1)),
    }  # fmt: skip
    return (logsumexp(log_weight, 0) - np.log(len(z))).sum(), flat(gradient)


EQUATIONS = {
    "IWAESTL": {"coefficient": lambda s: s},
    "DReG": {"coefficient": lambda s: s**2},
    "GDReG": {"coefficient": lambda s: s**2, "generalised": True},
    "RWS": {"coefficient": lambda s: s, "wake": True},
    "RWSDReG": {"coefficient": lambda s: s - s**2},
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_each_draw_has_the_gradient_of_the_paper(backend, name):
    """To rounding, so that the twins agree too; rows complete and incomplete, a learned prior."""
    with double_precision(backend):
        objective = getattr(backend.api, name)(num_particles=3)
        z, loss, gradient = drawn_and_gradient(backend, objective, CONDITIONAL_ONE)
    bound, exact = by_hand(CONDITIONAL_ONE, z, **EQUATIONS[name])
    np.testing.assert_allclose(-loss, bound, rtol=1e-10)
    np.testing.assert_allclose(-gradient, exact, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["DReG", "GDReG"])
def test_the_weight_of_the_divergence_counts(backend, name):
    b = 0.3
    equation = {**EQUATIONS[name], "coefficient": lambda s: (1 - b) * s + b * s**2}
    with double_precision(backend):
        objective = getattr(backend.api, name)(num_particles=3, kl_weight=b)
        z, loss, gradient = drawn_and_gradient(backend, objective, CONDITIONAL_ONE)
    bound, exact = by_hand(CONDITIONAL_ONE, z, kl_weight=b, **equation)
    np.testing.assert_allclose(-loss, bound, rtol=1e-10)
    np.testing.assert_allclose(-gradient, exact, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["DReG", "IWAESTL"])
def test_one_particle_is_sticking_the_landing(backend, name):
    """Draw by draw, two sites, weighted."""
    with double_precision(backend):
        stl, other = (
            loss_and_gradient(
                backend, getattr(backend.api, n)(num_particles=1, kl_weight=0.3), TWO, X, mask=MASK
            )
            for n in ("STL", name)
        )
    np.testing.assert_allclose(other[0], stl[0], rtol=1e-10)
    np.testing.assert_allclose(other[1], stl[1], rtol=1e-9, atol=1e-12)


def test_equation_14_has_the_gradient_of_iwae(backend):
    """Draw by draw, to rounding; the value is another one."""
    with double_precision(backend):
        both = [getattr(backend.api, n)(num_particles=4) for n in ("IWAE", "NormalisedIWAE")]
        iwae, other = (loss_and_gradient(backend, o, TWO, X, mask=MASK) for o in both)
    np.testing.assert_allclose(iwae[1], other[1], rtol=1e-9, atol=1e-12)
    assert abs(iwae[0] - other[0]) > 1e-3


# --- on average, against quadrature ---------------------------------------------------------

UNBIASED = {
    "DReG": (ONE, "DReG", {}),
    "DReG, two sites, weighted": (TWO, "DReG", {"kl_weight": 0.3}),
    "GDReG, labels": (CONDITIONAL_ONE, "GDReG", {}),
    "GDReG, two sites, labels": (CONDITIONAL_TWO, "GDReG", {}),
    "GDReG, two sites, labels, weighted": (CONDITIONAL_TWO, "GDReG", {"kl_weight": 0.3}),
}


@pytest.mark.parametrize("case", UNBIASED)
def test_the_gradient_of_the_bound_is_unbiased(backend, case):
    """Two particles, every parameter of model and guide, rows complete and incomplete."""
    chain, name, options = UNBIASED[case]
    label = LABEL if "prior_gain" in chain.parameters else 0.0
    exact = chain.gradient(X, MASK, num_particles=2, label=label, **options)
    assert_unbiased(estimates(backend, chain, name, **options), exact)


@pytest.mark.parametrize("chain", [ONE, TWO], ids=["one site", "two sites"])
@pytest.mark.parametrize("name", ["RWS", "RWSDReG"])
def test_the_wake_phase_is_unbiased(backend, name, chain):
    """For what two particles estimate; the model has the gradient of the bound."""
    bound = chain.gradient(X, MASK, num_particles=2)
    exact = np.where(chain.of_guide, chain.wake_gradient(X, MASK), bound)
    assert_unbiased(estimates(backend, chain, name), exact)


def test_many_particles_follow_the_posterior(backend):
    """The gradient of -KL(p || q) in closed form; the bias of 4000 particles is below the noise."""
    posterior = ONE.with_exact_guide().parameters

    def minus_divergence(chain):
        p = chain.parameters
        distance = X @ (posterior["gain"] - p["gain"]) + posterior["shift"] - p["shift"]
        spread = (distance**2 + posterior["scale"] ** 2) / p["scale"] ** 2
        return -0.5 * spread.sum() - len(X) * np.log(p["scale"])

    exact = ONE.derivative(minus_divergence)[ONE.of_guide]
    with double_precision(backend):
        objective = backend.api.RWS(num_particles=4000)
        draws = gradients(backend, objective, ONE, X, 30)[:, ONE.of_guide]
    assert_unbiased(draws, exact)


@pytest.mark.parametrize("chain", [ONE, TWO], ids=["one site", "two sites"])
def test_sticking_the_landing_is_biased_by_the_wake_phase(backend, chain):
    """Tucker et al. (2019): the score term left out has the mean that reweighted wake-sleep has."""
    exact = chain.gradient(X, MASK, num_particles=2)
    bias = np.where(chain.of_guide, chain.wake_gradient(X, MASK), 0.0)
    draws = estimates(backend, chain, "IWAESTL")
    assert_unbiased(draws, exact + bias)
    with pytest.raises(AssertionError):
        assert_unbiased(draws, exact)


def test_jackknife_is_unbiased_for_what_it_estimates(backend):
    exact = 2 * ONE.gradient(X, MASK, num_particles=2) - ONE.gradient(X, MASK, num_particles=1)
    assert_unbiased(estimates(backend, ONE, "JVI"), exact)


# --- noise ----------------------------------------------------------------------------------


def near_the_posterior(chain):
    """The same model with a guide as it is after training."""
    exact = chain.with_exact_guide().parameters
    wider = {name: 1.1 * exact[name] for name in exact if name.startswith("scale")}
    return Chain({**exact, **wider, "shift": exact["shift"] + 0.1})


@pytest.mark.parametrize(("name", "plain"), [("DReG", "IWAE"), ("RWSDReG", "RWS")])
def test_reparameterising_twice_has_less_noise(backend, name, plain):
    """In every parameter of the guide, with 16 particles and two sites."""
    near = near_the_posterior(TWO)
    with double_precision(backend):
        twice, once = (
            gradients(backend, getattr(backend.api, n)(num_particles=16), near, X, 60).std(0)
            for n in (name, plain)
        )
    assert (twice[near.of_guide] < 0.7 * once[near.of_guide]).all(), twice / once
