"""The host's own gradient-based samplers of p(z | x_o), on a `ConditionalModel`.

Bounds on z-scores are 4 standard errors: 6e-5 a score, below 1e-2 for the largest test over seeds.
"""

import importlib
import time
from functools import cache

import numpy as np
import pytest
from bounded_latents import BOUNDED_ROW, SHOWN, Bounded, bounded_scores, stack
from gaussian_row import BAD, ROW, SOME, TRUTH, all_moments, copies
from host_words import words
from kernel_parts import seeded
from oracles import Discrete, z_scores

from ppl_vae.inference_data import completed


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


# --- the law of the draws --------------------------------------------------------------------


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


def latent_plus_noise(ppl):
    def model(x):
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.Normal(0 * x[:, :1], 1.0).to_event(1))
            ppl.sample("x", ppl.dist.Normal(z + 0 * x, 1.0).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z", ppl.dist.Normal(0 * x[:, :1], 1.0).to_event(1))

    return model, guide


def test_two_runs_on_the_same_array_have_their_own_imputations(backend):
    """Correlations within 4 standard errors: 6e-5 each. Seed and seconds are those of the run."""
    conditional = backend.api.ConditionalModel(*latent_plus_noise(words(backend)))
    x = np.array([[0.5, np.nan], [np.nan, np.nan]], np.float32)  # the very object, twice
    hmc = {"host": "HMC", "options": {"step_size": 0.3, "num_steps": 3}}
    noise, seeds, seconds = [], [], []
    for seed in (11, 22):
        began = time.perf_counter()
        mcmc = run_host(backend, conditional, x, seed=seed, num_chains=1, **hmc)
        idata = backend.api.to_inference_data(mcmc)
        noise.append((completed(idata) - np.asarray(idata["posterior"]["z"]))[..., np.isnan(x)])
        seeds.append(idata.attrs["seed"])
        seconds.append(time.perf_counter() - began)
        assert idata.attrs["wall_time"] <= seconds[-1]
        again = completed(backend.api.to_inference_data(mcmc))
        np.testing.assert_array_equal(again, completed(idata))
    correlation = np.corrcoef(*(each.ravel() for each in noise))[0, 1]
    assert abs(correlation) < 4 / noise[0].size ** 0.5
    assert seeds == (["11", "22"] if backend.name == "pyro" else ["unknown"] * 2)


# --- what is refused -------------------------------------------------------------------------


def test_bounds_that_the_host_cannot_move_are_refused(backend):
    if backend.name == "numpyro":
        pytest.skip("NumPyro's samplers move them")
    conditional = backend.api.ConditionalModel(*Bounded(nested=True).pair(backend))
    with pytest.raises(ValueError, match=r"'b' depends on other latents.*HMCRefreshKernel"):
        conditional.start(backend.array(copies(BOUNDED_ROW, SHOWN, 3)))


def test_a_mask_of_another_shape_is_refused_before_the_run(backend):
    conditional = backend.api.ConditionalModel(*latent_plus_noise(words(backend)))
    x, mask = np.zeros((3, 2), np.float32), np.ones((2, 2), bool)
    with pytest.raises(ValueError, match=r"mask must have the shape of x, \(3, 2\), got \(2, 2\)"):
        seeded(backend, conditional.start, 0, backend.array(x), mask=backend.array(mask))


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
