"""Programs for the tests, Pyro twin (compare programs_pyro.py)."""

import numpy as np
import pyro
import pyro.distributions as dist
import torch


def tensor(value):
    return torch.as_tensor(value, dtype=torch.get_default_dtype())


def linear_gaussian(truth, *, guide_shift=0.0, guide_stretch=1.0):
    weight, bias = tensor(truth.weight), tensor(truth.bias)
    gain, covariance = map(tensor, truth.posterior)
    chol = torch.linalg.cholesky(covariance) * guide_stretch

    def model(x):
        with pyro.plate("rows", x.shape[0]):
            z = pyro.sample("z", dist.Normal(torch.zeros(weight.shape[1]), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.T + bias, truth.scale).to_event(1), obs=x)

    def guide(x):
        loc = (x - bias) @ gain.T + guide_shift
        with pyro.plate("rows", x.shape[0]):
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=chol))

    return model, guide


def discrete(truth):
    prior, logits = tensor(truth.prior), tensor(np.log(truth.bit / (1 - truth.bit)))
    weight, bias = tensor(truth.guide_weight), tensor(truth.guide_bias)

    def model(x):
        with pyro.plate("rows", x.shape[0]):
            z = pyro.sample("z", dist.Categorical(prior))
            pyro.sample("x", dist.Bernoulli(logits=logits[z]).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("rows", x.shape[0]):
            pyro.sample("z", dist.Categorical(logits=x @ weight + bias))

    return model, guide


def two_modes(truth):
    def model(x):
        with pyro.plate("rows", x.shape[0]):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            loc = torch.stack([z.abs(), 4 * z.sign()], -1)
            pyro.sample("x", dist.Normal(loc, truth.scale).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("rows", x.shape[0]):
            pyro.sample("z", dist.Normal(x[:, 0] * torch.sign(x[:, 1]), truth.guide_scale))

    return model, guide


def gamma_poisson(truth):
    """Skewed and counted: z ~ Gamma, x ~ Poisson(z rate); the guide is a rough log-normal."""
    rate = tensor(truth.rate)

    def model(x):
        with pyro.plate("rows", x.shape[0]):
            z = pyro.sample("z", dist.Gamma(truth.shape, 1.0))
            pyro.sample("x", dist.Poisson(z[..., None] * rate).to_event(1), obs=x)

    def guide(x):
        loc = torch.log((truth.shape + x.sum(-1)) / (1.0 + rate.sum())) + truth.guide_shift
        with pyro.plate("rows", x.shape[0]):
            pyro.sample("z", dist.LogNormal(loc, truth.guide_scale))

    return model, guide


def spike(truth):
    """x_0 ~ N(z, 0.5) and x_1 = factor z: the density of any other x_1 overflows to zero."""
    scale = tensor([0.5, truth.spike_scale])

    def model(x):
        with pyro.plate("rows", x.shape[0]):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            loc = torch.stack([z, z * float(truth.factor)], -1)
            pyro.sample("x", dist.Normal(loc, scale).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("rows", x.shape[0]):
            pyro.sample("z", dist.Normal(0.5 * x[:, 0], 1.0))

    return model, guide
