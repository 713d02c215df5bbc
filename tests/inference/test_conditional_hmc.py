"""Gradient-based samplers of p(z | x_o): the host's own on a `ConditionalModel`, and HMC refreshes.

Bounds on z-scores are 4 standard errors: 6e-5 a score, below 1e-2 for the largest test over seeds.
"""

import importlib
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from host_words import bernoulli_pair, words
from kernel_parts import bind, chains, double_precision, module, one_chain, real, seeded
from oracles import Discrete, LinearGaussian, z_scores

from ppl_vae.diagnostics import ess_bulk

TRUTH = LinearGaussian.example()
ROW = TRUTH.draw(np.random.default_rng(3), 1)[0].astype(np.float32)
SOME = np.array([True, False, True, False, False])
COPIES = 60
NARROW = {"guide_shift": 0.2, "guide_stretch": 0.2}
BAD = {"guide_shift": 0.5, "guide_stretch": 1.5}


def copies(row, mask, number):
    return np.tile(np.where(mask, row, np.nan), (number, 1)).astype(np.float32)


def run_host(backend, conditional, x, *args, host="NUTS", seed=0, num_warmup=100, num_samples=200,
             num_chains=2, options=None, **kwargs):  # fmt: skip
    """Run the host's own sampler from the guide's start."""
    kernel = getattr(importlib.import_module(f"{backend.name}.infer"), host)
    kernel = kernel(conditional, **(options or {}))
    start = seeded(backend, conditional.start, seed, x, *args, num_chains=num_chains, **kwargs)
    if backend.name == "numpyro":
        return backend.run(
            kernel, x, *args, seed=seed, num_warmup=num_warmup, num_samples=num_samples,
            num_chains=num_chains, init_params=start, **kwargs,
        )  # fmt: skip
    if num_chains == 1:
        start = {name: value[None] for name, value in start.items()}
    mcmc = backend.api.MCMC(
        kernel, num_samples, num_warmup, num_chains=num_chains, chain_method="sequential",
        initial_params=start, disable_progbar=True,
    )  # fmt: skip
    importlib.import_module("pyro").set_rng_seed(seed)
    mcmc.run(x, *args, **kwargs)
    return mcmc


def numbers(backend, tree):
    return {name: one_chain(backend, value) for name, value in tree.items()}


# --- the linear-Gaussian model ---------------------------------------------------------------


def moments(values, mean, covariance):
    """Standardised deviations of values (..., m) and of their products, of expectation zero."""
    centred = (values.astype(float) - mean) / np.sqrt(np.diag(covariance))
    i, j = np.triu_indices(len(mean))
    correlation = covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    return np.concatenate([centred, centred[..., i] * centred[..., j] - correlation[i, j]], -1)


def all_moments(x, z):
    """Deviations of x_m and z given x_o, their products with each other too, (..., number)."""
    weight, missing = TRUTH.weight[SOME], TRUTH.weight[~SOME]
    of_z = np.linalg.inv(np.eye(2) + weight.T @ weight / TRUTH.scale**2)
    mean = of_z @ weight.T @ (ROW - TRUTH.bias)[SOME] / TRUTH.scale**2
    both = np.concatenate([missing, np.eye(2)])
    covariance = both @ of_z @ both.T
    covariance[:3, :3] += TRUTH.scale**2 * np.eye(3)
    mean = both @ mean + np.append(TRUTH.bias[~SOME], [0, 0])
    return moments(np.concatenate([x[..., ~SOME], z], -1), mean, covariance)


@cache
def nuts(backend):
    conditional = backend.api.ConditionalModel(*backend.programs.linear_gaussian(TRUTH, **BAD))
    x = backend.array(copies(ROW, SOME, 8))
    return run_host(backend, conditional, x)


@pytest.mark.exact
def test_nuts_on_the_conditional_model_follows_the_closed_form(backend):
    """Rows share a trajectory: their mean is one series a chain, with batch means as its error."""
    idata = backend.api.to_inference_data(nuts(backend))
    values = all_moments(backend.api.completed(idata), np.asarray(idata["posterior"]["z"]))
    assert np.abs(z_scores(values.mean(2), np.zeros(values.shape[-1]), 25)).max() < 4


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


# --- constrained support, one latent bounded by another --------------------------------------

GRID = (np.arange(400) + 0.5) / 400


@dataclass(frozen=True)
class Bounded:
    """a ~ U(0, 1), b ~ U(0, a) or U(0, 1), x ~ N((a, b, a + b), s^2); on a grid."""

    nested: bool
    scale: float = 0.4

    def expectations(self, row, mask):
        """E of (a, b, a^2, b^2, a b, x_m, x_m^2) given what the mask shows; one x is missing."""
        a, b = np.meshgrid(GRID, GRID, indexing="ij")
        weight = np.where(b < a, 1 / a, 0.0) if self.nested else np.ones_like(a)
        if self.nested:
            weight[np.diag_indices(len(GRID))] = 0.5 / GRID
        loc = np.stack([a, b, a + b], -1)
        weight = weight * np.exp(-0.5 * (((row - loc)[..., mask] / self.scale) ** 2).sum(-1))
        missing = loc[..., ~mask][..., 0]
        values = [a, b, a * a, b * b, a * b, missing, missing**2 + self.scale**2]
        return np.array([(v * weight).sum() for v in values]) / weight.sum()

    def pair(self, backend):
        ppl = words(backend)

        def prior(x):
            a = ppl.sample("a", ppl.dist.Uniform(0 * x[:, 0], 1.0))
            b = ppl.sample("b", ppl.dist.Uniform(0 * x[:, 0], a if self.nested else 1.0))
            return a, b

        def model(x):
            with ppl.plate("rows", x.shape[0]):
                a, b = prior(x)
                x_of = stack(backend, [a, b, a + b])
                ppl.sample("x", ppl.dist.Normal(x_of, self.scale).to_event(1), obs=x)

        def guide(x):
            with ppl.plate("rows", x.shape[0]):
                a = ppl.sample("a", ppl.dist.Beta(2.0 + 0 * x[:, 0], 2.0))
                ppl.sample("b", ppl.dist.Uniform(0 * x[:, 0], a if self.nested else 1.0))

        return model, guide


def stack(backend, values):
    library = importlib.import_module({"numpyro": "jax.numpy", "pyro": "torch"}[backend.name])
    return library.stack(values, -1)


BOUNDED_ROW, SHOWN = np.array([0.8, 0.1, 0.7]), np.array([True, False, True])


def bounded_scores(truth, a, b, x, num_batches, rows_are_replicates):
    """Scores of draws (chain, draw, row) against the grid, whose own error is below 1e-4."""
    missing = x[..., ~SHOWN][..., 0]
    values = np.stack([a, b, a * a, b * b, a * b, missing, missing**2], -1).astype(float)
    if rows_are_replicates:
        values = values.swapaxes(1, 2).reshape(-1, values.shape[1], values.shape[-1])
    else:
        values = values.mean(2)
    return z_scores(values, truth.expectations(BOUNDED_ROW, SHOWN), num_batches)


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


@pytest.mark.exact
@pytest.mark.slow
def test_nuts_on_bounded_latents_follows_quadrature(backend):
    """Pyro fixes the bounds of a run; NumPyro lets them depend on other latents."""
    truth = Bounded(nested=backend.name == "numpyro")
    conditional = backend.api.ConditionalModel(*truth.pair(backend))
    x = backend.array(copies(BOUNDED_ROW, SHOWN, 6))
    few = {"num_warmup": 60, "num_samples": 150, "options": {"max_tree_depth": 4}}
    idata = backend.api.to_inference_data(run_host(backend, conditional, x, **few))
    a, b = (np.asarray(idata["posterior"][name]) for name in "ab")
    scores = bounded_scores(truth, a, b, backend.api.completed(idata), 25, False)
    assert np.abs(scores).max() < 4


def test_bounds_that_the_host_cannot_move_are_refused(backend):
    if backend.name == "numpyro":
        pytest.skip("NumPyro's samplers move them")
    conditional = backend.api.ConditionalModel(*Bounded(nested=True).pair(backend))
    with pytest.raises(ValueError, match=r"'b' depends on other latents.*HMCRefreshKernel"):
        conditional.start(backend.array(copies(BOUNDED_ROW, SHOWN, 3)))


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


def test_results_of_nuts_are_those_of_our_kernels(backend):
    mcmc = nuts(backend)
    first, second = (backend.api.to_inference_data(mcmc) for _ in range(2))
    chains_, draws = first["posterior"]["z"].shape[:2]
    assert first["posterior"]["x_missing"].shape == (chains_, draws, 8 * 3)
    assert first["posterior"].attrs["kernel"] == "NUTS"
    assert first["posterior"].attrs["num_warmup"] == 100
    stats = first["sample_stats"]
    assert stats["lp"].dims == stats["diverging"].dims == ("chain", "draw", "row")
    assert stats["acceptance_rate"].dims == ("chain", "row")
    assert ((0.3 < stats["acceptance_rate"]) & (stats["acceptance_rate"] <= 1)).all()
    completed = backend.api.completed(first)
    np.testing.assert_array_equal(completed[..., SOME], np.broadcast_to(ROW[SOME], (
        chains_, draws, 8, 2)))  # fmt: skip
    np.testing.assert_array_equal(completed, backend.api.completed(second))
    one_draw = completed[0, 0][:, ~SOME]
    assert len(np.unique(one_draw)) == one_draw.size  # rows have noise of their own
    assert not (completed[0] == completed[1])[..., ~SOME].any()  # and so have chains
    z = np.asarray(first["posterior"]["z"]).astype(float)
    log_prior = -0.5 * (z**2).sum(-1) - np.log(2 * np.pi)
    residual = (ROW - z @ TRUTH.weight.T - TRUTH.bias)[..., SOME] / TRUTH.scale
    log_x = (-0.5 * residual**2 - np.log(TRUTH.scale) - 0.5 * np.log(2 * np.pi)).sum(-1)
    np.testing.assert_allclose(stats["lp"], log_prior + log_x, rtol=1e-4, atol=1e-4)
    assert isinstance(backend.api.diagnose(first), list)


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


def with_side_information(backend):
    """x ~ N(a + b + side, 1): several latents, a further argument with one value a row."""
    ppl = words(backend)

    def model(x, side):
        with ppl.plate("rows", x.shape[0]):
            a = ppl.sample("a", ppl.dist.Normal(0 * side, 1.0))
            b = ppl.sample("b", ppl.dist.Normal(stack(backend, [a, a]), 1.0).to_event(1))
            loc = a[:, None] + b[:, :1] + side[:, None] + 0 * x
            ppl.sample("x", ppl.dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x, side):
        with ppl.plate("rows", x.shape[0]):
            a = ppl.sample("a", ppl.dist.Normal(x[:, 0] - side, 1.0))
            ppl.sample("b", ppl.dist.Normal(stack(backend, [a, a]), 1.0).to_event(1))

    return model, guide


def test_several_latents_arguments_masks_and_seeds(backend):
    pair = with_side_information(backend)
    x = np.array([[0.1, np.nan], [np.nan, 2.0], [1.0, 1.0]], np.float32)
    side, mask = backend.array(np.array([0.0, 5.0, 1.0], np.float32)), ~np.isnan(x)
    conditional = backend.api.ConditionalModel(*pair)
    kernel = backend.api.HMCRefreshKernel(backend.api.MWGKernel(*pair), num_steps=2)
    few = {"num_warmup": 5, "num_samples": 5}
    hmc = {"host": "HMC", "options": {"step_size": 0.1, "num_steps": 3}, **few}
    filled = backend.array(np.where(mask, x, 7.0).astype(np.float32))
    as_nan = run_host(backend, conditional, backend.array(x), side, num_chains=1, **hmc)
    as_mask = run_host(
        backend, conditional, filled, side, num_chains=1, mask=backend.array(mask), **hmc
    )
    first, again = map(backend.api.to_inference_data, (as_nan, as_mask))
    for name in ("a", "b", "x_missing"):
        np.testing.assert_array_equal(first["posterior"][name], again["posterior"][name])
    hybrid = backend.run(kernel, backend.array(x), side, num_chains=2, **few)
    for idata in (first, backend.api.to_inference_data(hybrid)):
        assert idata["posterior"]["b"].shape[2:] == (3, 2)
        np.testing.assert_array_equal(idata["constant_data"]["arg_0"], side)
        completed = backend.api.completed(idata)
        assert (completed[..., mask] == x[mask]).all()
        assert (np.ptp(completed[..., ~mask], axis=(0, 1)) > 0).all()


def test_chains_start_from_the_guide(backend):
    truth = Bounded(nested=False)
    conditional = backend.api.ConditionalModel(*truth.pair(backend))
    x = backend.array(copies(BOUNDED_ROW, SHOWN, 2_000))
    start = seeded(backend, conditional.start, 0, x, num_chains=2)
    a = 1 / (1 + np.exp(-np.asarray(start["a"]).astype(float)))
    assert a.shape == (2, 2_000)
    assert abs(a.mean() - 0.5) < 5 * np.sqrt(0.05 / 4_000)  # Beta(2, 2): 6e-7
    assert abs(a.var() - 0.05) < 5e-3
    assert np.asarray(seeded(backend, conditional.start, 0, x)["a"]).shape == (2_000,)


def test_hand_over_is_that_of_the_wrapped_kernel(backend):
    x = np.tile(ROW, (3, 1))
    pair = backend.programs.linear_gaussian(TRUTH)
    program = bind(backend, pair, x, np.tile(SOME, (3, 1)))
    x, z = (chains(backend, real(backend, value)) for value in (x, np.ones((3, 2))))
    for name in ("MWGKernel", "ACMWGKernel"):
        wrapped = getattr(backend.api, name)(*pair)
        states = [
            seeded(backend, kernel.start, 0, program, x, {"z": z})
            for kernel in (wrapped, backend.api.HMCRefreshKernel(wrapped))
        ]
        np.testing.assert_array_equal(states[0].z["z"], states[1].z["z"])
        assert (np.asarray(states[1].z["z"]) == 1).all() == (name == "MWGKernel")


# --- what is refused -------------------------------------------------------------------------


def test_discrete_latents_are_refused_by_name(backend):
    pair = backend.programs.discrete(Discrete.example())
    x = backend.array(np.array([[0, 1, np.nan, 1, 0]], np.float32))
    with pytest.raises(ValueError, match=r"\['z'\] of the model are discrete.*ACMWGKernel"):
        backend.run(backend.api.HMCRefreshKernel(backend.api.MWGKernel(*pair)), x)
    conditional = backend.api.ConditionalModel(*pair)
    with pytest.raises(ValueError, match=r"\['z'\] of the model are discrete"):
        seeded(backend, conditional.start, 0, x)
    nuts = importlib.import_module(f"{backend.name}.infer").NUTS
    with pytest.raises(ValueError, match=r"\['z'\] of the model are discrete"):
        backend.run(nuts(conditional), x, num_chains=1) if backend.name == "numpyro" else (
            backend.api.MCMC(nuts(conditional), 1, disable_progbar=True).run(x)
        )


def test_what_cannot_be_refreshed_is_refused(backend):
    api, pair = backend.api, bernoulli_pair(words(backend))
    for name in ("LAIRKernel", "PseudoGibbsKernel"):
        with pytest.raises(TypeError, match=rf"an MWGKernel or an ACMWGKernel, got {name}"):
            api.HMCRefreshKernel(getattr(api, name)(*pair))
    with pytest.raises(TypeError, match="got function"):
        api.HMCRefreshKernel(pair[0])
    for value in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="step_size must be above 0"):
            api.HMCRefreshKernel(api.MWGKernel(*pair), step_size=value)
    for value in (0, 1.5):
        with pytest.raises(ValueError, match="num_steps must be an integer >= 1"):
            api.HMCRefreshKernel(api.MWGKernel(*pair), num_steps=value)
    with pytest.raises(TypeError, match="guide must be a function of x, got int"):
        api.ConditionalModel(pair[0], 3)
    conditional = api.ConditionalModel(*pair, site="y")
    with pytest.raises(ValueError, match="no observed site 'y'"):
        seeded(backend, conditional.start, 0, backend.array(np.array([[0, np.nan]], np.float32)))
