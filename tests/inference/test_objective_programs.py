"""Gradient estimators with masks, with discrete and other sites, and with bad settings."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from gaussian_chains import ONE
from host_words import words
from kernel_parts import both_backends, double_precision, module, real
from objective_runs import assert_unbiased, gradients, loss_and_gradient, losses
from scipy.special import expit

RNG = np.random.default_rng(0)
X = 1.5 * RNG.normal(size=(6, 3))
MASK = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]], bool)
ALL = ["CIWAE", "DReG", "GDReG", "IWAESTL", "JVI", "NormalisedIWAE", "RWS", "RWSDReG", "Renyi"]
DOUBLY = ["DReG", "GDReG", "RWSDReG"]


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
    least = getattr(backend.api, name).least_particles
    for number in (0, 2.0):
        with pytest.raises(
            ValueError, match=f"num_particles must be an integer >= {least}, got {number}"
        ):
            getattr(backend.api, name)(num_particles=number)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("JVI", {"num_particles": 1}, "num_particles must be an integer >= 2, got 1"),
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


def test_settings_may_be_numpys_numbers(backend):
    assert backend.api.CIWAE(beta=np.float32(0.5)).beta == 0.5
    assert backend.api.Renyi(alpha=np.float32(0.5)).alpha == 0.5


def test_gdreg_names_the_site_that_it_cannot_draw_again(backend):
    ppl = words(backend)

    def model(x):
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z", ppl.dist.Uniform(0 * x[:, 0], 1.0))
            ppl.sample("x", ppl.dist.Normal(z[:, None] + 0 * x, 1.0).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Uniform(0 * x[:, 0] + 0.2, 0.8))

    with pytest.raises(NotImplementedError, match=r"draws site 'z' from a Uniform.*DReG\(\)"):
        losses(backend, backend.api.GDReG(num_particles=3), (model, guide), X)


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
