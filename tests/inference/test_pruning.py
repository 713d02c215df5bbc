"""Cutting dead units changes nothing; cutting live ones is cutting their columns.

Scores beyond 5 of a normal law: false alarm 6e-7 a number; the seeds are fixed.
"""

from dataclasses import replace

import numpy as np
import pytest
from host_words import run, words
from kernel_parts import module, real
from seeded_calls import call
from unit_programs import DEAD, TRUTH, WEIGHT, X_2, X, layers, log_p, normal_pair, units_of


@pytest.mark.exact
def test_pruning_dead_units_leaves_the_likelihood(backend):
    """Before and after, of the units found dead, in one and in two layers."""
    for pair, x, shapes in (
        (normal_pair(backend, stretch=1.3), X, {"z": 3}),
        (layers(backend), X_2, {"z1": 3, "z2": 2}),
    ):
        pruned, x = backend.api.prune(*pair, units_of(backend, pair, x)), x[:40]
        before, error = log_p(backend, pair, x, num_particles=4_000)
        after, error_after = log_p(backend, pruned, x, num_particles=4_000)
        combined = np.hypot(error, error_after)
        assert np.abs((after - before) / combined).max() < 5
        total = (combined**2).sum() ** 0.5
        assert abs(float((after - before).sum())) < 5 * total < 2
        idata = call(backend, "importance_posterior", pruned, x, progress_bar=False,
                     num_particles=20, num_samples=5)  # fmt: skip
        for site, size in shapes.items():
            assert idata["posterior"][site].shape == (1, 5, 40, size)


@pytest.mark.exact
def test_pruned_model_is_that_with_the_columns_cut(backend):
    """Unit 0 is used: cutting it changes log p(x) to that of W without its column."""
    rng = np.random.default_rng(0)
    pair = normal_pair(backend, stretch=1.5)
    flags = np.arange(5) < 1
    smaller = replace(TRUTH, weight=np.delete(WEIGHT, 0, 1))
    x = smaller.draw(rng, 32).astype("float32")
    all_seen = np.ones(8, bool)
    expected = np.array([smaller.log_evidence(row, all_seen) for row in x])
    model, _ = backend.api.prune(*pair, {"z": flags})
    _, guide = backend.api.prune(*normal_pair(backend, smaller, 1.5), {"z": []})
    found, error = log_p(backend, (model, guide), x, num_particles=5_000)
    assert np.abs((found - expected) / error).max() < 5
    assert (error < 0.1).all()
    whole = [TRUTH.log_evidence(row, all_seen) for row in x]
    assert (np.abs(whole - expected) > 5 * error).mean() > 0.5


def test_all_units_can_be_cut(backend):
    """Then log p(x) is that of z = 0, and certain."""
    rng = np.random.default_rng(0)
    x = TRUTH.draw(rng, 3).astype("float32")
    pair = backend.api.prune(*normal_pair(backend), {"z": np.ones(5, bool)})
    found, error = log_p(backend, pair, x, num_particles=20)
    nothing = replace(TRUTH, weight=0 * WEIGHT)
    expected = [nothing.log_evidence(row, np.ones(8, bool)) for row in x]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(error, 0, atol=1e-4)


def test_zeros_stand_where_units_were_cut(backend):
    """A site with two axes, and one that is a number; what the program sees of them."""
    ppl, seen = words(backend), {}

    def program(x, obs=None):
        with ppl.plate("rows", len(x)):
            grid = ppl.dist.Normal(5.0 + 0 * x[:, :, None] + real(backend, np.zeros(2)), 0.1)
            seen["grid"] = ppl.sample("grid", grid.to_event(2))
            seen["number"] = ppl.sample("number", ppl.dist.Normal(5.0 + 0 * x[:, 0], 0.1))

    def model(x):
        program(x)
        with ppl.plate("data", len(x)):
            ppl.sample("x", ppl.dist.Normal(0 * x, 1.0).to_event(1), obs=x)

    cut = {"grid": [0, 3], "number": [0]}
    pruned = backend.api.prune(model, program, cut)
    x, mask = real(backend, np.zeros((4, 3))), backend.array(np.ones((4, 3), bool))
    bound = module(backend, "program").Program(*pruned, x, mask)
    for trace in (bound.trace_guide, bound.trace_model):
        sites = run_once(backend, trace, x if trace == bound.trace_guide else None)
        assert sites["grid"]["value"].shape == (4, 4)
        assert sites["number"]["value"].shape == (4, 0)
        assert sites["number"]["fn"].log_prob(sites["number"]["value"]).shape == (4,)
        grid = np.asarray(seen["grid"]).reshape(4, 6)
        np.testing.assert_array_equal(grid[:, [1, 2, 4, 5]], np.asarray(sites["grid"]["value"]))
        assert (np.abs(grid[:, [1, 2, 4, 5]] - 5) < 1).all()
        np.testing.assert_array_equal(grid[:, [0, 3]], 0)
        np.testing.assert_array_equal(np.asarray(seen["number"]), np.zeros(4))


def run_once(backend, trace, x):
    args = () if x is None else (x,)
    if backend.name == "numpyro":
        from jax import random

        return trace(*args, key=random.key(0))
    return trace(*args)


FAMILIES = {
    "Laplace": lambda d, a: d.Laplace(a, 1.0),
    "StudentT": lambda d, a: d.StudentT(3.0, a, 2.0),
    "Gamma": lambda d, a: d.Gamma(2.0, a),
    "Beta": lambda d, a: d.Beta(a, 2.0),
    "LogNormal": lambda d, a: d.LogNormal(a, 0.5),
    "Uniform": lambda d, a: d.Uniform(0.0, a),
    "Bernoulli": lambda d, a: d.Bernoulli(logits=a),
    "Poisson": lambda d, a: d.Poisson(a),
    "transformed": lambda d, a: d.TransformedDistribution(
        d.Normal(a, 1.0), [d.transforms.ExpTransform()]
    ),
}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_families_keep_their_entries(backend, family):
    """The density of what stays, and its draws' support, entry by entry."""
    ppl = words(backend)
    parameter = real(backend, 1.0 + np.arange(6).reshape(2, 3))
    whole = FAMILIES[family](ppl.dist, parameter)
    cut = module(backend, "pruning")._cut("z", whole.to_event(1), np.array([0, 2]))
    filled = np.array([[0.5, 0.5, 0.25], [0.125, 0.5, 0.75]])
    if family in ("Bernoulli", "Poisson"):
        filled = np.array([[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    filled, value = real(backend, filled), real(backend, filled[:, [0, 2]])
    expected = np.asarray(whole.log_prob(filled))[:, [0, 2]].sum(1)
    np.testing.assert_allclose(np.asarray(cut.log_prob(value)), expected, rtol=1e-5)
    assert (tuple(cut.batch_shape), tuple(cut.event_shape)) == ((2,), (2,))


@pytest.mark.parametrize("name", ["MWGKernel", "LAIRKernel", "HMCRefreshKernel", "ACMWGKernel"])
def test_kernels_run_pruned_programs(backend, name):
    rng = np.random.default_rng(0)
    x = np.where(rng.random((6, 8)) < 0.6, X[:6], np.nan).astype("float32")
    pair = backend.api.prune(*normal_pair(backend, stretch=1.3), {"z": DEAD})
    if name == "HMCRefreshKernel":  # moves the draws of another kernel
        pair = (backend.api.MWGKernel(*pair),)
    mcmc = run(backend, pair, x, name=name, num_samples=4)
    z = backend.draws(mcmc)["z"]
    assert z.shape[-2:] == (6, 3)
    assert np.isfinite(z).all()


@pytest.mark.parametrize("objective", ["iwae", "analytic-elbo", "gdreg"])
def test_pruned_programs_are_trained(backend, objective):
    vae = backend.api.VAE((8,), 3, hidden=(4,), likelihood="normal")
    pair = backend.api.prune(vae.model, vae.guide, {"z": [1]})
    x = backend.array(X[:50])
    fitted = backend.fit(pair, x, objective=objective, num_steps=4, batch_size=10)
    assert np.isfinite(fitted.losses).all()
    found, _ = log_p(backend, (fitted.model, fitted.guide), X[:4], num_particles=3)
    assert np.isfinite(found).all()


def test_guides_that_take_the_mask_get_it(backend):
    ppl, got = words(backend), []

    def model(x):
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0 * x[:, :2], 1.0).to_event(1))
            ppl.sample("x", ppl.dist.Normal(z[..., :1] + 0 * x, 1.0).to_event(1), obs=x)

    def guide(x, *, mask=None):
        got.append(mask is not None and mask.shape == x.shape)
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(0 * x[:, :2], 1.0).to_event(1))

    log_p(backend, backend.api.prune(model, guide, {"z": [1]}), X[:4], num_particles=3)
    assert got
    assert all(got)


def test_what_cannot_be_pruned(backend):
    pair = normal_pair(backend)
    for units, message in (
        ({"u": [0]}, r"Units of sites \['u'\] were to be cut, but the \w+ has the latent sites"),
        ({"z": [5]}, r"Site 'z' has units 0 to 4, but units \[5\] were to be cut"),
        ({"z": [-1]}, r"Site 'z' has units 0 to 4, but units \[-1\] were to be cut"),
        ({"z": [True, False]}, "Site 'z' has 5 units a row, but 2 flags were given"),
    ):
        with pytest.raises(ValueError, match=message):
            log_p(backend, backend.api.prune(*pair, units), X[:4], num_particles=2)
    for units, error, message in (
        ([0, 1], TypeError, "units must map sites to the units to cut"),
        ({"z": [0.5]}, TypeError, "must be indices, or one flag a unit"),
        ({"z": [[0, 1]]}, TypeError, "must be indices, or one flag a unit"),
        ({"z": [1, 1]}, ValueError, "name a unit twice"),
        ({}, ValueError, "units names no site"),
    ):
        with pytest.raises(error, match=message):
            backend.api.prune(*pair, units)
    correlated = backend.programs.linear_gaussian(TRUTH)
    with pytest.raises((NotImplementedError, ValueError), match="its entries depend on each other"):
        log_p(backend, backend.api.prune(*correlated, {"z": [0]}), X[:4], num_particles=2)


def test_bad_arguments(backend):
    pair = normal_pair(backend)
    for options, x, message in (
        ({"num_particles": 1}, X[:4], "num_particles must be an integer >= 2, got 1"),
        ({"chunk_size": 0}, X[:4], "chunk_size must be an integer >= 1, got 0"),
        ({}, X[:1], "the number of rows must be an integer >= 2, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            units_of(backend, pair, x, **options)
