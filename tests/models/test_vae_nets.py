"""The nets of a VAE: own modules, and the errors for wrong arguments and shapes."""

import numpy as np
import pytest
from vae_cases import log_normal, rows_of


def own_nets(twin, num_loc=2, num_out=6):
    """An encoder with fixed scale and a linear decoder, as a user of each framework writes them."""
    if twin.name == "pyro":
        import torch

        base, ones = torch.nn.Module, torch.ones_like
    else:
        import jax.numpy as jnp
        from flax import nnx

        base, ones = nnx.Module, jnp.ones_like

    class Encoder(base):
        def __init__(self):
            super().__init__()
            self.loc = twin.linear(6, num_loc)

        def forward(self, x):
            loc = self.loc(x)
            return loc, ones(loc)

        if twin.name == "numpyro":
            __call__ = forward

    return {"encoder": Encoder(), "decoder": twin.linear(2, num_out)}


def test_own_nets_start_from_the_weights_they_hold(twin):
    nets = own_nets(twin)
    first, second = (twin.weights(twin.first((6,), 2, **nets, seed=s)) for s in (1, 2))
    assert all(np.array_equal(first[k], second[k]) for k in first)
    x, z = rows_of(((6,), 2, (), "bernoulli"), 3)
    log_q = twin.log_densities(twin.first((6,), 2, **nets), x, z)["q"]
    held = nets["encoder"].loc
    weight = held.weight.detach().numpy().T if twin.name == "pyro" else held.kernel[...]
    bias = held.bias.detach().numpy() if twin.name == "pyro" else held.bias[...]
    expected = log_normal(z, x @ np.asarray(weight) + np.asarray(bias), 1.0).sum(-1)
    np.testing.assert_allclose(log_q, expected, rtol=1e-5)


@pytest.mark.parametrize("twin", ["numpyro"], indirect=True)
def test_own_nnx_nets_keep_their_weights_when_run_with_others(twin):
    import jax
    import numpyro

    nets = own_nets(twin)
    vae = twin.VAE((6,), 2, **nets)
    before = jax.tree.map(np.asarray, vae.initial_params(jax.random.key(0)))
    others = jax.tree.map(lambda leaf: leaf + 1.0, before)

    @jax.jit
    def run(params):
        program = numpyro.handlers.substitute(vae.guide, data=params)
        return numpyro.handlers.seed(program, 0)(np.zeros((3, 6), np.float32))

    run(others)
    after = vae.initial_params(jax.random.key(0))
    assert jax.tree.all(jax.tree.map(np.array_equal, before, after))
    np.testing.assert_array_equal(nets["decoder"].kernel[...], after["decoder$params"]["kernel"])


def test_weights_of_own_nets_need_the_same_vae(twin, file):
    fitted = twin.first((6,), 2, **own_nets(twin))
    twin.save(file, fitted)
    with pytest.raises(ValueError, match=r"own encoder and decoder.*load\(path, vae=vae\)"):
        twin.load(file)
    same = twin.VAE((6,), 2, **own_nets(twin))
    back = twin.weights(twin.load(file, vae=same))
    for name, array in twin.weights(fitted).items():
        np.testing.assert_array_equal(back[name], array)


def test_one_own_net_beside_a_built_in_one(twin, file):
    fitted = twin.first((6,), 2, (7,), decoder=own_nets(twin)["decoder"])
    twin.save(file, fitted)
    with pytest.raises(ValueError, match="own decoder, which"):
        twin.load(file)
    assert "encoder.layers.0.weight" in twin.weights(fitted)


def wrong_arguments():
    yield dict(likelihood="poisson"), ValueError, "one of bernoulli, normal, categorical.*poisson"
    yield dict(likelihood=None), ValueError, "one of bernoulli, normal, categorical, got None"
    yield dict(likelihood="categorical"), ValueError, "number of classes"
    yield dict(likelihood=("categorical", 1)), ValueError, "at least 2.*got \\[1\\]"
    yield dict(likelihood=("bernoulli", 2)), ValueError, "does not take"
    yield dict(likelihood=("normal", 0.0)), ValueError, "smallest scale above 0.*got 0.0"
    yield dict(event_shape=()), ValueError, "at least one axis"
    yield dict(event_shape=(0,)), ValueError, "event_shape must be at least 1.*\\(0,\\)"
    yield dict(event_shape=64), TypeError, "event_shape=\\(64,\\).*got 64"
    yield dict(event_shape=(6.5,)), TypeError, "whole numbers"
    yield dict(latent_dim=0), ValueError, "latent_dim must be at least 1"
    yield dict(latent_dim=2.0), TypeError, "latent_dim must"
    yield dict(hidden=(5, -1)), ValueError, "hidden must be at least 1.*-1"
    yield dict(hidden=200), TypeError, "hidden=\\(200, 200\\).*got 200"
    yield dict(encoder=len), TypeError, "encoder must be a .*Module, got builtin_function"
    yield dict(decoder=len), TypeError, "decoder must be a .*Module"


@pytest.mark.parametrize(("arguments", "error", "message"), list(wrong_arguments()))
def test_wrong_arguments_are_named(twin, arguments, error, message):
    with pytest.raises(error, match=message):
        twin.VAE(**{"event_shape": (6,), "latent_dim": 2, **arguments})


def test_nets_of_wrong_shape_are_named(twin):
    x = np.zeros((3, 6), np.float32)
    fitted = twin.first((6,), 2, **own_nets(twin, num_out=5))
    with pytest.raises(ValueError, match=r"decoder's output .* \(3, 6\), got shape \(3, 5\)"):
        twin.run_model(fitted, x)
    fitted = twin.first((6,), 2, **own_nets(twin, num_loc=4))
    with pytest.raises(ValueError, match=r"encoder's loc .* \(3, 2\), got shape \(3, 4\)"):
        twin.run_guide(fitted, x)


@pytest.mark.parametrize("shape", [(6,), (3, 5), (3, 6, 1)])
@pytest.mark.parametrize("run", ["run_model", "run_guide"])
def test_data_of_wrong_shape_are_named(twin, run, shape):
    with pytest.raises(ValueError, match=r"x must have shape \(rows, 6\), got shape"):
        getattr(twin, run)(twin.build((6,), 2), np.zeros(shape, np.float32))
