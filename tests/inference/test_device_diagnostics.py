"""The twins' diagnostics on device arrays against the shell's, on the same float32 draws."""

import importlib
import inspect

import numpy as np
import pytest

from ppl_vae import diagnostics as shell

NUM_SCALARS = 40
FIELDS = shell.Convergence._fields
# float32 rounds each autocorrelation to about 1e-7; sums of a few dozen stay well below this.
TOLERANCE = 1e-4


@pytest.fixture(params=["numpyro", "pyro"])
def twin(request):
    """The twin's module and the way from numpy to its arrays."""
    if request.param == "numpyro":
        to_device = pytest.importorskip("jax.numpy").asarray
    else:
        to_device = pytest.importorskip("torch").tensor
    return importlib.import_module(f"ppl_vae.inference.{request.param}.diagnostics"), to_device


def make_draws(kind, num_chains, num_draws):
    rng = np.random.default_rng(num_draws)
    shape = (num_chains, num_draws, NUM_SCALARS)
    normal, share = rng.normal(size=shape), rng.uniform(size=NUM_SCALARS)
    cases = {
        "normal": normal,
        "offset": 1e4 + normal,
        "random_walk": normal.cumsum(axis=1),
        "alternating": 0.3 * normal + np.where(np.arange(num_draws) % 2, 1, -1)[:, None],
        "binary": rng.uniform(size=shape) < share,
        "grey": rng.binomial(16, share, size=shape) / 16,
        "constant": np.ones(shape) * share,
        "with_nan": np.where(rng.uniform(size=shape) < 0.01, np.nan, normal),
        "infinite": np.where(rng.uniform(size=shape) < 0.05, np.inf, normal),
    }
    return cases[kind].astype(np.float32)


KINDS = "normal offset random_walk alternating binary grey constant with_nan infinite".split()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("num_chains", "num_draws"), [(4, 200), (1, 43), (4, 3)])
def test_equal_to_the_shell(twin, kind, num_chains, num_draws):
    module, to_device = twin
    x = make_draws(kind, num_chains, num_draws)
    expected, result = shell.convergence(x), module.convergence(to_device(x))
    for name in FIELDS:
        np.testing.assert_allclose(
            np.asarray(getattr(result, name)),
            getattr(expected, name),
            rtol=TOLERANCE,
            atol=1e-7,  # the shell's MCSE of a constant is a rounding error, not zero
            err_msg=f"{kind} {name}",
        )


def test_chains_that_never_move_have_a_large_rhat(twin):
    module, to_device = twin
    x = np.ones((4, 100, 3), np.float32) * np.arange(4, dtype=np.float32)[:, None, None]
    assert (np.asarray(module.rhat(to_device(x))) > 100).all()


def test_single_functions_and_chunks_agree_with_the_shared_call(twin):
    module, to_device = twin
    x = to_device(make_draws("normal", 4, 50).reshape(4, 50, 5, 8))
    shared, chunked = module.convergence(x), module.convergence(x, chunk=7)
    for name in FIELDS:
        alone = np.asarray(getattr(module, name)(x))
        assert alone.shape == (5, 8)
        assert alone.dtype == np.float32
        np.testing.assert_allclose(alone, np.asarray(getattr(shared, name)), rtol=1e-5)
        np.testing.assert_allclose(alone, np.asarray(getattr(chunked, name)), rtol=1e-5)


def test_a_quantile_that_falls_on_a_draw_includes_it(twin):
    module, to_device = twin
    x = np.random.default_rng(0).normal(size=(1, 41, NUM_SCALARS)).astype(np.float32)
    ordered = np.sort(x[0], axis=0)  # of 41 draws the third and the third but last
    indicators = [(x <= ordered[k]).astype(float) for k in (2, 38)]
    sizes = [y.var((0, 1), ddof=1) / shell.mcse_mean(y) ** 2 for y in indicators]
    result = np.asarray(module.ess_tail(to_device(x)))
    np.testing.assert_allclose(result, np.minimum(*sizes), rtol=TOLERANCE)


def test_bad_input(twin):
    module, to_device = twin
    with pytest.raises(ValueError, match=r"\(chain, draw, ...\)"):
        module.rhat(to_device(np.ones(5)))
    with pytest.raises(TypeError, match="complex"):
        module.rhat(to_device(np.ones((4, 5)) + 1j))
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        module.convergence(to_device(np.ones((4, 5))), chunk=0)


def test_same_names_and_parameters_as_the_shell(twin):
    module, _ = twin
    for name in ("convergence", *FIELDS):
        mine, theirs = (inspect.signature(getattr(m, name)) for m in (module, shell))
        assert list(mine.parameters) == list(theirs.parameters)
    assert set(module.__all__) == set(shell.__all__) - {"summary"}


def test_jax_version_compiles_inside_a_larger_function():
    jax = pytest.importorskip("jax")
    module = importlib.import_module("ppl_vae.inference.numpyro.diagnostics")
    traces = []

    @jax.jit
    def worst(x):
        traces.append(1)
        return module.convergence(x).rhat.max()

    x = make_draws("normal", 4, 50)
    for shift in range(3):
        np.testing.assert_allclose(worst(x + shift), shell.rhat(x).max(), rtol=TOLERANCE)
    assert len(traces) == 1
