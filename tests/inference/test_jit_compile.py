"""Pyro with `jit_compile=True`: what is recorded and compiled does what the functions do."""

import importlib
import os
import shutil

import numpy as np
import pytest
from oracles import LinearGaussian

from ppl_vae.missingness import mcar
from ppl_vae.schedules import Linear

torch = pytest.importorskip("torch")
pyro = pytest.importorskip("pyro")
dist = pytest.importorskip("pyro.distributions")
api = importlib.import_module("ppl_vae.pyro")
programs = importlib.import_module("programs_pyro")
compiled = importlib.import_module("ppl_vae.inference.pyro.compiled")

TRUTH = LinearGaussian.example()
X = np.where(np.arange(5) < 3, TRUTH.draw(np.random.default_rng(0), 4), np.nan).astype(np.float32)
X = torch.as_tensor(X)
BINARY = (torch.rand(24, 6, generator=torch.Generator().manual_seed(0)) < 0.4).float()
KERNELS = [
    "PseudoGibbsKernel", "MWGKernel", "ACMWGKernel", "LAIRKernel", "PriorResamplingKernel",
    "StreamingLAIRKernel", "MarginalKernel", "HistoricalLAIRKernel", "ScheduledLAIRKernel",
    "ClippedPseudoGibbsKernel", "MNARMWGKernel", "MNARLAIRKernel", "HMCRefreshKernel",
]  # fmt: skip
OBJECTIVES = [
    "elbo", "analytic-elbo", "stl", "iwae", "normalised-iwae", "iwae-stl", "dreg", "gdreg", "rws",
    "rws-dreg", "jvi", "ciwae", "renyi", "forward-kl",
]  # fmt: skip

compiles = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler"
)


@pytest.fixture
def only_recorded(monkeypatch):
    """Run what was recorded as it is: compiling takes ten seconds a function, recording one."""
    monkeypatch.setattr(torch, "compile", lambda module, **options: module)


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


# --- what is recorded is the function, bit by bit ---------------------------------------------


@pytest.mark.parametrize("name", KERNELS)
def test_recorded_kernels_draw_the_same(name, only_recorded):
    pair = programs.linear_gaussian(TRUTH)
    expected = run(kernel_of(name, pair), jit_compile=False)
    found = run(kernel_of(name, pair), jit_compile=True)
    for site, value in draws(expected).items():
        torch.testing.assert_close(draws(found)[site], value, rtol=0, atol=0, equal_nan=True)
    for before, after in zip(
        *(m.get_extra_fields()["info"] for m in (expected, found)), strict=True
    ):
        if isinstance(before, torch.Tensor):
            torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert len(found.kernel._step._recorded) <= 2  # a state's structure settles


@pytest.mark.parametrize("name", OBJECTIVES)
def test_recorded_objectives_train_the_same(name, only_recorded):
    expected = train(objective=name, jit_compile=False)
    np.testing.assert_array_equal(train(objective=name).losses, expected.losses)


@pytest.mark.parametrize("likelihood", ["normal", ("categorical", 2)])
def test_other_likelihoods_and_masks(likelihood, only_recorded):
    options = {"mask": BINARY.roll(1) > 0, "objective": "iwae", "clip_norm": 1.0}
    expected, found = (
        train(small_vae(likelihood=likelihood), jit_compile=jit, **options).losses
        for jit in (False, True)
    )
    np.testing.assert_array_equal(found, expected)


def test_schedules_chunks_and_transforms_go_on(only_recorded):
    """The weight of a schedule is another one at every step, the operations are the same."""
    objective = api.IWAE(num_particles=6, chunk_size=2, kl_weight=Linear(0.0, 1.0, 9))
    options = {"objective": objective, "transform": api.dynamic_binarisation}
    expected = train(jit_compile=False, **options)
    np.testing.assert_array_equal(train(**options).losses, expected.losses)
    fixed = train(jit_compile=False, **{**options, "objective": api.IWAE(num_particles=6)})
    assert not np.array_equal(fixed.losses, expected.losses)


@pytest.mark.parametrize("objective", ["iwae", "gdreg"])
def test_layers_and_labels(objective, only_recorded):
    def trained(jit_compile):
        pyro.set_rng_seed(1)
        vae = api.ConditionalVAE((6,), (4, 2), 3)
        return train(vae, labels, objective=objective, jit_compile=jit_compile)

    labels = torch.arange(24) % 3
    expected, found = trained(False), trained(True)
    np.testing.assert_array_equal(found.losses, expected.losses)
    x = torch.where(BINARY.roll(2) > 0, BINARY, torch.nan)
    for name in ("ACMWGKernel", "LAIRKernel"):
        kernel = getattr(api, name)(found.model, found.guide)
        one, other = (draws(run(kernel, x, labels, jit_compile=jit)) for jit in (False, True))
        for site in one:
            torch.testing.assert_close(other[site], one[site], rtol=0, atol=0)


def test_a_training_goes_on_from_its_checkpoint(only_recorded, tmp_path):
    whole = train(num_steps=9)
    train(num_steps=6, checkpoint=tmp_path / "run.npz")
    resumed = train(num_steps=9, checkpoint=tmp_path / "run.npz")
    np.testing.assert_array_equal(resumed.losses, whole.losses)


def test_chains_go_on_from_their_last_state(only_recorded):
    kernel = api.ACMWGKernel(*programs.linear_gaussian(TRUTH))
    whole = run(kernel, jit_compile=True)
    parts = run(kernel, jit_compile=True, num_samples=5)
    begin = draws(parts)["z"]
    parts.post_warmup_state, parts.num_samples = parts.last_state, 7
    parts.run(X)
    together = torch.cat([begin, draws(parts)["z"]], 1)
    torch.testing.assert_close(together, draws(whole)["z"], rtol=0, atol=0)


# --- what a recording holds on to -------------------------------------------------------------


def test_tensors_read_beside_the_arguments_are_read_anew(only_recorded):
    weight = torch.nn.Parameter(torch.ones(3))
    fn = compiled.Compiled(lambda tree: {"y": tree["x"] * weight + torch.rand(3)})
    for scale in (1.0, 2.0, 3.0):
        weight.data.fill_(scale)
        torch.manual_seed(0)
        found = fn({"x": torch.ones(3)})["y"]
        torch.manual_seed(0)
        torch.testing.assert_close(found, scale + torch.rand(3), rtol=0, atol=0)


def test_what_is_written_in_place_is_written_once_a_call(only_recorded):
    def fn(tree):
        tree["x"][0] += 1
        counter.add_(1)
        return tree

    counter = torch.zeros(())
    step, tree = compiled.Compiled(fn), {"x": torch.zeros(2)}
    for _ in range(4):
        tree = step(tree)
    assert tree["x"].tolist() == [4, 0]
    assert counter == 4


def test_another_structure_is_recorded_anew(only_recorded):
    """A number that is no tensor belongs to the structure: it is not frozen at its first value."""
    fn = compiled.Compiled(lambda tree: (tree[0] * tree[1], tree[1] + 1))
    x, n = torch.ones(2), 1
    for expected in (1, 2, 6, 24):
        x, n = fn((x, n))
        assert x.tolist() == [expected] * 2
    assert fn((torch.ones(3), 2))[0].shape == (3,)
    assert fn((torch.ones(3).double(), 2))[0].dtype == torch.float64


def test_distributions_come_back_with_other_parameters(only_recorded):
    def fn(d):
        return torch.distributions.Independent(torch.distributions.Normal(d.mean + 1, 2.0), 1)

    step, d = compiled.Compiled(fn), fn(torch.distributions.Normal(torch.zeros(3), 1.0))
    for i in range(2, 5):
        d = step(d)
        assert d.mean.tolist() == [i] * 3
        assert d.event_shape == (3,)
        assert d.log_prob(torch.full((3,), float(i))) == pytest.approx(-3 * np.log(2 * 2.5066283))


# --- compiled -----------------------------------------------------------------------------------


@compiles
@pytest.mark.parametrize(
    "name",
    [
        "ACMWGKernel",
        "LAIRKernel",
        *(pytest.param(n, marks=pytest.mark.slow) for n in KERNELS[4:-1]),
    ],
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
    with pytest.raises(NotImplementedError, match="branch on the values of tensors"):
        api.fit((branching, wide), complete, jit_compile=True, num_steps=3, progress_bar=False)
    with pytest.raises(NotImplementedError, match="leave jit_compile out"):
        run(api.MWGKernel(branching, wide), jit_compile=True)


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
