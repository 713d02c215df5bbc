"""Calls with a seed, the same text for both twins."""


def call(backend, name, pair, x, *args, seed=0, **options):
    fn, x = getattr(backend.api, name), backend.array(x)
    args = [backend.array(a) for a in args]
    if backend.name == "numpyro":
        from jax import random

        return fn(random.key(seed), *pair, x, *args, **options)
    import pyro

    pyro.set_rng_seed(seed)
    return fn(*pair, x, *args, **options)
