"""A small data set with missing entries, and trainings on it that take a second."""

import numpy as np

RNG = np.random.default_rng(0)
X = (RNG.random((24, 6)) < 0.4).astype("float32")
MASK = RNG.random(X.shape) < 0.6
SMALL = {"num_steps": 12, "batch_size": 8, "mask": MASK}


def small_vae(backend, **options):
    """A VAE whose first weights are the same at every call."""
    if backend.name == "pyro":
        import pyro

        pyro.set_rng_seed(1)
    return backend.api.VAE((6,), 2, hidden=(8,), **options)


def train(backend, **options):
    return backend.fit(small_vae(backend), X, **{"num_steps": 9, "batch_size": 8, **options})


def losses(backend, x=X, **options):
    options = {"num_steps": 12, "batch_size": 8, **options}
    return backend.fit(small_vae(backend), x, **options).losses


def weights(backend, fitted):
    """All weights by name, of a VAE of this library."""
    has_params = backend.name == "numpyro"
    return fitted.program.to_weights(*((fitted.params,) if has_params else ()))


def same(one, other, part=""):
    """Whether the weights whose names begin with `part` are equal bit by bit."""
    names = [name for name in one if name.startswith(part)]
    assert names
    return all(np.array_equal(one[name], other[name]) for name in names)
