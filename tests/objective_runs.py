"""Losses of objectives and their gradients by the hosts' own interfaces, draw by draw."""

from functools import lru_cache

import numpy as np
from gaussian_chains import flat
from kernel_parts import real
from scipy import stats


def losses(backend, objective, pair, x, seeds=(0,), **kwargs):
    """The loss for each seed."""
    x, kwargs = given(backend, x, kwargs)
    if backend.name == "numpyro":
        import jax

        loss = jax.jit(lambda key, x, kwargs: objective.loss(key, {}, *pair, x, **kwargs))
        return np.array([loss(jax.random.key(seed), x, kwargs) for seed in seeds])
    import pyro

    values = []
    for seed in seeds:
        pyro.clear_param_store()
        pyro.set_rng_seed(seed)
        values.append(objective.loss(*pair, x, **kwargs))
    return np.array(values)


def loss_and_gradient(backend, objective, chain, x, seed=0, **kwargs):
    """The loss and its gradient in the order of `flat`, for a seed."""
    x, kwargs = given(backend, x, kwargs)
    if backend.name == "numpyro":
        from jax import random

        both = numpyro_loss_and_gradient(backend, objective, chain)
        loss, gradient = both(chain.on(backend), random.key(seed), x, kwargs)
        return float(loss), flat({n: np.asarray(g) for n, g in gradient.items()})
    import pyro

    pair = chain.pair(backend)
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    loss = objective.loss_and_grads(*pair, x, **kwargs)
    store = pyro.get_param_store()
    grads = {name: store[name].unconstrained().grad for name in store}
    none = {name: np.zeros(np.shape(value)) for name, value in chain.parameters.items()}
    return loss, flat({**none, **{n: g.numpy() for n, g in grads.items() if g is not None}})


def gradients(backend, objective, chain, x, num_draws=600, **kwargs):
    """Gradients of minus the loss, (num_draws, parameters), in the order of `flat`."""
    x, kwargs = given(backend, x, kwargs)
    if backend.name == "pyro":
        pair = chain.pair(backend)
        return -np.array(list(pyro_gradients(objective.loss_and_grads, pair, x, num_draws, kwargs)))
    from jax import random

    keys = random.split(random.key(int(np.abs(x).sum() * 1e6)), num_draws)  # other rows, other keys
    draws = numpyro_gradients(backend, objective, chain)(chain.on(backend), keys, x, kwargs)
    draws = {name: np.asarray(g).reshape(num_draws, -1) for name, g in draws.items()}
    return -np.concatenate([draws[name] for name in sorted(draws)], 1)


@lru_cache
def numpyro_loss_and_gradient(backend, objective, chain):
    """The loss and its gradient, compiled once for each shape of the data."""
    import jax

    pair = chain.pair(backend)
    return jax.jit(
        jax.value_and_grad(lambda p, key, x, kwargs: objective.loss(key, p, *pair, x, **kwargs))
    )


@lru_cache
def numpyro_gradients(backend, objective, chain):
    """Gradients of the loss, compiled once for each shape of the data."""
    import jax

    pair = chain.pair(backend)
    gradient = jax.grad(lambda p, key, x, kwargs: objective.loss(key, p, *pair, x, **kwargs))
    return jax.jit(jax.vmap(gradient, (None, 0, None, None)))


def pyro_gradients(loss_and_grads, pair, x, num_draws, kwargs):
    """Gradients of the loss by Pyro's own interface, one for each draw."""
    import pyro

    pyro.clear_param_store()
    pyro.set_rng_seed(int(x.abs().sum() * 1e6))  # other rows, other draws
    store = pyro.get_param_store()
    for _ in range(num_draws):
        for name in store:
            store[name].unconstrained().grad = None
        loss_and_grads(*pair, x, **kwargs)
        grads = {n: store[n].unconstrained().grad for n in store}
        yield flat({n: np.zeros(()) if g is None else g.numpy().copy() for n, g in grads.items()})


def given(backend, x, kwargs):
    kwargs = {k: backend.array(np.array(v)) for k, v in kwargs.items()}
    return real(backend, x), kwargs


def assert_unbiased(draws, truth):
    """False alarms: 1e-5 a call, by Student's law of means."""
    error = draws.std(0, ddof=1) / np.sqrt(len(draws))
    scores = (draws.mean(0) - truth) / np.maximum(error, 1e-6)
    assert np.abs(scores).max() < stats.t.isf(1e-5 / (2 * len(truth)), len(draws) - 1), scores
