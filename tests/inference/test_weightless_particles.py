"""Particles of no weight: a guide that also draws where the prior has no density."""

import numpy as np
import pytest
from gaussian_chains import ONE, flat
from host_words import clear_parameters, words
from kernel_parts import bind, double_precision, module, real, seeded
from objective_runs import loss_and_gradient
from pooled_draws import pooled
from scipy import stats
from scipy.special import logsumexp, softmax

from ppl_vae.diagnosis import diagnose

X = 1.5 * np.random.default_rng(0).normal(size=(6, 3))
POSITIVE = np.abs(X)  # so that no row is left without any weight
A, B, GAIN, WEIGHT = 0.3, 0.7, 0.4, ONE.parameters["weight"]


def half_line(backend):
    """z ~ LogNormal(a, b) in the model, where the guide draws z ~ N(gain x_0, 1), also below 0."""
    ppl = words(backend)

    def model(x):
        a, b = (ppl.param(n, real(backend, v)) for n, v in (("a", A), ("b", B)))
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.LogNormal(a + 0 * x[:, 0], b))
            loc = z[..., None] * real(backend, WEIGHT)
            ppl.sample("x", ppl.dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x):
        gain = ppl.param("gain", real(backend, GAIN))
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z", ppl.dist.Normal(gain * x[:, 0], 1.0))

    return model, guide


class HalfLine:
    """In place of a `Chain`."""

    parameters = {"a": np.array(A), "b": np.array(B), "gain": np.array(GAIN)}  # noqa: RUF012

    def on(self, backend):
        return {name: real(backend, value) for name, value in self.parameters.items()}

    def pair(self, backend):
        return half_line(backend)


def drawn(backend, num_particles):
    """The draws of `loss_and_gradient` with its first seed, (K, B)."""
    clear_parameters(backend)
    program = bind(backend, half_line(backend), POSITIVE, np.ones(POSITIVE.shape, bool))
    if backend.name == "numpyro":
        from dataclasses import replace

        program = replace(program, params=HalfLine().on(backend))
        return np.asarray(
            seeded(backend, module(backend, "particles").draw, 0, program, num_particles)["z"]
        )
    sites = seeded(backend, module(backend, "particles").draw_particles, 0, program, num_particles)
    return np.asarray(sites["z"]["value"])


def by_hand(z, name):
    """Bound and gradient by (a, b, gain) of what has weight, at draws z (K, B)."""

    def log_prior(z):
        safe = np.where(z > 0, z, 1.0)
        return np.where(z > 0, stats.norm.logpdf(np.log(safe), A, B) - np.log(safe), -np.inf)

    loc = GAIN * POSITIVE[:, 0]
    log_x = stats.norm.logpdf(POSITIVE, z[..., None] * WEIGHT).sum(-1)
    log_weight = log_x + log_prior(z) - stats.norm.logpdf(z, loc)
    share, safe = softmax(log_weight, 0), np.where(z > 0, z, 1.0)
    noise = (np.log(safe) - A) / B
    slope_x = ((POSITIVE - safe[..., None] * WEIGHT) * WEIGHT).sum(-1)
    slope_p, slope_q = -(noise / B + 1) / safe, loc - safe
    slope = slope_x + slope_p - slope_q
    coefficient = {"DReG": share**2, "GDReG": share**2, "RWSDReG": share - share**2}
    path = coefficient.get(name, share) * slope  # of a draw z = gain x_0 + noise
    if name in ("IWAE", "NormalisedIWAE"):
        path = share * (slope + slope_q)  # and less what log q changes at the draw as it is
    if name == "RWS":
        path = -share * slope_q
    by_a, by_b = share * noise / B, share * (noise**2 - 1) / B
    if name == "GDReG":
        by_a = share * ((1 - share) * slope + slope_q - slope_p) * safe
        by_b = by_a * noise
    gradient = {"a": by_a.sum(), "b": by_b.sum(), "gain": (path.sum(0) * POSITIVE[:, 0]).sum()}
    return (logsumexp(log_weight, 0) - np.log(len(z))).sum(), flat(gradient)


WEIGHED = ["DReG", "GDReG", "IWAE", "IWAESTL", "NormalisedIWAE", "RWS", "RWSDReG"]


@pytest.mark.parametrize("name", WEIGHED)
def test_particles_without_weight_count_for_nothing(backend, name):
    """A prior on the half line: finite, and as by hand from what is left."""
    with double_precision(backend):
        z = drawn(backend, 8)
        objective = getattr(backend.api, name)(num_particles=8)
        loss, gradient = loss_and_gradient(backend, objective, HalfLine(), POSITIVE)
    assert ((z <= 0).any(0) & (z > 0).any(0)).sum() >= 4
    assert (z > 0).any(0).all()
    bound, exact = by_hand(z, name)
    if name != "NormalisedIWAE":
        np.testing.assert_allclose(-loss, bound, rtol=1e-10)
    np.testing.assert_allclose(-gradient, exact, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("name", "options"), [("JVI", {}), ("Renyi", {}), ("CIWAE", {"beta": 0})])
def test_other_bounds_are_finite_without_weight(backend, name, options):
    with double_precision(backend):
        objective = getattr(backend.api, name)(num_particles=8, **options)
        loss, gradient = loss_and_gradient(backend, objective, HalfLine(), POSITIVE)
    assert np.isfinite([loss, *gradient]).all()


@pytest.mark.parametrize("name", ["ELBO", "STL", "IWAE", "DReG"])
def test_no_weight_of_the_divergence_leaves_the_likelihood(backend, name):
    """0 times an infinite log p(z) is 0: the first step of a warm-up is finite."""
    with double_precision(backend):
        objective = getattr(backend.api, name)(num_particles=8, kl_weight=0.0)
        loss, gradient = loss_and_gradient(backend, objective, HalfLine(), POSITIVE)
    assert np.isfinite([loss, *gradient]).all()


@pytest.mark.filterwarnings("ignore:invalid value encountered in subtract")  # -inf at both rows
def test_data_without_density_are_found(backend):
    """x_0 ~ N(z, 1e-25) has none at 500; of pooled draws lp alone tells so."""
    ppl = words(backend)

    def model(x):
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.Normal(0 * x[:, 0], 1.0))
            scale = real(backend, np.array([1e-25, 1.0]))
            ppl.sample("x", ppl.dist.Normal(z[:, None] + 0 * x, scale).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z", ppl.dist.Normal(0 * x[:, 0], 1.0))

    x = backend.array(np.array([[500.0, np.nan], [500.0, np.nan]], "float32"))
    for name in ("LAIRKernel", "MWGKernel", "ACMWGKernel"):
        kernel = getattr(backend.api, name)(model, guide)
        mcmc = backend.run(kernel, x, num_samples=30, num_chains=2)
        results = [backend.api.to_inference_data(mcmc)]
        results += [pooled(backend, mcmc, 30)] if name == "LAIRKernel" else []
        for idata in results:
            (finding,) = diagnose(idata)
            assert finding.pitfall == "no usable weights"
            assert finding.rows.tolist() == [0, 1]
