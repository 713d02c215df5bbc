"""One text for the programs of both twins: the words that the hosts share, and a small program."""

import importlib
from types import SimpleNamespace

import numpy as np

NAN = np.nan
X = np.array([[0, 1, NAN], [NAN, 1, 0], [1, NAN, NAN], [0, 0, 1]], "float32")
FILLED = np.where(np.isnan(X), 0, X)
MASK = ~np.isnan(X)


def words(backend):
    """`sample`, `plate`, `param`, `factor`, `dist` and `handlers` of the host under test."""
    host = importlib.import_module(backend.name)
    handlers = {"numpyro": "numpyro.handlers", "pyro": "pyro.poutine"}[backend.name]
    return SimpleNamespace(
        sample=host.sample,
        plate=host.plate,
        param=host.param,
        factor=host.factor,
        dist=importlib.import_module(f"{backend.name}.distributions"),
        handlers=importlib.import_module(handlers),
    )


def clear_parameters(backend):
    if backend.name == "pyro":
        importlib.import_module("pyro").clear_param_store()


def bernoulli_pair(ppl, *, latent="z", latent_of_guide="z", data_site="x"):
    def model(x):
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample(latent, ppl.dist.Normal(0 * x[:, :1], 1.0).to_event(1))
            likelihood = ppl.dist.Bernoulli(logits=z + 0 * x).to_event(1)
            ppl.sample(data_site, likelihood, obs=x)

    def guide(x):
        with ppl.plate("rows", x.shape[0]):
            ppl.sample(latent_of_guide, ppl.dist.Normal(x[:, :1], 1.0).to_event(1))

    return model, guide


def run(backend, pair, x=X, *, name="MWGKernel", num_samples=3, **kwargs):
    kernel = getattr(backend.api, name)(*pair)
    if isinstance(x, np.ndarray):
        x = backend.array(x)
    return backend.run(kernel, x, num_samples=num_samples, num_chains=2, **kwargs)
