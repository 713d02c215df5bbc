"""The pieces of a kernel in either twin, for tests that look inside one step."""

import importlib
import importlib.util
from contextlib import contextmanager
from pathlib import Path

import numpy as np


def module(backend, name):
    """A method's own file, such as `mwg`, in the twin under test."""
    return importlib.import_module(f"ppl_vae.inference.{backend.name}.{name}")


def both_backends():
    """The two backends of the `backend` fixture at once, for tests that compare them."""
    conftest = Path(__file__).with_name("conftest.py")
    spec = importlib.util.spec_from_file_location("backends", conftest)
    backends = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(backends)
    return backends.NumPyroBackend(), backends.PyroBackend()


@contextmanager
def double_precision(backend):
    """Arrays made inside are float64."""
    if backend.name == "numpyro":
        import jax

        with jax.enable_x64(True):
            yield
        return
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def real(backend, value):
    """A floating-point array of the twin, in its default precision."""
    if backend.name == "numpyro":
        import jax.numpy as jnp

        return jnp.asarray(value, jnp.result_type(float))
    import torch

    return torch.as_tensor(np.array(value), dtype=torch.get_default_dtype())


def bind(backend, pair, x, mask):
    """The program of a (model, guide) pair, bound to rows x of which `mask` is observed."""
    x_obs = np.where(mask, x, 0.0)
    return module(backend, "program").Program(
        *pair, real(backend, x_obs), backend.array(np.array(mask))
    )


def chains(backend, tree):
    """Give one chain's arrays the leading axis that the Pyro twin's states have."""
    if backend.name == "numpyro":
        return tree
    return {k: v[None] for k, v in tree.items()} if isinstance(tree, dict) else tree[None]


def one_chain(backend, value):
    """The numpy array of one chain: without the Pyro twin's leading axis."""
    return np.asarray(value) if backend.name == "numpyro" else np.asarray(value)[0]


def decoded(backend, program, z):
    """What MWG's ratio reads of latents."""
    mwg = module(backend, "mwg")
    return mwg.score(mwg.decode(program, z))


def mwg_state(backend, program, x, z):
    x = chains(backend, real(backend, x))
    return module(backend, "mwg").MWGState(x, decoded(backend, program, chains(backend, z)))


def ac_mwg_state(backend, program, x, z, past, *, history_size=1):
    """A state whose history holds the completed rows `past` alone."""
    ac_mwg, history = module(backend, "ac_mwg"), module(backend, "history")
    current = module(backend, "mwg").decode(program, chains(backend, z))
    past = chains(backend, real(backend, past)[None])
    start = history.start_history(past, history_size, binary=False)
    return ac_mwg.ACMWGState(chains(backend, real(backend, x)), current, start)


def seeded(backend, fn, seed, *args, **kwargs):
    """Call a random function of the twin: with a key in NumPyro, after seeding in Pyro."""
    if backend.name == "numpyro":
        from jax import random

        return fn(random.key(seed), *args, **kwargs)
    import pyro
    import torch

    pyro.set_rng_seed(seed)
    with torch.no_grad():
        return fn(*args, **kwargs)
