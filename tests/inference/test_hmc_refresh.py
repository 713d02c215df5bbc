"""HMC refreshes of the latents between the moves of another kernel.

Bounds on z-scores are 4 standard errors: 6e-5 a score, below 1e-2 for the largest test over seeds.
"""

import importlib
from functools import cache

import numpy as np
import pytest
from bounded_latents import BOUNDED_ROW, SHOWN, Bounded, bounded_scores
from gaussian_row import BAD, NARROW, ROW, SOME, TRUTH, all_moments, copies
from host_words import bernoulli_pair, words
from kernel_parts import bind, chains, double_precision, module, one_chain, real, seeded
from oracles import z_scores

from ppl_vae.diagnostics import ess_bulk

COPIES = 60


def numbers(backend, tree):
    return {name: one_chain(backend, value) for name, value in tree.items()}


# --- the law of the draws --------------------------------------------------------------------


@cache
def hybrid_run(backend, name):
    guide = NARROW if name == "MWGKernel" else BAD
    wrapped = getattr(backend.api, name)(*backend.programs.linear_gaussian(TRUTH, **guide))
    kernel = backend.api.HMCRefreshKernel(wrapped, step_size=0.7, num_steps=2)
    x = backend.array(copies(ROW, SOME, COPIES))
    return backend.run(kernel, x, num_warmup=30, num_samples=150, num_chains=2)


@pytest.mark.exact
@pytest.mark.parametrize("name", ["MWGKernel", "ACMWGKernel"])
def test_hybrids_follow_the_closed_form(backend, name):
    """Rows and chains are replicates, 120 of them."""
    mcmc = hybrid_run(backend, name)
    draws = backend.draws(mcmc)
    values = all_moments(draws["x"], draws["z"])
    replicates = values.swapaxes(1, 2).reshape(-1, values.shape[1], values.shape[-1])
    assert np.abs(z_scores(replicates, np.zeros(values.shape[-1]), 1)).max() < 4
    rate = backend.info(mcmc)["hmc_acceptance_rate"]
    assert 0.5 < rate.mean() < 0.99  # or the accept step would not be tested


def test_a_guide_that_is_too_narrow_is_made_good(backend):
    x = backend.array(copies(ROW, SOME, COPIES))
    plain = backend.api.MWGKernel(*backend.programs.linear_gaussian(TRUTH, **NARROW))
    alone = backend.run(plain, x, num_warmup=30, num_samples=150, num_chains=2)
    ess, ess_hybrid = (
        ess_bulk(backend.draws(run)["z"]).mean()
        for run in (alone, hybrid_run(backend, "MWGKernel"))
    )
    assert ess_hybrid > 3 * ess


@pytest.mark.exact
def test_hybrid_on_bounded_latents_follows_quadrature(backend):
    truth = Bounded(nested=True)
    wrapped = backend.api.ACMWGKernel(*truth.pair(backend))
    kernel = backend.api.HMCRefreshKernel(wrapped, step_size=0.8, num_steps=3)
    x = backend.array(copies(BOUNDED_ROW, SHOWN, COPIES))
    mcmc = backend.run(kernel, x, num_warmup=30, num_samples=200, num_chains=2)
    draws = backend.draws(mcmc)
    assert (draws["b"] < draws["a"]).all()
    scores = bounded_scores(truth, draws["a"], draws["b"], draws["x"], 1, True)
    assert np.abs(scores).max() < 4
    assert 0.5 < backend.info(mcmc)["hmc_acceptance_rate"].mean() < 0.99


# --- the dynamics ----------------------------------------------------------------------------


def dynamics(backend):
    """(program, u, momentum) of a few rows, in double precision."""
    rng = np.random.default_rng(0)
    row = np.tile(BOUNDED_ROW, (6, 1))
    program = bind(backend, Bounded(nested=True).pair(backend), row, np.tile(SHOWN, (6, 1)))
    draw = {name: chains(backend, real(backend, rng.normal(size=6))) for name in "ab"}
    momentum = {name: chains(backend, real(backend, rng.normal(size=6))) for name in "ab"}
    return program, draw, momentum


def follow(backend, program, u, momentum, step_size, num_steps):
    hmc = module(backend, "hmc_refresh")
    return hmc.leapfrog(
        lambda u: hmc.log_density_gradient(program, u), u, momentum,
        step_size=step_size, num_steps=num_steps,
    )  # fmt: skip


def test_leapfrog_is_reversible(backend):
    with double_precision(backend):
        program, u, momentum = dynamics(backend)
        there, momentum_there = follow(backend, program, u, momentum, 0.1, 10)
        turned = {name: -value for name, value in momentum_there.items()}
        back, momentum_back = follow(backend, program, there, turned, 0.1, 10)
        for name in u:
            assert np.abs(np.asarray(there[name] - u[name])).min() > 1e-3
            np.testing.assert_allclose(back[name], u[name], atol=1e-10)
            np.testing.assert_allclose(-momentum_back[name], momentum[name], atol=1e-10)


def test_energy_error_is_of_second_order(backend):
    """Half the step, a quarter of the error; a wrong gradient or Jacobian leaves it as it was."""
    hmc = module(backend, "hmc_refresh")

    def energy(program, u, momentum):
        energy = hmc.kinetic_energy(momentum) - hmc.log_density(program, u)
        return one_chain(backend, energy)

    with double_precision(backend):
        program, u, momentum = dynamics(backend)
        before = energy(program, u, momentum)
        errors = [
            np.abs(energy(program, *follow(backend, program, u, momentum, 1 / n, n)) - before)
            for n in (20, 40, 80)
        ]
    ratios = np.array([errors[0] / errors[1], errors[1] / errors[2]])
    assert ((3.7 < ratios) & (ratios < 4.3)).all(), ratios
    assert errors[2].max() < 1e-3


def test_density_has_the_jacobian_and_its_own_gradient(backend):
    """log p(x_o, z) + log |dz/du| written out, z = (s(u_a), a s(u_b)); gradient by differences."""
    hmc, truth = module(backend, "hmc_refresh"), Bounded(nested=True)

    def by_hand(u_a, u_b):
        s_a, s_b = 1 / (1 + np.exp(-u_a)), 1 / (1 + np.exp(-u_b))
        a, b = s_a, s_a * s_b
        log_p = -np.log(a)  # b's prior; a's is 1
        log_det = np.log(s_a * (1 - s_a)) + np.log(a * s_b * (1 - s_b))
        residual = (BOUNDED_ROW - np.stack([a, b, a + b], -1))[..., SHOWN] / truth.scale
        log_x = -0.5 * residual**2 - np.log(truth.scale) - 0.5 * np.log(2 * np.pi)
        return log_p + log_det + log_x.sum(-1)

    with double_precision(backend):
        program, u, _ = dynamics(backend)
        found = one_chain(backend, hmc.log_density(program, u))
        slope = numbers(backend, hmc.log_density_gradient(program, u))
        u = numbers(backend, u)
    np.testing.assert_allclose(found, by_hand(u["a"], u["b"]), rtol=1e-10)
    for name, step in (("a", (1e-6, 0)), ("b", (0, 1e-6))):
        up = by_hand(u["a"] + step[0], u["b"] + step[1])
        down = by_hand(u["a"] - step[0], u["b"] - step[1])
        np.testing.assert_allclose(slope[name], (up - down) / 2e-6, rtol=1e-6)


def refreshed(backend, z, step_size, num_steps):
    """(latents before, after, acceptance rate, divergence) of one refresh of each row."""
    mask = np.tile(SOME, (len(z), 1))
    pair = backend.programs.linear_gaussian(TRUTH)
    program = bind(backend, pair, np.tile(ROW, (len(z), 1)), mask)
    z = chains(backend, {"z": real(backend, z)})
    current = module(backend, "mwg").decode(program, z)
    refresh = module(backend, "hmc_refresh").refresh
    options = {"step_size": step_size, "num_steps": num_steps}
    if backend.name == "numpyro":  # as in a run; outside of it the host refuses infinite values
        jit = importlib.import_module("jax").jit
        compiled = jit(lambda key, current: refresh(key, program, current, **options))
        new, rate, diverging = seeded(backend, compiled, 0, current)
    else:
        new, rate, diverging = seeded(backend, refresh, 0, program, current, **options)
    found = (z["z"], new.z["z"], rate, diverging)
    return tuple(one_chain(backend, value) for value in found)


def test_small_steps_are_always_accepted(backend):
    z = np.random.default_rng(0).normal(size=(200, 2))
    rates = [refreshed(backend, z, size, 3)[2].mean() for size in (1e-3, 0.3, 0.6)]
    assert rates[0] > 1 - 1e-4
    assert rates[0] > rates[1] > rates[2]


def test_diverging_rows_are_refused_alone(backend):
    """One row starts where the densities overflow, and then all rows take huge steps."""
    z = np.random.default_rng(0).normal(size=(20, 2))
    far = np.concatenate([np.full((1, 2), 1e30), z[1:]])
    _, alone, _, _ = refreshed(backend, z, 0.1, 3)
    before, after, rate, diverging = refreshed(backend, far, 0.1, 3)
    np.testing.assert_array_equal(after[1:], alone[1:])
    np.testing.assert_array_equal(after[0], before[0])
    assert diverging.tolist() == [True] + [False] * 19
    before, after, rate, diverging = refreshed(backend, z, 1e6, 30)
    np.testing.assert_array_equal(after, before)
    assert diverging.all()
    assert (rate == 0).all()


def test_missing_entries_leave_gradients_finite(backend):
    """Zero, which fills missing entries, lies outside of a positive likelihood's support."""
    ppl = words(backend)
    row, mask = np.array([[0.5, 2.0, 1.0]]), np.array([[True, False, True]])

    def model(x):
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.Normal(0 * x[:, :1], 1.0).to_event(1))
            ppl.sample("x", ppl.dist.LogNormal(z + 0 * x, 0.5).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z", ppl.dist.Normal(0 * x[:, :1], 1.0).to_event(1))

    program = bind(backend, (model, guide), row, mask)
    u = {"z": chains(backend, real(backend, np.array([[0.3]])))}
    hmc = module(backend, "hmc_refresh")
    slope = numbers(backend, hmc.log_density_gradient(program, u))["z"]
    expected = -0.3 + sum((np.log(v) - 0.3) / 0.25 for v in (0.5, 1.0))
    np.testing.assert_allclose(slope[0, 0], expected, rtol=1e-5)


# --- what holds whatever is drawn ------------------------------------------------------------


def test_results_of_hybrids_name_both_moves(backend):
    idata = backend.api.to_inference_data(hybrid_run(backend, "ACMWGKernel"))
    attrs = idata["posterior"].attrs
    assert attrs["kernel"] == "HMCRefreshKernel"
    assert attrs["wrapped_kernel"] == "ACMWGKernel"
    assert (attrs["step_size"], attrs["num_steps"]) == (0.7, 2)
    assert (attrs["prior_probability"], attrs["history_size"]) == (0.05, 20)
    assert {"hmc_acceptance_rate", "hmc_diverging", "from_prior"} <= set(idata["sample_stats"])
    assert not np.asarray(idata["sample_stats"]["hmc_diverging"]).any()
    completed, z = backend.api.completed(idata), np.asarray(idata["posterior"]["z"]).astype(float)
    assert (completed[..., SOME] == ROW[SOME]).all()
    residual = (ROW - z @ TRUTH.weight.T - TRUTH.bias)[..., SOME] / TRUTH.scale
    log_x = (-0.5 * residual**2 - np.log(TRUTH.scale) - 0.5 * np.log(2 * np.pi)).sum(-1)
    lp = log_x - 0.5 * (z**2).sum(-1) - np.log(2 * np.pi)  # of the latents that were kept
    np.testing.assert_allclose(idata["sample_stats"]["lp"], lp, rtol=1e-4, atol=1e-4)


def test_hand_over_is_that_of_the_wrapped_kernel(backend):
    x = np.tile(ROW, (3, 1))
    pair = backend.programs.linear_gaussian(TRUTH)
    program = bind(backend, pair, x, np.tile(SOME, (3, 1)))
    values = {"x": np.nan_to_num(x), "z": np.ones((3, 2))}
    handed = {name: chains(backend, real(backend, value)) for name, value in values.items()}
    num_chains = (1,) if backend.name == "pyro" else ()
    for name in ("MWGKernel", "ACMWGKernel"):
        wrapped = getattr(backend.api, name)(*pair)
        states = []
        for kernel in (wrapped, backend.api.HMCRefreshKernel(wrapped)):
            first = seeded(backend, kernel.starting_values, 0, program, *num_chains, handed)
            states.append(seeded(backend, kernel.start, 0, program, *first))
        np.testing.assert_array_equal(states[0].z["z"], states[1].z["z"])
        assert (np.asarray(states[1].z["z"]) == 1).all() == (name == "MWGKernel")


# --- what is refused -------------------------------------------------------------------------


def test_what_cannot_be_refreshed_is_refused(backend):
    api, pair = backend.api, bernoulli_pair(words(backend))
    for name in ("LAIRKernel", "PseudoGibbsKernel"):
        with pytest.raises(TypeError, match=rf"an MWGKernel or an ACMWGKernel, got {name}"):
            api.HMCRefreshKernel(getattr(api, name)(*pair))
    with pytest.raises(TypeError, match="got function"):
        api.HMCRefreshKernel(pair[0])
    for value in (0, -1.0, float("nan"), float("inf"), None, "0.1", np.ones(2)):
        with pytest.raises(ValueError, match="step_size must be a finite number above 0, got"):
            api.HMCRefreshKernel(api.MWGKernel(*pair), step_size=value)
    for value in (0, 1.5):
        with pytest.raises(ValueError, match="num_steps must be an integer >= 1"):
            api.HMCRefreshKernel(api.MWGKernel(*pair), num_steps=value)
    with pytest.raises(TypeError, match="guide must be a function of x, got int"):
        api.ConditionalModel(pair[0], 3)
    conditional = api.ConditionalModel(*pair, site="y")
    with pytest.raises(ValueError, match="no observed site 'y'"):
        seeded(backend, conditional.start, 0, backend.array(np.array([[0, np.nan]], np.float32)))
