"""The residual nets of the example: both twins give the same numbers, train, and are sampled."""

import importlib

import numpy as np
import pytest

SHAPE, CHANNELS = (1, 13, 10), (4, 6, 8)  # sizes that halve to odd ones


@pytest.fixture
def resnet(backend, example_folder):
    return importlib.import_module(f"resnet_{backend.name}")


def pair_of(backend, resnet, channels=CHANNELS):
    if backend.name == "pyro":
        importlib.import_module("pyro").set_rng_seed(0)
        return resnet.pair(SHAPE, 2, channels)
    return resnet.pair(SHAPE, 2, channels, importlib.import_module("flax.nnx").Rngs(0))


def test_shapes(backend, resnet):
    nets, x = pair_of(backend, resnet), backend.array(np.ones((2, 3, *SHAPE), "float32"))
    loc, scale = nets["encoder"](x)
    assert loc.shape == scale.shape == (2, 3, 2)
    assert (np.asarray(scale.tolist()) > 0).all()
    assert nets["decoder"](loc).shape == x.shape


@pytest.mark.slow
def test_they_train_and_are_sampled(backend, resnet):
    """Upper halves white, lower halves black: the loss falls, and the hidden half is found."""
    x = np.zeros((64, *SHAPE), "float32")
    x[::2, :, :7] = 1.0
    vae = backend.api.VAE(SHAPE, 2, **pair_of(backend, resnet, CHANNELS[:2]))
    fitted = backend.fit(vae, x, num_steps=200, batch_size=32, learning_rate=5e-3)
    losses = np.asarray(fitted.losses)
    assert losses[-10:].mean() < 0.4 * losses[:3].mean()
    hidden = x[:2].copy()
    hidden[:, :, :, 5:] = np.nan
    kernel = backend.api.MWGKernel(fitted.model, fitted.guide)
    mcmc = backend.run(kernel, backend.array(hidden), num_warmup=10, num_samples=10)
    draws = backend.draws(mcmc)["x"][..., 5:]
    assert np.abs(draws - x[:2, :, :, 5:]).mean() < 0.25  # 0.5 by chance


def test_the_twins_agree(example_folder):
    """Torch's weights, turned, in the other twin's nets."""
    torch, nnx = pytest.importorskip("torch"), pytest.importorskip("flax.nnx")
    twins = [importlib.import_module(f"resnet_{name}") for name in ("pyro", "numpyro")]
    torch.manual_seed(0)
    ours = twins[0].pair(SHAPE, 2, CHANNELS)
    theirs = twins[1].pair(SHAPE, 2, CHANNELS, nnx.Rngs(0))
    x = np.random.default_rng(0).random((5, *SHAPE)).astype("float32")
    z = np.random.default_rng(1).normal(size=(5, 2)).astype("float32")
    for role in ours:
        for parameter in ours[role].parameters():  # the last convolutions too
            torch.nn.init.normal_(parameter, std=0.2)
        nnx.update(theirs[role], turned(ours[role].state_dict()))
    with torch.no_grad():
        found = [*ours["encoder"](torch.as_tensor(x)), ours["decoder"](torch.as_tensor(z))]
    expected = [*theirs["encoder"](x), theirs["decoder"](z)]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.numpy(), np.asarray(other), rtol=1e-3, atol=1e-4)


def turned(state):
    """A state dict of torch as nested dicts of nnx: numbers for places in lists."""
    tree = {}
    for name, value in state.items():
        *path, last = (int(part) if part.isdigit() else part for part in name.split("."))
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        axes = {4: (2, 3, 1, 0), 2: (1, 0)}.get(value.ndim, (0,))
        branch["kernel" if last == "weight" else last] = value.numpy().transpose(axes)
    return tree
