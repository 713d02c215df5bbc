"""The `backend` fixture: one text of a test, run against both twins."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
# Most of the time goes into compiling small programs that run once: two fifths less at level 0.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# The same programs are compiled by many tests, and by both processes that share them.
CACHE = Path(__file__).parents[1] / ".pytest_cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


# Examples of methods that are variants of another, whose example is run by `make test`.
VARIANTS = {
    "baselines", "clipped_pseudo_gibbs", "generalised_dreg", "historical_lair",
    "interpolated_bounds", "jackknife", "mnar_lair", "reweighted_wake_sleep", "scheduled_lair",
}  # fmt: skip


def pytest_collection_modifyitems(items):
    """Leave the examples of variants to `make test-slow`: each compiles a run of its own."""
    for item in items:
        if isinstance(item, pytest.DoctestItem) and item.path.stem in VARIANTS:
            item.add_marker(pytest.mark.slow)


class NumPyroBackend:
    """How the tests speak to the NumPyro twin; every result is numpy."""

    name = "numpyro"

    def __init__(self):
        self.api = importlib.import_module("ppl_vae.numpyro")
        self.programs = importlib.import_module("programs_numpyro")

    def array(self, value):
        import jax.numpy as jnp

        return jnp.asarray(value)

    def run(self, kernel, x, *args, seed=0, num_warmup=0, num_samples=100, num_chains=4,
            init_params=None, **kwargs):  # fmt: skip
        from jax import random

        mcmc = self.api.MCMC(
            kernel, num_warmup=num_warmup, num_samples=num_samples, num_chains=num_chains,
            chain_method="vectorized", progress_bar=False,
        )  # fmt: skip
        mcmc.run(random.key(seed), x, *args, init_params=init_params, **kwargs)
        return mcmc

    def fit(self, program, x, *args, seed=0, **kwargs):
        from jax import random

        return self.api.fit(random.key(seed), program, x, *args, progress_bar=False, **kwargs)

    def draws(self, mcmc):
        return {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}

    def info(self, mcmc):
        info = mcmc.get_extra_fields(group_by_chain=True)["info"]
        return {k: np.asarray(v) for k, v in info._asdict().items() if not isinstance(v, dict)}


class PyroBackend:
    """How the tests speak to the Pyro twin; every result is numpy."""

    name = "pyro"

    def __init__(self):
        import torch

        torch.set_num_threads(1)
        self.api = importlib.import_module("ppl_vae.pyro")
        self.programs = importlib.import_module("programs_pyro")

    def array(self, value):
        import torch

        return torch.as_tensor(np.asarray(value))

    def run(self, kernel, x, *args, seed=0, num_warmup=0, num_samples=100, num_chains=4,
            init_params=None, **kwargs):  # fmt: skip
        import pyro

        pyro.set_rng_seed(seed)
        mcmc = self.api.MCMC(
            kernel, num_warmup=num_warmup, num_samples=num_samples, num_chains=num_chains,
            chain_method="vectorized", disable_progbar=True,
        )  # fmt: skip
        mcmc.run(x, *args, init_params=init_params, **kwargs)
        return mcmc

    def fit(self, program, x, *args, seed=0, **kwargs):
        import pyro

        pyro.set_rng_seed(seed)
        pyro.clear_param_store()
        return self.api.fit(program, x, *args, progress_bar=False, **kwargs)

    def draws(self, mcmc):
        return {k: v.cpu().numpy() for k, v in mcmc.get_samples(group_by_chain=True).items()}

    def info(self, mcmc):
        info = mcmc.get_extra_fields(group_by_chain=True)["info"]
        return {k: v.cpu().numpy() for k, v in info._asdict().items() if not isinstance(v, dict)}


@pytest.fixture(params=["numpyro", "pyro"], scope="session")
def backend(request):
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return {"numpyro": NumPyroBackend, "pyro": PyroBackend}[request.param]()
