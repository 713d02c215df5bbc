"""Programs for the tests, NumPyro twin (compare programs_pyro.py)."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist


def linear_gaussian(truth, *, guide_shift=0.0, guide_stretch=1.0):
    weight, bias = jnp.asarray(truth.weight), jnp.asarray(truth.bias)
    gain, covariance = map(jnp.asarray, truth.posterior)
    chol = jnp.linalg.cholesky(covariance) * guide_stretch

    def model(x):
        with numpyro.plate("rows", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(weight.shape[1]), 1.0).to_event(1))
            numpyro.sample("x", dist.Normal(z @ weight.T + bias, truth.scale).to_event(1), obs=x)

    def guide(x):
        loc = (x - bias) @ gain.T + guide_shift
        with numpyro.plate("rows", x.shape[0]):
            numpyro.sample("z", dist.MultivariateNormal(loc, scale_tril=chol))

    return model, guide


def discrete(truth):
    prior, logits = jnp.asarray(truth.prior), jnp.asarray(np.log(truth.bit / (1 - truth.bit)))
    weight, bias = jnp.asarray(truth.guide_weight), jnp.asarray(truth.guide_bias)

    def model(x):
        with numpyro.plate("rows", x.shape[0]):
            z = numpyro.sample("z", dist.Categorical(prior))
            numpyro.sample("x", dist.Bernoulli(logits=logits[z]).to_event(1), obs=x)

    def guide(x):
        with numpyro.plate("rows", x.shape[0]):
            numpyro.sample("z", dist.Categorical(logits=x @ weight + bias))

    return model, guide


def two_modes(truth):
    def model(x):
        with numpyro.plate("rows", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            loc = jnp.stack([jnp.abs(z), 4 * jnp.sign(z)], -1)
            numpyro.sample("x", dist.Normal(loc, truth.scale).to_event(1), obs=x)

    def guide(x):
        with numpyro.plate("rows", x.shape[0]):
            numpyro.sample("z", dist.Normal(x[:, 0] * jnp.sign(x[:, 1]), truth.guide_scale))

    return model, guide


def gamma_poisson(truth):
    """Skewed and counted: z ~ Gamma, x ~ Poisson(z rate); the guide is a rough log-normal."""
    rate = jnp.asarray(truth.rate)

    def model(x):
        with numpyro.plate("rows", x.shape[0]):
            z = numpyro.sample("z", dist.Gamma(truth.shape, 1.0))
            numpyro.sample("x", dist.Poisson(z[..., None] * rate).to_event(1), obs=x)

    def guide(x):
        loc = jnp.log((truth.shape + x.sum(-1)) / (1.0 + rate.sum())) + truth.guide_shift
        with numpyro.plate("rows", x.shape[0]):
            numpyro.sample("z", dist.LogNormal(loc, truth.guide_scale))

    return model, guide


def spike(truth):
    """x_0 ~ N(z, 0.5) and x_1 = factor z: the density of any other x_1 overflows to zero."""
    scale = jnp.asarray([0.5, truth.spike_scale])

    def model(x):
        with numpyro.plate("rows", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            loc = jnp.stack([z, z * float(truth.factor)], -1)
            numpyro.sample("x", dist.Normal(loc, scale).to_event(1), obs=x)

    def guide(x):
        with numpyro.plate("rows", x.shape[0]):
            numpyro.sample("z", dist.Normal(0.5 * x[:, 0], 1.0))

    return model, guide
