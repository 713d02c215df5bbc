"""Several trainings of one shape at once; same text for both twins."""

import importlib

import numpy as np
import pytest
from host_words import bernoulli_pair, words
from small_training import X, small_vae, weights


def replicas(backend, **options):
    options = {"num_steps": 9, "batch_size": 8, "num_replicas": 3, **options}
    options.update(progress_bar=False)
    if backend.name == "numpyro":
        from jax import random

        vae = backend.api.VAE((6,), 2, hidden=(8,))
        return backend.api.fit_replicas(random.key(0), lambda: vae, X, **options)
    import pyro

    pyro.set_rng_seed(0)
    return backend.api.fit_replicas(lambda: backend.api.VAE((6,), 2, hidden=(8,)), X, **options)


def test_replicas_are_trainings_of_their_own(backend):
    validation = backend.array(X[:5])
    fitted = replicas(backend, learning_rate=0.02, validation=validation)
    assert [f.losses.shape for f in fitted] == [(9,)] * 3
    assert [f.validation_losses.shape for f in fitted] == [(3,)] * 3
    assert len({float(f.losses[0]) for f in fitted}) == 3
    one, other, _ = (weights(backend, f) for f in fitted)
    assert all((one[name] != other[name]).any() for name in one)


def test_replicas_refuse_what_fit_refuses(backend):
    """Grey data for anybody's Bernoulli: looked at before the first step."""
    pair = bernoulli_pair(words(backend))
    key = () if backend.name == "pyro" else (importlib.import_module("jax").random.key(0),)
    with pytest.raises(ValueError, match="outside the support of the likelihood at site 'x'"):
        backend.api.fit_replicas(*key, lambda: pair, X * 0.3, num_replicas=2, num_steps=2)


@pytest.mark.slow
def test_a_replica_of_numpyro_is_a_fit():
    """Side by side or alone: the same keys, and sums in another order."""
    jax = pytest.importorskip("jax")
    from ppl_vae.numpyro import VAE, dynamic_binarisation, fit, fit_replicas

    vae, key = VAE((6,), 2, hidden=(8,)), jax.random.key(3)
    options = {
        "num_steps": 9, "batch_size": 8, "transform": dynamic_binarisation, "validation": X[:5],
        "progress_bar": False,
    }  # fmt: skip
    together = fit_replicas(key, lambda: vae, X / 2, num_replicas=2, **options)
    for own_key, replica in zip(jax.random.split(key, 2), together, strict=True):
        alone = fit(own_key, vae, X / 2, **options)
        np.testing.assert_allclose(replica.losses, alone.losses, rtol=1e-4)
        np.testing.assert_allclose(replica.validation_losses, alone.validation_losses, rtol=1e-4)
        for name, value in vae.to_weights(alone.params).items():
            np.testing.assert_allclose(vae.to_weights(replica.params)[name], value, atol=1e-4)


def test_replicas_are_resumed_bit_by_bit(backend, tmp_path):
    whole = replicas(backend)
    replicas(backend, num_steps=4, checkpoint=tmp_path / "run.npz")
    resumed = replicas(backend, checkpoint=tmp_path / "run.npz")
    for one, other in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(one.losses, other.losses)
        for name, value in weights(backend, one).items():
            np.testing.assert_array_equal(value, weights(backend, other)[name])


def test_bad_replicas(backend):
    with pytest.raises(ValueError, match="num_replicas must be an integer >= 1, got 0"):
        replicas(backend, num_replicas=0)
    with pytest.raises(ValueError, match=r"num_replicas must be an integer >= 1, got 2\.5"):
        replicas(backend, num_replicas=2.5)
    with pytest.raises(TypeError, match=r"fit\w*\(\) got .*'num_stpes'"):
        replicas(backend, num_stpes=3)
    key = (importlib.import_module("jax").random.key(0),) if backend.name == "numpyro" else ()
    with pytest.raises(TypeError, match="make_program must be a function"):
        backend.api.fit_replicas(*key, small_vae(backend), X, num_replicas=2)
