"""`ConditionalVAE`: the prior given labels, sampling and training with labels."""

import importlib

import numpy as np
import pytest
from kernel_parts import double_precision
from layered_cases import (
    LABELS,
    PATTERNS,
    build,
    labelled,
    log_normal,
    normal_block,
    one_hot,
    opened,
    rows_for,
)
from objective_runs import losses

from ppl_vae.weights import write_weights

KERNELS = ("MWGKernel", "ACMWGKernel", "LAIRKernel", "PseudoGibbsKernel")
NAMES = ("analytic-elbo", "dreg", "elbo", "forward-kl", "gdreg", "iwae")
VARIANTS = ("ciwae", "iwae-stl", "jvi", "normalised-iwae", "renyi", "rws", "rws-dreg", "stl")


# --- the divergence from the prior ----------------------------------------------------------


def divergence(weights, x, labels):
    """KL(q(z1 | x, y) || p(z1 | y)) of a program with one layer, as the textbook has it."""
    y = one_hot(labels)
    loc, scale = normal_block(weights, "q_z1", np.concatenate([x, y], -1))
    m, s = normal_block(weights, "p_z1", y) if "p_z1.loc.bias" in weights else (0.0, 1.0)
    each = np.log(s / scale) + (scale**2 + (loc - m) ** 2) / (2 * s**2) - 0.5
    return each.sum(-1)


@pytest.mark.parametrize("prior", ["learned", "standard"])
def test_the_closed_form_measures_the_distance_to_the_prior_given_labels(backend, prior, tmp_path):
    """The same draws with and without the divergence: what they differ by is the divergence.

    By draws, which take the model's own p(z | y), it comes out alike. False alarms: 1e-5, by the
    standard error of 3000 draws.
    """
    api, num_draws = backend.api, 3000
    with double_precision(backend):
        program = build(backend, 1, labels=True, prior=prior)
        fitted, weights = opened(backend, program, tmp_path / "w")
        pair = fitted.model, fitted.guide
        x, _, labels = rows_for(program)
        exact = divergence(weights, x, labels)

        def part(objective, **options):
            each = [
                losses(backend, objective(kl_weight=w, **options), pair, x, labels=labels)
                for w in (1.0, 0.0)
            ]
            return (each[0] - each[1]).item()

        analytic = part(api.AnalyticELBO)
        by_draws = part(api.ELBO, num_particles=num_draws)
    np.testing.assert_allclose(analytic, exact.sum(), rtol=1e-10)

    loc, scale = normal_block(weights, "q_z1", np.concatenate([x, one_hot(labels)], -1))
    m, s = normal_block(weights, "p_z1", one_hot(labels)) if prior == "learned" else (0.0, 1.0)
    draws = loc + scale * np.random.default_rng(0).normal(size=(num_draws, *loc.shape))
    terms = (log_normal(draws, loc, scale) - log_normal(draws, m, s + 0 * loc)).sum(-1)
    error = terms.std() / np.sqrt(num_draws)
    assert abs(by_draws - exact.sum()) < 4.5 * error
    standard = divergence({k: v for k, v in weights.items() if k[:4] != "p_z1"}, x, labels).sum()
    assert prior == "standard" or abs(standard - exact.sum()) > 20 * error  # it could be told


def test_the_closed_form_of_a_hierarchy_has_the_expectation_of_draws(backend, tmp_path):
    """KL(q(z2 | z1) || p(z2 | y)) in closed form; q(z1 | x, y) against p(z1 | z2) by draws.

    With a closed form for z1 too, as if z2 did not depend on it, the value would be another. False
    alarms: 1e-5, by the standard error of 20,000 draws of both sides.
    """
    num_draws, rng, path = 20_000, np.random.default_rng(1), tmp_path / "w"
    with double_precision(backend):
        program = build(backend, 2, labels=True, hidden=((5,), ()))
        _, weights = opened(backend, program, path)
        for block in ("q_z2", "p_z1"):  # z1 and z2 depend on each other
            weights[f"{block}.loc.weight"] *= 2
            weights[f"{block}.log_scale.weight"] *= 0  # else exp(linear) has heavy tails
        write_weights(path, weights, {"architecture": program.architecture()})
        fitted = backend.api.load(path)
        x, _, labels = rows_for(program)
        came = [
            losses(
                backend,
                backend.api.AnalyticELBO(kl_weight=w, num_particles=num_draws),
                (fitted.model, fitted.guide),
                x,
                labels=labels,
            ).item()
            for w in (1.0, 0.0)
        ]
    y = one_hot(labels)
    first = normal_block(weights, "q_z1", np.concatenate([x, y], -1))
    z1, other = (first[0] + first[1] * rng.normal(size=(num_draws, *first[0].shape)) for _ in "ab")
    second = normal_block(weights, "q_z2", z1)
    z2 = second[0] + second[1] * rng.normal(size=second[0].shape)
    above = log_normal(z2, *second) - log_normal(z2, *normal_block(weights, "p_z2", y))
    below, apart = (
        log_normal(z, *first) - log_normal(z, *normal_block(weights, "p_z1", z2))
        for z in (z1, other)
    )
    terms, wrong = (above + below).sum(-1), (above + apart).sum(-1)
    error = np.sqrt(2 / num_draws) * np.array([terms.std(), wrong.std()])
    assert abs(came[0] - came[1] - terms.mean()) < 4.5 * error[0]
    assert abs(wrong.mean() - terms.mean()) > 20 * error.max()


@pytest.mark.parametrize("num_layers", [1, 3])
def test_stopped_and_live_densities_are_equal(backend, num_layers, tmp_path):
    """The reference adds its scale floor twice where the gradient is stopped."""
    api = backend.api
    with double_precision(backend):
        program = build(backend, num_layers, labels=True)
        fitted, _ = opened(backend, program, tmp_path / "w")
        x, _, labels = rows_for(program)
        pairs = ((api.STL, api.ELBO), (api.IWAESTL, api.IWAE), (api.DReG, api.IWAE))
        for stopped, live in pairs:
            each = [
                losses(
                    backend, kind(num_particles=3), (fitted.model, fitted.guide), x, labels=labels
                )
                for kind in (stopped, live)
            ]
            np.testing.assert_allclose(each[0], each[1], rtol=1e-12)


# --- sampling -------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_hand_each_row_its_label(backend, kernel, tmp_path):
    fitted, x = labelled(backend, tmp_path / "w")
    mcmc = backend.run(
        getattr(backend.api, kernel)(fitted.model, fitted.guide),
        backend.array(x), backend.array(LABELS), num_samples=20, num_chains=2,
    )  # fmt: skip
    draws = backend.draws(mcmc)
    seen = ~np.isnan(x)
    assert draws["x"].shape[-2:] == x.shape
    assert (draws["x"][..., seen] == x[seen]).all()
    # A pixel differs from the pattern with probability 0.02; from another label's, for half of
    # them. False alarms: below 1e-9 for 1000 pixels, were they independent.
    agree = (draws["x"] == PATTERNS[LABELS])[..., ~seen].mean(
        axis=tuple(range(draws["x"].ndim - 2))
    )
    assert agree.mean() > 0.9
    assert agree.min() > 0.5


@pytest.mark.parametrize("kernel", [KERNELS[2]])
def test_kernels_run_a_chain_of_three_layers(backend, kernel, tmp_path):
    program = build(backend, 3)
    fitted, _ = opened(backend, program, tmp_path / "w", np.float32)
    x, z, _ = rows_for(program, dtype=np.float32)
    x[:, ::2] = np.nan
    mcmc = backend.run(
        getattr(backend.api, kernel)(fitted.model, fitted.guide),
        backend.array(x), num_samples=3, num_chains=2,
    )  # fmt: skip
    draws = backend.draws(mcmc)
    seen = ~np.isnan(x)
    assert {"x", *z} <= draws.keys()
    assert all(draws[name].shape[-2:] == value.shape for name, value in z.items())
    assert (draws["x"][..., seen] == x[seen]).all()
    assert set(np.unique(draws["x"])) == {0, 1}


def test_the_hosts_predictive_runs(backend, tmp_path):
    fitted, x = labelled(backend, tmp_path / "w")
    x = np.nan_to_num(x)
    predictive = importlib.import_module(f"{backend.name}.infer").Predictive
    labels = backend.array(LABELS)

    def draw(fn, *args, **options):
        made = predictive(fn, **options)
        if backend.name == "pyro":
            return made(*args)
        from jax import random

        return made(random.key(0), *args)

    prior = draw(fitted.model, None, labels, num_samples=3)
    assert prior["x"].shape == (3, 7, 6)
    assert (np.asarray(prior["x"]) == PATTERNS[LABELS]).mean() > 0.9
    for parallel in (True, False):
        z = draw(fitted.guide, backend.array(x), labels, num_samples=3, parallel=parallel)
        z = {name: z[name] for name in ("z1", "z2")}
        assert z["z1"].shape == z["z2"].shape == (3, 7, 2)
        made_of_z = draw(fitted.model, None, labels, posterior_samples=z, parallel=parallel)["x"]
        assert (np.asarray(made_of_z) == PATTERNS[LABELS]).mean() > 0.9


# --- training -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [*NAMES, *(pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS)]
)
def test_every_objective_trains_a_hierarchy_with_labels(backend, name):
    named = importlib.import_module(f"ppl_vae.inference.{backend.name}.named_objectives")
    assert set(named.OBJECTIVES) == {*NAMES, *VARIANTS}
    program = build(backend, 2, labels=True)
    x, _, labels = rows_for(program, 6, np.float32)
    x[0, 1] = np.nan
    rows = backend.array(x), labels  # numpy's own
    first = backend.fit(program, *rows, objective=name, num_steps=1, batch_size=3)
    before = weights_of(backend, first)
    last = backend.fit(first, *rows, objective=name, num_steps=2, batch_size=3)
    assert np.isfinite(last.losses).all()
    still = {k for k, w in weights_of(backend, last).items() if np.array_equal(w, before[k])}
    of_model = {k for k in before if k[:2] != "q_"}
    assert still == (of_model if name == "forward-kl" else set())


def weights_of(backend, fitted):
    return fitted.program.to_weights(*((fitted.params,) if backend.name == "numpyro" else ()))
