"""Each part runs with the others absent; what is missing is named with its remedy."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TORCH = ("torch", "pyro")
JAX = ("jax", "jaxlib", "flax", "numpyro")

CHAIN = """
import numpy as np
x = np.array([[0.0, 1.0, np.nan], [np.nan, 1.0, 0.0]], "float32")
{prepare}
mcmc = api.MCMC(api.MWGKernel(fitted.model, fitted.guide), num_warmup=2, num_samples=8)
{run}
print(api.to_inference_data(mcmc)["posterior"]["x_missing"].shape)
"""
NUMPYRO = CHAIN.format(
    prepare="import ppl_vae.numpyro as api\nfrom jax import random\n"
    "fitted = api.fit(random.key(0), api.VAE((3,), 2, hidden=(4,)), x, num_steps=3)",
    run="mcmc.run(random.key(1), x)",
)
PYRO = CHAIN.format(
    prepare="import ppl_vae.pyro as api, torch\n"
    "fitted = api.fit(api.VAE((3,), 2, hidden=(4,)), x, num_steps=3)",
    run="mcmc.run(torch.as_tensor(x))",
)


def run_without(absent, code):
    blocked = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'tests' / 'house')!r})\n"
        f"from without import Absent; sys.meta_path.insert(0, Absent({absent!r}))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", blocked + code], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.parametrize(("absent", "code"), [(TORCH, NUMPYRO), (JAX, PYRO)])
def test_a_twin_runs_without_the_other(absent, code):
    run = run_without(absent, code)
    assert run.returncode == 0, run.stderr
    assert "(1, 8, 2)" in run.stdout


@pytest.mark.parametrize(
    ("absent", "twin"), [(("numpyro",), "numpyro"), (("jax",), "numpyro"), (("torch",), "pyro")]
)
def test_a_missing_extra_is_named_with_its_remedy(absent, twin):
    run = run_without(absent, f"import ppl_vae.{twin}")
    assert f"ImportError: ppl_vae.{twin} needs {absent[0]}" in run.stderr
    assert f"pip install 'ppl-vae[{twin}]'" in run.stderr


def test_the_package_loads_no_backend():
    code = "import ppl_vae, sys; print({'torch', 'jax', 'pyro', 'numpyro'} & set(sys.modules))"
    assert run_without((), code).stdout.strip() == "set()"
