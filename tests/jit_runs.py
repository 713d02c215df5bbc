"""Runs of Pyro's kernels and trainings as they are and with `jit_compile=True`."""

import importlib

import numpy as np
import pytest
from oracles import LinearGaussian

from ppl_vae.missingness import mcar

torch = pytest.importorskip("torch")
pyro = pytest.importorskip("pyro")
api = importlib.import_module("ppl_vae.pyro")
programs = importlib.import_module("programs_pyro")

TRUTH = LinearGaussian.example()
X = np.where(np.arange(5) < 3, TRUTH.draw(np.random.default_rng(0), 4), np.nan).astype(np.float32)
X = torch.as_tensor(X)
BINARY = (torch.rand(24, 6, generator=torch.Generator().manual_seed(0)) < 0.4).float()
KERNELS = [
    "PseudoGibbsKernel", "MWGKernel", "ACMWGKernel", "LAIRKernel", "PriorResamplingKernel",
    "StreamingLAIRKernel", "MarginalKernel", "HistoricalLAIRKernel", "ScheduledLAIRKernel",
    "MultiDrawLAIRKernel", "ClippedPseudoGibbsKernel", "MNARMWGKernel", "MNARLAIRKernel",
    "HMCRefreshKernel",
]  # fmt: skip
OBJECTIVES = [
    "elbo", "analytic-elbo", "stl", "iwae", "normalised-iwae", "iwae-stl", "dreg", "gdreg", "rws",
    "rws-dreg", "jvi", "ciwae", "renyi", "forward-kl",
]  # fmt: skip


def kernel_of(name, pair):
    if name == "HMCRefreshKernel":
        return api.HMCRefreshKernel(api.ACMWGKernel(*pair), num_steps=2)
    if name.startswith("MNAR"):
        return getattr(api, name)(*pair, api.logistic_missingness(mcar(5)))
    return getattr(api, name)(*pair)


def run(kernel, x=X, *args, jit_compile, num_samples=12, **kwargs):
    pyro.set_rng_seed(3)
    mcmc = api.MCMC(
        kernel, num_samples, num_warmup=2, num_chains=2, jit_compile=jit_compile,
        disable_progbar=True,
    )  # fmt: skip
    mcmc.run(x, *args, **kwargs)
    return mcmc


def draws(mcmc):
    return mcmc.get_samples(group_by_chain=True)


def small_vae(**options):
    pyro.set_rng_seed(1)
    return api.VAE((6,), 2, hidden=(8,), **options)


def train(program=None, *args, jit_compile=True, **options):
    options = {"num_steps": 9, "batch_size": 8, "progress_bar": False, **options}
    program = small_vae() if program is None else program
    return api.fit(program, BINARY, *args, jit_compile=jit_compile, **options)
