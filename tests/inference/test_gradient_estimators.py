"""Gradient estimators of importance-weighted bounds: by hand, by quadrature, and their noise."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from gaussian_chains import BIAS, CONDITIONAL_ONE, CONDITIONAL_TWO, NOISE, ONE, TWO, Chain, flat
from host_words import words
from kernel_parts import both_backends, double_precision, module, real, seeded
from objective_runs import assert_unbiased, gradients, loss_and_gradient, losses
from scipy.special import expit, logsumexp, softmax

from ppl_vae.schedules import Linear

RNG = np.random.default_rng(0)
X = 1.5 * RNG.normal(size=(6, 3))
MASK = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]], bool)
LABEL = np.array([0.0, 1.0, -1.0, 1.0, 2.0, 0.5])
COPIES = 20
ALL = ["CIWAE", "DReG", "GDReG", "IWAESTL", "JVI", "NormalisedIWAE", "RWS", "RWSDReG", "Renyi"]
DOUBLY = ["DReG", "GDReG", "RWSDReG"]


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


# --- values ---------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", ALL)
def test_what_the_mask_hides_has_no_influence(backend, name):
    """Neither on the value nor on the gradient."""
    objective = getattr(backend.api, name)(num_particles=2)
    first, *others = (
        np.hstack(loss_and_gradient(backend, objective, ONE, x, mask=MASK))
        for x in (np.where(MASK, X, filler) for filler in (0.0, -1e6, np.nan))
    )
    assert np.isfinite(first).all()
    for other in others:
        np.testing.assert_array_equal(first, other)


# --- other guides and priors ----------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class OneSite:
    """In place of a `Chain`, a program with any prior and guide: functions of `dist` and params."""

    parameters: dict
    prior: Callable
    proposal: Callable

    def on(self, backend):
        return {name: real(backend, value) for name, value in self.parameters.items()}

    def pair(self, backend):
        first = self.on(backend)
        ppl, weight = words(backend), real(backend, ONE.parameters["weight"])
        params = {name: lambda name=name: ppl.param(name, first[name] + 0.0) for name in first}

        def model(x):
            with ppl.plate("rows", x.shape[0]):
                z = ppl.sample("z", self.prior(ppl.dist, params, 0 * x[:, 0]))
                ppl.sample("x", ppl.dist.Normal(z[..., None] * weight, 1.0).to_event(1), obs=x)

        def guide(x):
            with ppl.plate("rows", x.shape[0]):
                ppl.sample("z", self.proposal(ppl.dist, params, x[:, 0]))

        return model, guide


def test_reweighted_wake_sleep_fits_a_discrete_guide(backend):
    """The gradient of -KL(p || q) for a site of two values; the bias is below the noise."""
    site = OneSite(
        {"gain": np.array(0.7)},
        lambda dist, params, zero: dist.Bernoulli(0.3 + zero),
        lambda dist, params, x: dist.Bernoulli(logits=params["gain"]() * x),
    )
    weight = ONE.parameters["weight"]
    posterior = expit(np.log(0.3 / 0.7) + X @ weight - 0.5 * weight @ weight)
    exact = ((posterior - expit(0.7 * X[:, 0])) * X[:, 0]).sum()
    with double_precision(backend):
        draws = gradients(backend, backend.api.RWS(num_particles=4000), site, X, 30)
    assert_unbiased(draws, np.array([exact]))


def affine(dist, a, b):
    transform = dist.transforms.AffineTransform(b, a)
    return dist.TransformedDistribution(dist.Normal(a, b).expand([5]), [transform])


SAMPLERS = {
    "Normal": lambda dist, a, b: dist.Normal(a, b).expand([5]),
    "Laplace": lambda dist, a, b: dist.Laplace(a, b).expand([5]).to_event(1),
    "Cauchy": lambda dist, a, b: dist.Cauchy(a, b).expand([5]),
    "LogNormal": lambda dist, a, b: dist.LogNormal(a, b).expand([5]),
    "affine": affine,
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_draw_moves_with_its_distribution(backend, name):
    """In value and derivative what the host's own sampler returns for the same noise."""
    dist, redraw = words(backend).dist, module(backend, "generalised_dreg").redraw
    with double_precision(backend):
        a, b = real(backend, 0.4), real(backend, 0.9)
        drawn, again = jacobians(backend, lambda a, b: SAMPLERS[name](dist, a, b), redraw, a, b)
    for of_sampler, of_redraw in zip(drawn, again, strict=True):
        np.testing.assert_allclose(of_redraw, of_sampler, rtol=1e-10)


def jacobians(backend, make, redraw, a, b):
    """The value and its derivatives by a and b, of the host's sampler and of `redraw`."""
    if backend.name == "numpyro":
        import jax

        z = make(a, b).sample(jax.random.key(0))
        fns = (
            lambda a, b: make(a, b).sample(jax.random.key(0)),
            lambda a, b: redraw("z", make(a, b), z),
        )
        return [(fn(a, b), *jax.jacfwd(fn, (0, 1))(a, b)) for fn in fns]
    import pyro
    from torch.autograd.functional import jacobian

    def draw(a, b):
        pyro.set_rng_seed(0)
        return make(a, b).rsample()

    z = draw(a, b)
    fns = (draw, lambda a, b: redraw("z", make(a, b), z))
    return [(fn(a, b), *jacobian(fn, (a, b))) for fn in fns]


def test_a_prior_of_another_family_is_named(backend):
    site = OneSite(
        {"a": np.array(1.4)},
        lambda dist, params, zero: dist.Gamma(params["a"]() + zero, 1.0),
        lambda dist, params, x: dist.LogNormal(x, 1.0),
    )
    with pytest.raises(NotImplementedError, match=r"site 'z' from a Gamma.*Use DReG\(\)"):
        loss_and_gradient(backend, backend.api.GDReG(num_particles=2), site, X)
    loss, gradient = loss_and_gradient(backend, backend.api.DReG(num_particles=2), site, X)
    assert np.isfinite([loss, *gradient]).all()


@pytest.mark.parametrize("name", sorted({*ALL} - {"RWS"}))
def test_a_site_without_gradient_is_named(backend, name):
    site = OneSite(
        {"gain": np.array(0.7)},
        lambda dist, params, zero: dist.Bernoulli(0.3 + zero),
        lambda dist, params, x: dist.Bernoulli(logits=params["gain"]() * x),
    )
    with pytest.raises(ValueError, match=r"Sites \['z'\].*no reparameterised sampler"):
        loss_and_gradient(backend, getattr(backend.api, name)(num_particles=2), site, X)


@pytest.mark.parametrize("name", ALL)
def test_bad_numbers_of_particles(backend, name):
    for number in (0, 2.0):
        with pytest.raises(
            ValueError, match=f"num_particles must be an integer >= 1, got {number}"
        ):
            getattr(backend.api, name)(num_particles=number)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("JVI", {"num_particles": 1}, "num_particles must be at least 2, to leave one out, got 1"),
        ("CIWAE", {"beta": 1.2}, r"beta must be between 0 \(IWAE\) and 1 \(ELBO\).*got 1.2"),
        ("CIWAE", {"beta": -0.1}, r"beta must be between.*got -0.1"),
        ("CIWAE", {"beta": "half"}, r"beta must be between.*got 'half'"),
        ("Renyi", {"alpha": float("inf")}, "alpha must be a finite number, got inf"),
        ("Renyi", {"alpha": "one"}, "alpha must be a finite number, got 'one'"),
        ("DReG", {"kl_weight": -1.0}, "kl_weight must be a number of at least 0"),
    ],
)
def test_bad_settings(backend, name, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(backend.api, name)(**options)


def test_pyros_svi_evaluates_without_gradients():
    """Though the objective takes derivatives by itself."""
    pytest.importorskip("pyro")
    import pyro

    _, backend = both_backends()
    for name in DOUBLY:
        pyro.clear_param_store()
        objective, optimiser = getattr(backend.api, name)(), pyro.optim.Adam({"lr": 1e-2})
        svi = pyro.infer.SVI(*ONE.pair(backend), optimiser, objective)
        assert np.isfinite(svi.evaluate_loss(real(backend, X)))
