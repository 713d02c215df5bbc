"""The twins agree: same inputs, same densities, same decisions."""

import numpy as np
import pytest
from kernel_parts import (
    ac_mwg_state,
    bind,
    both_backends,
    chains,
    decoded,
    double_precision,
    module,
    mwg_state,
    one_chain,
    real,
)
from oracles import Discrete, GammaPoisson, LinearGaussian, TwoModes
from scipy.special import logsumexp

pytest.importorskip("numpyro")
pytest.importorskip("pyro")

TWINS = both_backends()
B = 40
RNG = np.random.default_rng(0)
GAUSSIAN, DISCRETE, COUNTS, MODES = (
    LinearGaussian.example(), Discrete.example(), GammaPoisson(), TwoModes(),
)  # fmt: skip


# name: (program of a backend, completed rows, two latents a row)
PROGRAMS = {
    "linear_gaussian": (
        lambda b: b.programs.linear_gaussian(GAUSSIAN, guide_shift=0.3, guide_stretch=1.3),
        GAUSSIAN.draw(RNG, B), RNG.normal(size=(2, B, 2)),
    ),
    "discrete": (
        lambda b: b.programs.discrete(DISCRETE),
        RNG.integers(0, 2, (B, 5)).astype(float), RNG.integers(0, 8, (2, B)),
    ),
    "gamma_poisson": (
        lambda b: b.programs.gamma_poisson(COUNTS),
        COUNTS.draw(RNG, B)[1], RNG.gamma(2, size=(2, B)),
    ),
    "two_modes": (
        lambda b: b.programs.two_modes(MODES),
        RNG.normal(size=(B, 2)), RNG.normal(size=(2, B)),
    ),
}  # fmt: skip
each_program = pytest.mark.parametrize("name", PROGRAMS)


def both_at(backend, name):
    """(program, rows, the state decoded at the first and at the second latents)."""
    pair, x, z = PROGRAMS[name]
    mask = np.random.default_rng(1).random(x.shape) < 0.5
    program = bind(backend, pair(backend), x, mask)
    array = backend.array if z.dtype.kind == "i" else lambda value: real(backend, value)
    state = mwg_state(backend, program, x, {"z": array(z[0])})
    proposed = decoded(backend, program, chains(backend, {"z": array(z[1])}))
    return program, state.x, proposed, state.current


def both(fn):
    """The result of each twin, numpy."""
    return tuple(np.asarray(fn(backend)) for backend in TWINS)


def close(a, b, tolerance=1e-5):
    """Relative to the largest term: log densities of hundreds of nats cancel in a ratio."""
    scale = max(1.0, np.abs(a[np.isfinite(a)]).max())
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale)


def mwg_log_ratio(backend, name):
    return one_chain(backend, module(backend, "mwg").log_ratio(*both_at(backend, name)))


def ac_mwg_log_ratio(backend, name):
    return one_chain(backend, module(backend, "ac_mwg").log_ratio(*both_at(backend, name), 0.2))


@each_program
def test_densities_agree(name):
    def densities(backend):
        program, x, proposed, current = both_at(backend, name)
        log_q = program.log_proposal(current.z, x)
        full = module(backend, "likelihood").log_prob(current.likelihood, x)
        parts = (log_q, full, current.log_prior, current.log_observed, proposed.log_observed)
        return np.stack([one_chain(backend, part) for part in parts])

    close(*both(densities))


@each_program
@pytest.mark.parametrize("log_ratio", [mwg_log_ratio, ac_mwg_log_ratio])
def test_log_ratios_agree(name, log_ratio):
    close(*both(lambda backend: log_ratio(backend, name)))
    with double_precision(TWINS[0]), double_precision(TWINS[1]):
        pair = tuple(log_ratio(backend, name) for backend in TWINS)
    assert pair[0].dtype == pair[1].dtype == np.float64
    close(*pair, tolerance=1e-10)


@each_program
@pytest.mark.parametrize("log_ratio", [mwg_log_ratio, ac_mwg_log_ratio])
def test_the_same_uniforms_make_the_same_decisions(name, log_ratio):
    """A uniform within rounding of the probability may fall on either side: none does here."""
    uniform = np.random.default_rng(2).random((500, B))

    def decisions(backend):
        log_a = log_ratio(backend, name)
        probability = module(backend, "metropolis").accept_probability(backend.array(log_a))
        return uniform < np.asarray(probability)

    numpyro, pyro = both(decisions)
    assert (numpyro != pyro).sum() <= 1
    assert 0 < numpyro.mean() < 1


def test_hard_ratios_agree():
    log_ratio = np.array([np.nan, np.inf, -np.inf, 0.0, 800.0, -800.0, -1.0], np.float32)

    def probability(backend):
        return module(backend, "metropolis").accept_probability(backend.array(log_ratio))

    for p in both(probability):
        np.testing.assert_allclose(p, [0, 1, 0, 1, 1, 0, np.exp(-1)], rtol=1e-6)


# --- LAIR ------------------------------------------------------------------------------------

LOG_Q = RNG.normal(size=(6, 4, B)).astype(np.float32) * 30
LOG_PRIOR = RNG.normal(size=(6, B)).astype(np.float32) * 30


@pytest.mark.parametrize("num_prior", [0, 1, 2])
def test_mixtures_agree(num_prior):
    def log_mixture(backend):
        log_q, log_prior = (chains(backend, backend.array(a)) for a in (LOG_Q, LOG_PRIOR))
        return one_chain(
            backend, module(backend, "weighting").log_mixture(log_q, log_prior, num_prior)
        )

    numpyro, pyro = both(log_mixture)
    close(numpyro, pyro)
    terms = np.concatenate([LOG_Q, np.repeat(LOG_PRIOR[:, None], num_prior, 1)], 1)
    close(numpyro, logsumexp(terms.astype(float), 1) - np.log(4 + num_prior))


@pytest.mark.parametrize("eps", [0.0, 0.05, 1.0])
def test_defensive_proposals_agree(eps):
    def log_mixture(backend):
        log_mixture_proposal = module(backend, "ac_mwg").log_mixture_proposal
        return log_mixture_proposal(backend.array(LOG_Q[:, 0]), backend.array(LOG_PRIOR), eps)

    numpyro, pyro = both(log_mixture)
    close(numpyro, pyro)
    with np.errstate(divide="ignore"):
        weights = np.log([1 - eps, eps])
    terms = np.stack([LOG_Q[:, 0], LOG_PRIOR]) + weights[:, None, None]
    close(numpyro, logsumexp(terms.astype(float), 0))


def test_ess_agrees():
    def ess(backend):
        log_weight = chains(backend, backend.array(LOG_PRIOR))
        return one_chain(backend, module(backend, "lair").ess_weights(log_weight))

    numpyro, pyro = both(ess)
    close(numpyro, pyro)
    weight = np.exp(LOG_PRIOR.astype(float) - LOG_PRIOR.max(0))
    close(numpyro, weight.sum(0) ** 2 / (weight**2).sum(0))


def test_the_same_uniforms_draw_the_same_ancestors(monkeypatch):
    """Ancestor k is the first whose cumulative share exceeds its uniform."""
    rng = np.random.default_rng(0)
    import torch
    from jax import random

    uniform = rng.random((B, 50)).astype(np.float32)
    log_weight = LOG_PRIOR / 10
    log_weight[1, :20] = -np.inf
    log_weight[5] = -np.inf
    numpyro, pyro = TWINS
    monkeypatch.setattr(random, "uniform", lambda *a, **k: numpyro.array(uniform))
    monkeypatch.setattr(torch, "rand", lambda *a, **k: pyro.array(uniform)[None])
    a = module(numpyro, "resampling").multinomial(None, numpyro.array(log_weight), 50)
    b = module(pyro, "resampling").multinomial(pyro.array(log_weight)[None], 50)[0]
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))

    share = np.exp(log_weight - logsumexp(log_weight, axis=0)).cumsum(0)
    expected = (share[:, None] <= uniform.T).sum(0)
    assert (np.asarray(a) != expected).mean() < 1e-3
    assert not np.isin(np.asarray(a), 5).any()


def test_one_step_of_the_history_agrees():
    """What is in the history is picked, completed with the observed entries."""
    rng = np.random.default_rng(0)
    x, mask = GAUSSIAN.draw(rng, B), rng.random((B, 5)) < 0.5
    past = GAUSSIAN.draw(rng, B)

    def picked(backend):
        pair = backend.programs.linear_gaussian(GAUSSIAN)
        program = bind(backend, pair, x, mask)
        z = {"z": backend.array(np.zeros((B, 2), np.float32))}
        state = ac_mwg_state(backend, program, x, z, past, history_size=3)
        pick = module(backend, "history").pick
        data = (state.history, program.x_obs, program.mask)
        if backend.name == "pyro":
            return pick(*data)[0]
        from jax import random

        return pick(random.key(0), *data)

    for result in both(picked):
        np.testing.assert_allclose(result, np.where(mask, x, past), rtol=1e-6)
