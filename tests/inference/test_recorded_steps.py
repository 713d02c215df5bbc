"""Pyro with `jit_compile=True`: what is recorded is the function, bit by bit."""

import importlib

import numpy as np
import pytest
from jit_runs import (
    BINARY,
    KERNELS,
    OBJECTIVES,
    TRUTH,
    X,
    api,
    draws,
    kernel_of,
    programs,
    run,
    small_vae,
    train,
)

from ppl_vae.schedules import Linear

torch = pytest.importorskip("torch")
nn = torch.nn
pyro = pytest.importorskip("pyro")
dist = pytest.importorskip("pyro.distributions")
compiled = importlib.import_module("ppl_vae.inference.pyro.compiled")


@pytest.fixture
def only_recorded(monkeypatch):
    """Run what was recorded as it is: compiling takes ten seconds a function, recording one."""
    monkeypatch.setattr(torch, "compile", lambda module, **options: module)
    monkeypatch.delitem(compiled.OTHERWISE, torch.ops.aten.addmm.default)  # it rounds otherwise


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


def test_a_pair_with_parameters_and_buffers(only_recorded):
    """Constrained parameters in the store, batch normalisation and dropout in the guide."""

    def trained(jit_compile):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        layers = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 4)
        net, first = nn.Sequential(*layers), torch.randn(2, 6)

        def model(x):
            weight = pyro.param("weight", first)
            scale = pyro.param("scale", torch.tensor(0.7), dist.constraints.positive)
            with pyro.plate("rows", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z @ weight, scale).to_event(1), obs=x)

        def guide(x):
            loc, raw = pyro.module("net", net)(x).chunk(2, -1)
            with pyro.plate("rows", len(x)):
                pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))

        losses = train((model, guide), jit_compile=jit_compile).losses
        return losses, [t.clone() for t in (pyro.param("scale"), *net.buffers())]

    (expected, tensors), (found, others) = trained(False), trained(True)
    np.testing.assert_array_equal(found, expected)
    torch.testing.assert_close(others, tensors, rtol=0, atol=0)


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


@pytest.mark.parametrize("clip_norm", [None, 0.1])
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("name", ["transposed", "shared", "expanded", "joined"])
def test_gradients_are_those_of_backward(name, jit_compile, clip_norm, only_recorded):
    """Parts of a gradient that share memory, or lie in it in another order than the parameter."""
    uses = {
        "transposed": lambda z, a, b: torch.einsum("bi,oi->bo", z, a) + z @ b.T,
        "shared": lambda z, a, b: z @ (a + b).T,
        "expanded": lambda z, a, b: z @ a.T + b.sum(),
        "joined": lambda z, a, b: torch.cat([z, z], 1) @ torch.cat([a, b], 1).T,
    }
    torch.manual_seed(0)
    starts = torch.randn(6, 2), torch.randn(6, 2)

    def trained(by_hand):
        pyro.clear_param_store()

        def model(x):
            a, b = (pyro.param(n, s.clone()) for n, s in zip("ab", starts, strict=True))
            with pyro.plate("rows", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                logits = uses[name](z, a, b)
                pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

        def guide(x):
            with pyro.plate("rows", len(x)):
                pyro.sample("z", dist.Normal(x[:, :2], 1.0).to_event(1))

        model(BINARY)
        parameters = [pyro.param(n).unconstrained() for n in "ab"]
        if not by_hand:
            options = {"learning_rate": 0.1, "batch_size": 24, "shuffle": False}
            train((model, guide), jit_compile=jit_compile, clip_norm=clip_norm, **options)
            return [p.detach().clone() for p in parameters]
        optimiser = torch.optim.Adam(parameters, lr=0.1)
        for _ in range(9):
            optimiser.zero_grad()
            loss = api.ELBO().differentiable_loss(model, guide, BINARY) / 24
            loss.backward()
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(parameters, clip_norm)
            optimiser.step()
        return [p.detach().clone() for p in parameters]

    pyro.set_rng_seed(5)
    found = trained(by_hand=False)
    pyro.set_rng_seed(5)
    torch.randint(2**62, ())  # the seed that `fit` draws for the order of the rows
    expected = trained(by_hand=True)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
