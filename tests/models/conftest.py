"""The two twins of a program behind one small door: build, save, load, log densities.

`first` gives a VAE with the weights that training starts from, `build` one with any weights.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest


def _pyro_twin() -> SimpleNamespace:
    pytest.importorskip("pyro", reason="the Pyro twin is not installed")
    import pyro
    import pyro.poutine as poutine
    import torch

    from ppl_vae.models.pyro import files, networks
    from ppl_vae.models.pyro import vae as module

    def first(*args: Any, seed: int = 0, **kwargs: Any) -> Any:
        pyro.set_rng_seed(seed)
        return module.VAE(*args, **kwargs)

    def log_densities(vae: Any, x: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
        x_tensor, z_tensor = torch.from_numpy(x), torch.from_numpy(z)
        given = {"z": z_tensor}
        with torch.no_grad():
            model = poutine.trace(poutine.condition(vae.model, given)).get_trace(x_tensor).nodes
            guide = poutine.trace(poutine.condition(vae.guide, given)).get_trace(x_tensor).nodes
            return {
                "x": model["x"]["fn"].log_prob(x_tensor).numpy(),
                "z": model["z"]["fn"].log_prob(z_tensor).numpy(),
                "q": guide["z"]["fn"].log_prob(z_tensor).numpy(),
            }

    def draw(vae: Any, num_rows: int, seed: int = 0) -> np.ndarray:
        pyro.set_rng_seed(seed)
        return vae.model(num_rows=num_rows).detach().numpy()

    return SimpleNamespace(
        name="pyro",
        VAE=module.VAE,
        first=first,
        build=first,
        save=lambda path, vae: files.Fitted(vae).save(path),
        load=lambda path, vae=None: files.load(path, vae=vae).program,
        weights=lambda vae: vae.to_weights(),
        log_densities=log_densities,
        draw=draw,
        linear=lambda i, o: torch.nn.Linear(i, o),
        masked_encoder=networks.masked_encoder,
        run_guide=lambda vae, x: vae.guide(torch.from_numpy(x)),
        run_model=lambda vae, x: vae.model(torch.from_numpy(x)),
    )


def _numpyro_twin() -> SimpleNamespace:
    pytest.importorskip("numpyro", reason="the NumPyro twin is not installed")
    import jax.numpy as jnp
    from flax import nnx
    from jax import jit, random
    from numpyro.handlers import seed as seeded
    from numpyro.handlers import substitute, trace

    from ppl_vae.models.numpyro import files, networks
    from ppl_vae.models.numpyro import vae as module

    def first(*args: Any, seed: int = 0, **kwargs: Any) -> Any:
        vae = module.VAE(*args, **kwargs)
        return vae, jit(vae.initial_params)(random.key(seed))

    def build(*args: Any, **kwargs: Any) -> Any:
        vae = module.VAE(*args, **kwargs)
        shapes: dict[str, tuple[int, ...]] = {}
        for net in (vae.encoder, vae.decoder, vae.likelihood):
            shapes |= net.weight_shapes()
        rng = np.random.default_rng(0)  # numpy draws at once, JAX compiles for seconds
        weights = {k: 0.3 * rng.normal(size=shape) for k, shape in shapes.items()}
        dtype = jnp.result_type(float)
        return vae, vae.from_weights({k: w.astype(dtype) for k, w in weights.items()})

    def log_densities(fitted: Any, x: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
        vae, params = fitted

        @jit  # one compilation is quicker than one per operation
        def densities(params: Any, x: Any, z: Any) -> dict[str, Any]:
            data = {**params, "z": z}
            model = trace(substitute(vae.model, data=data)).get_trace(x)
            guide = trace(substitute(vae.guide, data=data)).get_trace(x)
            return {
                "x": model["x"]["fn"].log_prob(x),
                "z": model["z"]["fn"].log_prob(z),
                "q": guide["z"]["fn"].log_prob(z),
            }

        came = densities(params, jnp.asarray(x), jnp.asarray(z))
        return {site: np.asarray(value) for site, value in came.items()}

    def draw(fitted: Any, num_rows: int, seed: int = 0) -> np.ndarray:
        vae, params = fitted
        program = seeded(substitute(vae.model, data=params), seed)
        return np.asarray(jit(lambda: program(num_rows=num_rows))())

    def load(path: Path, vae: Any = None) -> Any:
        fitted = files.load(path, vae=vae)
        return fitted.program, fitted.params

    def run(method: str) -> Any:
        return lambda fitted, x: seeded(substitute(getattr(fitted[0], method), data=fitted[1]), 0)(
            jnp.asarray(x)
        )

    return SimpleNamespace(
        name="numpyro",
        VAE=module.VAE,
        first=first,
        build=build,
        save=lambda path, fitted: files.Fitted(*fitted).save(path),
        load=load,
        weights=lambda fitted: fitted[0].to_weights(fitted[1]),
        log_densities=log_densities,
        draw=draw,
        linear=lambda i, o: nnx.Linear(i, o, rngs=nnx.Rngs(0)),
        masked_encoder=lambda *sizes: networks.masked_encoder(random.key(0), *sizes),
        run_guide=run("guide"),
        run_model=run("model"),
    )


MAKE = {"pyro": cache(_pyro_twin), "numpyro": cache(_numpyro_twin)}


@pytest.fixture(params=["numpyro", "pyro"])
def twin(request: pytest.FixtureRequest) -> SimpleNamespace:
    """Each twin in turn."""
    return MAKE[request.param]()


@pytest.fixture(params=["numpyro", "pyro"])
def twins(request: pytest.FixtureRequest) -> tuple[SimpleNamespace, SimpleNamespace]:
    """Both twins, each in turn as the first: the one that writes."""
    other = {"numpyro": "pyro", "pyro": "numpyro"}[request.param]
    return MAKE[request.param](), MAKE[other]()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a test keeps its weight file."""
    return tmp_path / "vae.safetensors"


@pytest.fixture
def double() -> Iterator[None]:
    """JAX, where there is one, in double precision for one test."""
    try:
        import jax
    except ImportError:
        yield
        return
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
