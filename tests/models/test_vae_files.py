"""One weight file, two twins: same densities, same bits, and no file of another VAE."""

import inspect

import numpy as np
import pytest
from vae_cases import CASES, each_case, rows_of, shaken, write_shaken

from ppl_vae.weights import write_weights


def test_signatures_are_the_same(twins):
    first, second = (inspect.signature(twin.VAE.__init__).parameters for twin in twins)
    assert list(first) == list(second)
    assert all(first[k].default == second[k].default for k in first)
    for method in ("model", "guide", "architecture", "from_architecture"):
        first, second = (inspect.signature(getattr(twin.VAE, method)) for twin in twins)
        assert list(first.parameters) == list(second.parameters)


def agree(twins, case, path, dtype, rtol):
    """Open one file in the first twin, save it, open that in the second: same densities."""
    writer, reader = twins
    write_shaken(path, writer, case, dtype)
    first = writer.load(path)
    writer.save(path, first)
    second = reader.load(path)
    x, z = rows_of(case, 7, dtype)
    ours, theirs = writer.log_densities(first, x, z), reader.log_densities(second, x, z)
    for site in ("x", "z", "q"):
        assert ours[site].shape == theirs[site].shape == (7,)
        assert ours[site].dtype == theirs[site].dtype == dtype
        np.testing.assert_allclose(ours[site], theirs[site], rtol=rtol)


@pytest.mark.parametrize("twins", ["pyro"], indirect=True)
@each_case
def test_log_densities_agree_in_float32(twins, case, file):
    agree(twins, case, file, np.float32, 1e-5)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("twins", ["numpyro"], indirect=True)
@each_case
def test_log_densities_agree_in_float64(twins, case, file):
    agree(twins, case, file, np.float64, 1e-10)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["mlp-normal", "odd-conv-categorical"])
def test_weights_come_back_bit_identical(twins, name, dtype, file):
    writer, reader = twins
    weights = write_shaken(file, writer, CASES[name], dtype)
    for twin in (writer, reader, writer):
        fitted = twin.load(file)
        twin.save(file, fitted)
        back = twin.weights(fitted)
        assert back.keys() == weights.keys()
        for key, array in back.items():
            assert array.dtype == dtype
            assert array.tobytes() == np.ascontiguousarray(weights[key]).tobytes()


@pytest.mark.parametrize("event_shape", [(6,), (2, 5, 4)])
def test_masked_encoders_open_in_the_other_twin(twins, event_shape, file):
    writer = twins[0]
    case = (event_shape, 3, (5,), "bernoulli")

    def blank(twin):
        return twin.VAE(*case, encoder=twin.masked_encoder(*case[:3]))

    fitted = writer.build(*case, encoder=writer.masked_encoder(*case[:3]))
    weights = shaken(writer.weights(fitted))
    write_weights(file, weights, {"architecture": blank(writer).architecture()})
    x, z = rows_of(case, 7)
    ours, theirs = (t.log_densities(t.load(file, vae=blank(t)), x, z) for t in twins)
    np.testing.assert_allclose(ours["q"], theirs["q"], rtol=1e-5)
    np.testing.assert_allclose(ours["x"], theirs["x"], rtol=1e-5)


def test_weights_of_another_architecture_are_refused(twins, file):
    writer, reader = twins
    writer.save(file, writer.build((6,), 2, (5,)))
    with pytest.raises(ValueError, match=r"latent_dim: expected 3, came 2"):
        reader.load(file, vae=reader.VAE((6,), 3, (5,)))
    with pytest.raises(ValueError, match=r"likelihood: expected normal, came bernoulli"):
        reader.load(file, vae=reader.VAE((6,), 2, (5,), "normal"))


def test_header_that_does_not_fit_its_tensors_is_refused(twin, file):
    fitted = twin.build((6,), 2, (5,))
    weights = twin.weights(fitted)
    other = twin.build((6,), 2, (4,))
    vae = other[0] if twin.name == "numpyro" else other
    write_weights(file, weights, {"architecture": vae.architecture()})
    expected = r"encoder.layers.0.weight: expected shape \(4, 6\), came \(5, 6\)"
    with pytest.raises(ValueError, match=expected):
        twin.load(file)


def test_refused_weights_change_nothing():
    pytest.importorskip("pyro")
    from ppl_vae.models.pyro.vae import VAE

    vae = VAE((6,), 2, (5,))
    before = vae.to_weights()
    wrong = {**shaken(before), "decoder.layers.1.bias": np.zeros(7, np.float32)}
    with pytest.raises(ValueError, match=r"decoder.layers.1.bias: expected shape \(6,\)"):
        vae.load_weights(wrong)
    for name, array in vae.to_weights().items():
        np.testing.assert_array_equal(array, before[name])


def test_double_weights_in_single_precision_jax_are_announced(file):
    pytest.importorskip("numpyro")
    from jax import random

    from ppl_vae.numpyro import VAE, load

    vae = VAE((6,), 2, (5,))
    weights = shaken(vae.to_weights(vae.initial_params(random.key(0))), np.float64)
    write_weights(file, weights, {"architecture": vae.architecture()})
    with pytest.warns(UserWarning, match="float64 and JAX holds them as float32"):
        load(file)
