"""Own nets of a VAE that keep running means or drop units; same text for both twins."""

import numpy as np
import pytest
from small_training import X, same, weights

HALF = np.where(np.arange(6) < 3, X, np.nan)
EVALUATION = r"rows of the guide are not independent|evaluation mode"


def encoder(backend, kind):
    """6 to 2 latents by way of batch normalisation or dropout, the same weights at every call."""
    if backend.name == "pyro":
        import torch
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 4)
                self.between = nn.BatchNorm1d(8) if kind == "batch norm" else nn.Dropout(0.5)

            def forward(self, x):
                loc, raw = self.last(self.between(self.first(x)).relu()).chunk(2, -1)
                return loc, raw.exp()

        torch.manual_seed(3)
        return Net()

    import jax.numpy as jnp
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first, self.last = nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 4, rngs=rngs)
            make = {"batch norm": lambda: nnx.BatchNorm(8, rngs=rngs)}
            self.between = make.get(kind, lambda: nnx.Dropout(0.5, rngs=rngs))()

        def __call__(self, x):
            loc, raw = jnp.split(self.last(nnx.relu(self.between(self.first(x)))), 2, -1)
            return loc, jnp.exp(raw)

    return Net(nnx.Rngs(3))


def vae(backend, kind):
    if backend.name == "pyro":
        import torch

        torch.manual_seed(4)
    net = encoder(backend, kind)
    return net, backend.api.VAE((6,), 2, hidden=(8,), encoder=net)


def train(backend, kind, **options):
    options = {"num_steps": 12, "batch_size": 8, "learning_rate": 0.02, **options}
    net, program = vae(backend, kind)
    return net, backend.fit(program, X, **options)


def densities(backend, fitted):
    """Parameters of q(z | x) as the fitted guide has them."""
    if backend.name == "pyro":
        import pyro

        site = pyro.poutine.trace(fitted.guide).get_trace(backend.array(X)).nodes["z"]
        return site["fn"].base_dist.loc.detach().numpy()
    from numpyro import handlers

    site = handlers.trace(handlers.seed(fitted.guide, 0)).get_trace(X)["z"]
    return np.asarray(site["fn"].base_dist.loc)


@pytest.mark.parametrize("kind", ["batch norm", "dropout"])
def test_interrupted_and_resumed_is_uninterrupted(backend, tmp_path, kind):
    _, whole = train(backend, kind)
    path = tmp_path / "run.npz"
    train(backend, kind, checkpoint=path, num_steps=7)
    _, resumed = train(backend, kind, checkpoint=path)
    np.testing.assert_array_equal(whole.losses, resumed.losses)
    assert same(weights(backend, whole), weights(backend, resumed))


def test_validation_rows_leave_no_trace(backend):
    _, without = train(backend, "batch norm")
    _, with_them = train(backend, "batch norm", validation=1 - X[:10])
    assert same(weights(backend, without), weights(backend, with_them))


def test_training_moves_the_running_means(backend):
    _, fitted = train(backend, "batch norm")
    _, program = vae(backend, "batch norm")
    before = weights(backend, backend.fit(program, X, num_steps=1, learning_rate=1e-9))
    after = weights(backend, fitted)
    moved = [name for name in after if "mean" in name or "var" in name]
    assert len(moved) == 2
    for name in moved:
        assert not np.allclose(before[name], after[name]), name


def test_evaluation_mode_after_training(backend):
    """It can be changed after the VAE was made, and kernels want it."""
    for kind in ("batch norm", "dropout"):
        net, fitted = train(backend, kind)
        kernel = backend.api.MWGKernel(fitted.model, fitted.guide)
        with pytest.raises(ValueError, match=EVALUATION):
            backend.run(kernel, backend.array(HALF), num_samples=2)
        net.eval()
        mcmc = backend.run(
            backend.api.MWGKernel(fitted.model, fitted.guide), backend.array(HALF), num_samples=2
        )
        assert np.isfinite(backend.draws(mcmc)["x"]).all()


def test_running_means_go_into_the_weight_file(backend, tmp_path):
    net, fitted = train(backend, "batch norm")
    path = tmp_path / "vae.safetensors"
    fitted.save(path)
    new_net, new_vae = vae(backend, "batch norm")
    loaded = backend.api.load(path, vae=new_vae)
    assert same(weights(backend, fitted), weights(backend, loaded))
    net.eval()
    new_net.eval()
    np.testing.assert_array_equal(densities(backend, fitted), densities(backend, loaded))
