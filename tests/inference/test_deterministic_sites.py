"""`deterministic` records a value and changes nothing else."""

import importlib

import numpy as np
import pytest
from host_words import clear_parameters, words
from kernel_parts import real
from seeded_calls import call

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(2, 3))
ROWS = RNG.normal(size=(6, 3)).astype("float32")
DATA = np.where(RNG.random(ROWS.shape) < 0.6, ROWS, np.nan).astype("float32")
KERNELS = ["MWGKernel", "ACMWGKernel", "LAIRKernel", "HMCRefreshKernel"]
OBJECTIVES = ["elbo", "stl", "iwae", "dreg", "rws", "analytic-elbo", "forward-kl"]


def pair(backend, recording, num_sites=1):
    """A program that records the location of each site, or does not."""
    ppl, weight = words(backend), real(backend, WEIGHT)
    note = importlib.import_module(backend.name).deterministic

    def record(name, value):
        return note(name, value) if recording else value

    def model(x):
        shift = ppl.param("shift", real(backend, np.zeros(3)))
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z1", ppl.dist.Normal(0 * x[:, :2], 1.0).to_event(1))
            if num_sites == 2:
                loc = record("loc of z2", 0.5 * z)
                z = ppl.sample("z2", ppl.dist.Normal(loc, 1.0).to_event(1))
            loc = record("loc", z @ weight + shift)
            ppl.sample("x", ppl.dist.Normal(loc, 0.5).to_event(1), obs=x)

    def guide(x):
        gain = ppl.param("gain", real(backend, 0.1 * WEIGHT.T))
        with ppl.plate("rows", len(x)):
            loc = record("loc of guide", x @ gain)
            z = ppl.sample("z1", ppl.dist.Normal(loc, 0.8).to_event(1))
            if num_sites == 2:
                loc = record("loc of guide's z2", 0.5 * z + x @ gain)
                ppl.sample("z2", ppl.dist.Normal(loc, 0.9).to_event(1))

    return model, guide


def trained(backend, recording, num_sites=1):
    """The program with values of its parameters, as samplers want them."""
    clear_parameters(backend)
    model, guide = pair(backend, recording, num_sites)
    if backend.name == "numpyro":
        from numpyro import handlers

        gain, shift = real(backend, 0.1 * WEIGHT.T), real(backend, np.zeros(3))
        given = {"gain": gain, "shift": shift}
        return handlers.substitute(model, data=given), handlers.substitute(guide, data=given)
    import pyro

    pyro.param("gain", real(backend, 0.1 * WEIGHT.T))
    pyro.param("shift", real(backend, np.zeros(3)))
    return model, guide


@pytest.mark.parametrize("name", KERNELS)
def test_recording_leaves_the_draws(backend, name):
    def draws(recording):
        programs = trained(backend, recording, num_sites=2)
        if name == "HMCRefreshKernel":
            kernel = backend.api.HMCRefreshKernel(backend.api.MWGKernel(*programs))
        else:
            kernel = getattr(backend.api, name)(*programs)
        mcmc = backend.run(kernel, backend.array(DATA), num_samples=4, num_chains=2)
        assert set(backend.api.to_inference_data(mcmc)["posterior"]) >= {"z1", "z2", "x_missing"}
        return backend.draws(mcmc)

    plain, recorded = draws(False), draws(True)
    assert plain.keys() == recorded.keys() == {"x", "z1", "z2"}
    for site, values in plain.items():
        np.testing.assert_array_equal(recorded[site], values)


@pytest.mark.parametrize("name", ["log_likelihood", "importance_posterior"])
def test_recording_leaves_the_estimates(backend, name):
    plain, recorded = (
        call(backend, name, trained(backend, recording), DATA, num_particles=20, progress_bar=False)
        for recording in (False, True)
    )
    assert plain["estimates"].equals(recorded["estimates"])


@pytest.mark.parametrize("num_sites", [1, 2])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_recording_leaves_the_training(backend, objective, num_sites):
    """The losses of later steps tell the gradients."""
    options = {"objective": objective, "num_steps": 4, "batch_size": 3}
    plain, recorded = (
        backend.fit(pair(backend, recording, num_sites), DATA, **options).losses
        for recording in (False, True)
    )
    np.testing.assert_array_equal(recorded, plain)
