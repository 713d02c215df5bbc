"""No random key is used twice: JAX's own checker watches each kernel start and step."""

import numpy as np
import pytest
from oracles import LinearGaussian

from ppl_vae.missingness import mcar

jax = pytest.importorskip("jax")
pytest.importorskip("numpyro")

TRUTH = LinearGaussian.example()
X = np.where(np.arange(5) < 3, TRUTH.draw(np.random.default_rng(0), 2), np.nan).astype(np.float32)
KERNELS = ["PseudoGibbsKernel", "MWGKernel", "ACMWGKernel", "LAIRKernel"]
BUILT_ON_THEM = [
    "PriorResamplingKernel", "StreamingLAIRKernel", "MarginalKernel", "HistoricalLAIRKernel",
    "MultiDrawLAIRKernel", "ScheduledLAIRKernel", "ClippedPseudoGibbsKernel", "MNARMWGKernel",
    "MNARLAIRKernel", "HMCRefreshKernel",
]  # fmt: skip


def kernel_of(api, name):
    import programs_numpyro

    pair = programs_numpyro.linear_gaussian(TRUTH)
    if name == "HMCRefreshKernel":
        return api.HMCRefreshKernel(api.MWGKernel(*pair), num_steps=2)
    if name.startswith("MNAR"):
        return getattr(api, name)(*pair, api.logistic_missingness(mcar(5)))
    return getattr(api, name)(*pair)


@pytest.mark.parametrize(
    "name", [*KERNELS, *(pytest.param(n, marks=pytest.mark.slow) for n in BUILT_ON_THEM)]
)
def test_kernels_use_each_key_once(name):
    import ppl_vae.numpyro as api

    kernel = kernel_of(api, name)
    with jax.debug_key_reuse(True):
        state = kernel.init(jax.random.key(0), 0, None, (X,), {})
        jax.jit(lambda state: kernel.sample(state, (X,), {}))(state)


@pytest.mark.parametrize("scheme", ["multinomial", "systematic", "stratified", "residual"])
def test_schemes_use_each_key_once(scheme):
    import ppl_vae.numpyro as api

    with jax.debug_key_reuse(True):
        getattr(api.resampling, scheme)(jax.random.key(0), np.zeros((5, 3), np.float32), 4)


def test_the_checker_sees_a_key_used_twice():
    def twice(key):
        return jax.random.normal(key) + jax.random.uniform(key)

    with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
        jax.jit(twice)(jax.random.key(0))
