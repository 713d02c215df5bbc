"""Objectives against quadrature and closed forms: values, gradients, masks, mini-batches."""

import numpy as np
import pytest
from gaussian_chains import BIAS, NOISE, ONE, TWO, WEIGHT, flat
from host_words import words
from kernel_parts import both_backends, double_precision, real
from objective_runs import assert_unbiased, gradients, losses, pyro_gradients
from oracles import LinearGaussian

RNG = np.random.default_rng(0)
X = 1.5 * RNG.normal(size=(6, 3))
MASK = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]], bool)


# --- gradients ------------------------------------------------------------------------------

CASES = {
    "ELBO": (ONE, "ELBO", {}),
    "ELBO, two sites, two particles": (TWO, "ELBO", {"num_particles": 2}),
    "ELBO, weighted": (ONE, "ELBO", {"kl_weight": 0.3}),
    "analytic": (ONE, "AnalyticELBO", {}),
    "analytic, two sites, weighted": (TWO, "AnalyticELBO", {"kl_weight": 0.3, "num_particles": 2}),
    "STL": (ONE, "STL", {"num_particles": 2}),
    "STL, two sites": (TWO, "STL", {}),
    "STL, two sites, two particles": (TWO, "STL", {"num_particles": 2}),
    "IWAE": (ONE, "IWAE", {"num_particles": 2}),
    "IWAE, two sites, weighted": (TWO, "IWAE", {"num_particles": 2, "kl_weight": 0.3}),
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_unbiased(backend, case):
    """Against quadrature, rows complete and incomplete; every parameter of model and guide."""
    chain, name, options = CASES[case]
    num_particles = 2 if name == "IWAE" else 1  # the mean of two draws has one's expectation
    exact = chain.gradient(
        X, MASK, num_particles=num_particles, kl_weight=options.get("kl_weight", 1.0)
    )
    with double_precision(backend):
        objective = getattr(backend.api, name)(**options)
        draws = gradients(backend, objective, chain, X, mask=MASK)
    assert_unbiased(draws, exact)


@pytest.mark.parametrize("chain", [ONE, TWO], ids=["one site", "two sites"])
def test_stl_has_no_variance_at_the_posterior(backend, chain):
    """Nor a gradient of the guide at all; the ELBO's has mean zero and a variance."""
    exact = chain.with_exact_guide()
    is_guide = flat({n: np.full(np.shape(v), n != "weight") for n, v in exact.parameters.items()})
    with double_precision(backend):
        stl = gradients(backend, backend.api.STL(), exact, X, num_draws=20)[:, is_guide]
        elbo = gradients(backend, backend.api.ELBO(), exact, X, num_draws=20)[:, is_guide]
    assert np.abs(stl).max() < 1e-8
    assert elbo.std(0).min() > 0.05


# --- mini-batches ---------------------------------------------------------------------------

MANY = 1.5 * RNG.normal(size=(100, 3))


def batch_gradients(gradient_of, num_epochs=60):
    """Ten rows at a time of 100: (N / B) times the gradient of each batch, epoch by epoch."""
    batches = np.stack([gradient_of(rows, num_epochs) for rows in MANY.reshape(10, 10, 3)])
    return 10 * batches.mean(0)  # the mean over an epoch's batches, one for each epoch


def test_batches_average_to_all_rows(backend):
    exact = ONE.gradient(MANY, np.ones(MANY.shape, bool), num_particles=2)
    with double_precision(backend):
        objective = backend.api.IWAE(num_particles=2)
        draws = batch_gradients(
            lambda rows, n: gradients(backend, objective, ONE, rows, num_draws=n)
        )
    assert_unbiased(draws, exact)


@pytest.mark.parametrize(("loss", "num_particles"), [("Trace_ELBO", 1), ("RenyiELBO", 2)])
def test_renyi_elbo_of_pyro_does_not(loss, num_particles):
    """The negative control: log of a mean of weights of whole batches, each to the power N / B.

    Pyro's ELBO passes by the same way, so that it is this loss that fails, and not the test.
    """
    pytest.importorskip("pyro")
    import pyro

    _, backend = both_backends()
    options = {"alpha": 0.0} if loss == "RenyiELBO" else {}
    hosts = getattr(pyro.infer, loss)(num_particles=num_particles, **options)
    exact = ONE.gradient(MANY, np.ones(MANY.shape, bool), num_particles=num_particles)

    def gradient_of(rows, num_draws):
        pair = [pyro.poutine.scale(fn, 10.0) for fn in ONE.pair(backend)]  # 10 of 100 rows
        draws = pyro_gradients(hosts.loss_and_grads, pair, real(backend, rows), num_draws, {})
        return -np.array(list(draws)) / 10

    with double_precision(backend):
        draws = batch_gradients(gradient_of, num_epochs=200)
    if loss == "Trace_ELBO":
        assert_unbiased(draws, exact)
        return
    with pytest.raises(AssertionError):
        assert_unbiased(draws, exact)


# --- values ---------------------------------------------------------------------------------


def evidence(x, mask):
    truth = LinearGaussian(WEIGHT[:, None], BIAS, NOISE)
    return sum(truth.log_evidence(*row) for row in zip(x, mask, strict=True))


def posterior_pair(backend):
    """The model of `ONE` with p(z | x_o) as its guide, which sees the mask."""
    ppl = words(backend)
    model, _ = ONE.pair(backend)

    def guide(x, mask):
        weight = real(backend, WEIGHT) * mask / NOISE**2
        variance = 1 / (1 + weight @ real(backend, WEIGHT))
        loc = variance * (weight * (x - real(backend, BIAS))).sum(-1)
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z1", ppl.dist.Normal(loc, variance**0.5))

    return model, guide


@pytest.mark.parametrize("filler", [0.0, 1e6, np.nan])
@pytest.mark.parametrize("name", ["ELBO", "STL", "IWAE"])
def test_the_exact_guide_gives_the_evidence(backend, name, filler):
    """Of x_o alone, whatever stands behind the mask and whatever is drawn."""
    with double_precision(backend):
        pair, objective = posterior_pair(backend), getattr(backend.api, name)(num_particles=3)
        x = np.where(MASK, X, filler)
        loss = losses(backend, objective, pair, x, seeds=range(3), mask=MASK)
    np.testing.assert_allclose(-loss, evidence(X, MASK), rtol=1e-10)


@pytest.mark.parametrize("name", ["ELBO", "AnalyticELBO", "STL", "IWAE"])
def test_what_the_mask_hides_has_no_influence(backend, name):
    objective = getattr(backend.api, name)(num_particles=2)
    pair = ONE.pair(backend)
    first, *others = (
        losses(backend, objective, pair, np.where(MASK, X, filler), mask=MASK)
        for filler in (0.0, -1e6, np.nan)
    )
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_one_particle_is_the_elbo(backend):
    api = backend.api
    for chain in (ONE, TWO):
        pair = chain.pair(backend)
        elbo, stl, iwae = (
            losses(backend, objective, pair, X, seeds=range(3), mask=MASK)
            for objective in (api.ELBO(), api.STL(), api.IWAE(num_particles=1))
        )
        np.testing.assert_allclose(elbo, iwae, rtol=1e-6)
        np.testing.assert_allclose(elbo, stl, rtol=1e-6)


def test_more_particles_tighten_the_bound(backend):
    """Up to the evidence; means over 1000 copies of each row, false alarms below 1e-4."""
    with double_precision(backend):
        many, mask = np.tile(X, (1000, 1)), np.tile(MASK, (1000, 1))
        pair = ONE.pair(backend)
        bounds = [
            -losses(backend, backend.api.IWAE(num_particles=k), pair, many, mask=mask)[0] / 1000
            for k in (1, 2, 8, 32)
        ]
    exact = [ONE.bound(X, MASK, num_particles=k) for k in (1, 2)]
    np.testing.assert_allclose(bounds[:2], exact, atol=1.0)
    assert (np.diff([*bounds, evidence(X, MASK)]) > [1.0, 1.0, 0.1, 0.0]).all(), bounds


def test_divergences_are_exact(backend):
    """With nothing observed the bound is minus KL(q || p), which has no noise."""
    nothing = np.zeros(X.shape, bool)
    shift, scale = (ONE.parameters[name] for name in ("shift", "scale"))
    divergence = 0.5 * (shift**2 + scale**2 - 1) - np.log(scale)
    with double_precision(backend):
        objective = backend.api.AnalyticELBO()
        loss = losses(backend, objective, ONE.pair(backend), X, seeds=range(3), mask=nothing)
    np.testing.assert_allclose(loss, len(X) * divergence, rtol=1e-10)


# --- cost -----------------------------------------------------------------------------------


def test_the_encoder_is_run_once_for_all_particles(backend):
    """Hidden units of a row, of which no array may have a copy for each particle."""
    ppl = words(backend)
    inner = real(backend, np.ones((3, 17)))
    model, _ = ONE.pair(backend)
    encoded = []

    def guide(x):
        hidden = x @ inner
        encoded.append(tuple(hidden.shape))
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z1", ppl.dist.Normal(hidden.sum(-1), 1.0))

    objective = backend.api.IWAE(num_particles=5)
    if backend.name == "pyro":
        losses(backend, objective, (model, guide), X)  # the first looks at the program, too
        encoded.clear()
        losses(backend, objective, (model, guide), X)
        assert encoded == [(6, 17)]
        return
    import jax
    from jax import random

    x = real(backend, X)
    trace = str(jax.make_jaxpr(lambda key: objective.loss(key, {}, model, guide, x))(random.key(0)))
    assert trace.count("[6,17]") >= 1
    assert "[5,6,17]" not in trace
    assert len(encoded) == 2  # one of them looks at the program, and is not computed
