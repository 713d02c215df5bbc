"""How the hosts run chains: at once, one after another, in processes; and what is compiled."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from oracles import LinearGaussian

TRUTH = LinearGaussian.example()
MASK = np.random.default_rng(0).random((4, 5)) < 0.5
X = TRUTH.draw(np.random.default_rng(1), 4).astype(np.float32)
DATA = np.where(MASK, X, np.nan)
TESTS = Path(__file__).parents[1]


def need(name):
    pytest.importorskip(name)
    return importlib.import_module(f"ppl_vae.{name}"), importlib.import_module(f"programs_{name}")


def numpyro_run(chain_method, name="MWGKernel", num_chains=2):
    from jax import random

    api, programs = need("numpyro")
    kernel = getattr(api, name)(*programs.linear_gaussian(TRUTH))
    mcmc = api.MCMC(
        kernel, num_warmup=2, num_samples=5, num_chains=num_chains, chain_method=chain_method,
        progress_bar=False,
    )  # fmt: skip
    mcmc.run(random.key(0), DATA)
    return {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}


def test_numpyro_chains_one_after_another_are_those_at_once():
    at_once, in_turn = numpyro_run("vectorized"), numpyro_run("sequential")
    assert at_once["x"].shape == (2, 5, 4, 5)
    for site, values in at_once.items():
        np.testing.assert_allclose(values, in_turn[site], rtol=1e-4, atol=1e-4)


def in_new_process(script, **environment):
    """Run a script that sees the tests' programs; a twin alone, and devices of its own."""
    root = TESTS.parent
    paths = os.pathsep.join(
        [str(TESTS), str(TESTS / "inference"), str(root), os.environ.get("PYTHONPATH", "")]
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3_000:]
    return run.stdout


PARALLEL = """
import numpy as np
from jax import local_device_count
from test_chain_methods import MASK, X, numpyro_run
assert local_device_count() == 2
parallel, at_once = numpyro_run("parallel"), numpyro_run("vectorized")
for site, values in at_once.items():
    np.testing.assert_allclose(values, parallel[site], rtol=1e-4, atol=1e-4)
assert (parallel["x"][..., MASK] == X[MASK]).all()
"""


@pytest.mark.slow
def test_numpyro_chains_on_two_devices_are_those_at_once():
    pytest.importorskip("numpyro")
    in_new_process(PARALLEL, XLA_FLAGS="--xla_force_host_platform_device_count=2")


STOCK_PYRO = """
import numpy as np, pyro, pyro.infer.mcmc.api as host, torch
from test_chain_methods import DATA, MASK, TRUTH, X
from ppl_vae.pyro import MCMC, ACMWGKernel, LAIRKernel
from programs_pyro import linear_gaussian
host.mp.cpu_count = lambda: 8  # the host runs chains one after another on a small machine
programs, x = linear_gaussian(TRUTH), torch.as_tensor(DATA)

def check(mcmc, chains, particles=()):
    pyro.set_rng_seed(0)
    mcmc.run(x)
    draws = mcmc.get_samples(group_by_chain=True)["x"].numpy()
    assert draws.shape == (chains, 5, *particles, 4, 5), draws.shape
    assert (draws[..., MASK] == X[MASK]).all()
    assert np.isfinite(draws).all()
    assert chains == 1 or (draws[0] != draws[1])[..., ~MASK].any()
    return draws

quiet = {"warmup_steps": 2, "disable_progbar": True}
for kernel, particles in ((ACMWGKernel, ()), (LAIRKernel, (4,))):
    stock = check(pyro.infer.MCMC(kernel(*programs), 5, **quiet), 1, particles)
    ours = check(MCMC(kernel(*programs), 5, **quiet), 1, particles)
    np.testing.assert_array_equal(stock, ours)
two = {"num_chains": 2, **quiet}
check(pyro.infer.MCMC(ACMWGKernel(*programs), 5, **two), 2)
check(MCMC(ACMWGKernel(*programs), 5, chain_method="parallel", **two), 2)
warm = MCMC(LAIRKernel(*programs), 5, **two)
check(warm, 2, (4,))
start, each = warm.last_state.hand_over(), {"chain_method": "parallel", **two}
handed, values = (
    check(MCMC(ACMWGKernel(*programs), 5, initial_params=given, **each), 2)
    for given in (start, dict(start))
)
np.testing.assert_array_equal(handed, values)
in_turn = MCMC(ACMWGKernel(*programs), 5, chain_method="sequential", **two)
check(in_turn, 2)
info = in_turn.get_extra_fields(group_by_chain=True)["info"]
assert info.acceptance_rate.shape == (2, 5, 4), info.acceptance_rate.shape
"""


def test_pyro_runs_kernels_in_its_own_mcmc_and_in_processes():
    """In a process of its own: the host forks, and JAX's threads do not survive that."""
    pytest.importorskip("pyro")
    in_new_process(STOCK_PYRO)


@pytest.mark.parametrize("name", ["MWGKernel", "ACMWGKernel", "LAIRKernel"])
def test_numpyro_compiles_a_step_once_per_shape(name):
    """Data are arguments: a second run with new data, mask and key traces nothing."""
    from jax import random

    api, programs = need("numpyro")
    traces = []

    class Counting(getattr(api, name)):
        def sample(self, state, model_args, model_kwargs):
            traces.append(state)
            return super().sample(state, model_args, model_kwargs)

    mcmc = api.MCMC(
        Counting(*programs.linear_gaussian(TRUTH)), num_warmup=3, num_samples=60, num_chains=2,
        chain_method="vectorized", jit_model_args=True,
    )  # fmt: skip
    mcmc.progress_bar = True  # NumPyro turns it off where the variable CI is set
    mcmc.run(random.key(0), DATA)
    after_first = len(traces)
    assert after_first <= 2
    first = np.asarray(mcmc.get_samples()["x"])
    mcmc.run(random.key(1), np.where(MASK[::-1], X + 1, np.nan))
    assert len(traces) == after_first
    second = np.asarray(mcmc.get_samples()["x"])
    assert (second[..., MASK[::-1]] == (X + 1)[MASK[::-1]]).all()
    assert (first[..., MASK] == X[MASK]).all()
