"""Pyro with `jit_compile=True`: compiled, and what cannot be; see also test_recorded_steps.py."""

import importlib
import os
import shutil

import numpy as np
import pytest
from jit_runs import KERNELS, OBJECTIVES, TRUTH, X, api, draws, kernel_of, programs, run, train

torch = pytest.importorskip("torch")
pyro = pytest.importorskip("pyro")
dist = pytest.importorskip("pyro.distributions")
compiled = importlib.import_module("ppl_vae.inference.pyro.compiled")

# Two draw what they do not use, which the compiler leaves out: they are held to the law.
BY_LAW = ("HMCRefreshKernel", "MultiDrawLAIRKernel")
OTHERS = [name for name in KERNELS if name not in ("ACMWGKernel", *BY_LAW)]
compiles = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler"
)


@compiles
@pytest.mark.parametrize(
    "name", ["ACMWGKernel", *(pytest.param(n, marks=pytest.mark.slow) for n in OTHERS)]
)
def test_compiled_kernels_draw_the_same(name):
    """Chains of continuous draws that took another decision would be far apart."""
    pair = programs.linear_gaussian(TRUTH)
    expected = draws(run(kernel_of(name, pair), jit_compile=False))
    found = draws(run(kernel_of(name, pair), jit_compile=True))
    for site, value in expected.items():
        torch.testing.assert_close(found[site], value, rtol=1e-4, atol=1e-4)
        observed = ~X.isnan() if site == "x" else None
        if observed is not None and value.ndim == X.ndim + 2:
            assert (found[site][..., observed] == X[observed]).all()


@compiles
@pytest.mark.slow
def test_compiled_weights_of_many_draws_estimate_the_evidence():
    """It runs the guide once more for its densities.  Batches of 100 of 2,000; five errors."""
    kernel = kernel_of("MultiDrawLAIRKernel", programs.linear_gaussian(TRUTH))
    mcmc = run(kernel, jit_compile=True, num_samples=2_000)
    weight = mcmc.get_extra_fields(group_by_chain=True)["info"].log_weight.double().exp().numpy()
    observed = ~X.isnan().numpy()
    for row in range(len(X)):
        truth = np.exp(TRUTH.log_evidence(np.nan_to_num(X[row].numpy()), observed[row]))
        batches = weight[..., row].mean(2).reshape(-1, 100).mean(1)
        error = batches.std(ddof=1) / np.sqrt(len(batches))
        assert abs(batches.mean() - truth) < 5 * error


@compiles
@pytest.mark.slow
def test_compiled_hmc_follows_the_law():
    """Its step draws an x that it does not use; the compiler leaves that out, so that all that is
    drawn after it differs.  Batches of 100 of 4,000 draws; false alarm below 1e-5."""
    kernel = kernel_of("HMCRefreshKernel", programs.linear_gaussian(TRUTH))
    x = draws(run(kernel, jit_compile=True, num_samples=4_000))["x"].double().numpy()
    observed = ~X.isnan().numpy()
    for row in range(len(X)):
        mean, _ = TRUTH.missing_given_observed(X[row].numpy(), observed[row])
        batches = x[:, :, row][..., ~observed[row]].reshape(80, 100, -1).mean(1)
        error = batches.std(0, ddof=1) / 80**0.5
        assert (np.abs(batches.mean(0) - mean) < 6 * error).all()


LIKELIHOODS = {
    "normal": lambda h: dist.Normal(h, 1 + h**2).to_event(1),
    "student-t": lambda h: dist.StudentT(4.0, h, 1 + h**2).to_event(1),
    "gamma": lambda h: dist.Gamma(1 + h**2, 1 + h**2).to_event(1),
    "log-normal": lambda h: dist.LogNormal(h, 1.0).to_event(1),
    "beta": lambda h: dist.Beta(1 + h**2, 2 + h**2).to_event(1),
    "poisson": lambda h: dist.Poisson(1 + h**2).to_event(1),
    "binomial": lambda h: dist.Binomial(5, logits=h).to_event(1),
    "negative binomial": lambda h: dist.NegativeBinomial(5.0, logits=h).to_event(1),
    "bernoulli": lambda h: dist.Bernoulli(logits=h).to_event(1),
    "categorical": lambda h: dist.Categorical(logits=torch.stack([h, -h], -1)).to_event(1),
    "multivariate normal": lambda h: dist.MultivariateNormal(
        h, torch.eye(6) + 0.1 * h[..., None] * h[..., None, :]
    ),
    "mixture": lambda h: dist.MixtureSameFamily(
        dist.Categorical(logits=h[..., :2]), dist.Normal(torch.stack([h, -h], -2), 1.0).to_event(1)
    ),
}


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("name", ["MWGKernel", "LAIRKernel"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_compiled_draws_of_any_likelihood(likelihood, name):
    """LAIR chooses among parameters, which then lie in memory in another order."""
    torch.manual_seed(0)
    weight, z = torch.randn(2, 6), torch.randn(4, 2)
    x, mask = LIKELIHOODS[likelihood](z @ weight).sample(), torch.rand(4, 6) < 0.6

    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", LIKELIHOODS[likelihood](z @ weight), obs=x)

    def guide(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(0.01 * x[:, :2].float(), 1.2).to_event(1))

    kernel = getattr(api, name)(model, guide)
    one, other = (draws(run(kernel, x, mask=mask, jit_compile=jit)) for jit in (False, True))
    for site in one:
        torch.testing.assert_close(other[site], one[site], rtol=1e-3, atol=1e-3)


@compiles
@pytest.mark.parametrize(
    "name", ["iwae", *(pytest.param(n, marks=pytest.mark.slow) for n in OBJECTIVES if n != "iwae")]
)
def test_compiled_objectives_train_the_same(name):
    expected = train(objective=name, jit_compile=False)
    np.testing.assert_allclose(train(objective=name).losses, expected.losses, rtol=1e-4)


# --- what cannot be compiled ----------------------------------------------------------------------


def branching(x):
    scale = pyro.param("scale", torch.ones(()))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        loc = z.expand(-1, 5) * (2 if scale > 0 else 1)
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


def wide(x):
    with pyro.plate("rows", len(x)):
        scale = pyro.param("scale", torch.ones(()))
        pyro.sample("z", dist.Normal(torch.zeros(1), scale).to_event(1))


def test_branches_are_refused():
    complete = X.nan_to_num(0.0)
    with pytest.raises(NotImplementedError, match="read values of tensors in Python"):
        api.fit((branching, wide), complete, jit_compile=True, num_steps=3, progress_bar=False)
    with pytest.raises(NotImplementedError, match="leave jit_compile out"):
        run(api.MWGKernel(branching, wide), jit_compile=True)


@pytest.mark.parametrize(
    "read",
    [
        lambda x, flag: x * flag.item(),
        lambda x, flag: x if flag else -x,
        lambda x, flag: x * float(flag),
        lambda x, flag: x * x.tolist()[0],
        lambda x, flag: x * x.numpy().max(),
        lambda x, flag: x * np.asarray(flag),
        lambda x, flag: torch.nn.functional.one_hot(x.long()),
    ],
)
def test_values_that_python_reads_are_refused(read):
    """They would stay those of the first call, also of tensors read beside the arguments."""
    flag = torch.ones(())
    with pytest.raises(NotImplementedError, match="read values of tensors in Python"):
        compiled.Compiled(lambda tree: read(tree["x"], flag))({"x": torch.ones(3)})


@pytest.mark.parametrize("method", ["sequential", "parallel"])
def test_chains_of_the_host_are_refused(method):
    kernel = api.MWGKernel(*programs.linear_gaussian(TRUTH))
    with pytest.raises(ValueError, match=f"not {method} ones"):
        api.MCMC(kernel, 3, chain_method=method, jit_compile=True)


@pytest.mark.slow
def test_a_missing_compiler_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    inductor = importlib.import_module("torch._inductor.config")
    monkeypatch.setattr(inductor.cpp, "cxx", (None, "no-such-compiler"))
    with pytest.raises(RuntimeError, match="needs a C\\+\\+ compiler"):
        train(objective="stl")
