"""Programs in the shapes that others write, NumPyro twin (compare foreign_pyro.py).

Each function returns model, guide and what a kernel needs besides.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from flax import nnx
from jax import random
from jax.example_libraries import stax
from numpyro.contrib.module import nnx_module
from numpyro.infer import SVI, Trace_ELBO


def array(value):
    return jnp.asarray(value, jnp.result_type(float))


def published_vae(x, latent_dim=3, hidden=16, num_steps=300):
    """The shape of NumPyro's own example: stax nets, sites `z` and `obs`, plate `batch`."""
    encoder = stax.serial(
        stax.Dense(hidden),
        stax.Softplus,
        stax.FanOut(2),
        stax.parallel(stax.Dense(latent_dim), stax.serial(stax.Dense(latent_dim), stax.Exp)),
    )
    decoder = stax.serial(stax.Dense(hidden), stax.Softplus, stax.Dense(x.shape[1]), stax.Sigmoid)

    def model(batch):
        num_rows = batch.shape[0]
        decode = numpyro.module("decoder", decoder, (num_rows, latent_dim))
        with numpyro.plate("batch", num_rows):
            z = numpyro.sample("z", dist.Normal(0, 1).expand([latent_dim]).to_event(1))
            numpyro.sample("obs", dist.Bernoulli(decode(z)).to_event(1), obs=batch)

    def guide(batch):
        num_rows, num_features = batch.shape
        encode = numpyro.module("encoder", encoder, (num_rows, num_features))
        loc, scale = encode(batch)
        with numpyro.plate("batch", num_rows):
            numpyro.sample("z", dist.Normal(loc, scale).to_event(1))

    svi = SVI(model, guide, numpyro.optim.Adam(1e-2), Trace_ELBO())
    result = svi.run(random.key(0), num_steps, array(x), progress_bar=False)
    return model, guide, {"site": "obs", "params": result.params}


class ConvEncoder(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), strides=2, padding="SAME", rngs=rngs)
        self.out = nnx.Linear(4 * 4 * 4, 4, rngs=rngs)

    def __call__(self, x):
        h = jnp.tanh(self.conv(jnp.moveaxis(x, -3, -1)))
        return self.out(h.reshape(*x.shape[:-3], -1))


class ConvDecoder(nnx.Module):
    def __init__(self, rngs):
        self.start = nnx.Linear(2, 4 * 4 * 4, rngs=rngs)
        self.conv = nnx.ConvTranspose(4, 1, (4, 4), strides=(2, 2), padding="SAME", rngs=rngs)

    def __call__(self, z):
        h = jnp.tanh(self.start(z)).reshape(*z.shape[:-1], 4, 4, 4)
        return jnp.moveaxis(self.conv(h), -1, -3)


def conv_net(x):
    """Convolutions over one-channel images, with three event axes."""
    encoder, decoder = ConvEncoder(nnx.Rngs(0)), ConvDecoder(nnx.Rngs(1))

    def model(x):
        decode = nnx_module("decoder", decoder)
        with numpyro.plate("data", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(3), obs=x)

    def guide(x):
        h = nnx_module("encoder", encoder)(x)
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("z", dist.Normal(h[:, :2], jnp.exp(0.1 * h[:, 2:])).to_event(1))

    trained = {}
    for fn in (model, guide):
        sites = numpyro.handlers.trace(numpyro.handlers.seed(fn, 0)).get_trace(array(x))
        trained |= {name: s["value"] for name, s in sites.items() if s["type"] == "param"}
    return model, guide, {"params": trained}


def hierarchy(t):
    """z1, then z2 | z1, in the model; the guide's z2 depends on its z1 too."""
    t = jax.tree.map(array, t)

    def model(x):
        with numpyro.plate("data", x.shape[0]):
            z1 = numpyro.sample("z1", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
            z2 = numpyro.sample("z2", dist.Normal(z1 @ t["link"].T, t["scale2"]).to_event(1))
            numpyro.sample(
                "x", dist.Normal(z2 @ t["weight"].T + t["bias"], t["scale"]).to_event(1), obs=x
            )

    def guide(x):
        r = x - t["bias"]
        with numpyro.plate("data", x.shape[0]):
            loc1 = r @ t["gain1"].T + t["shift"]
            z1 = numpyro.sample("z1", dist.MultivariateNormal(loc1, scale_tril=t["chol1"]))
            loc2 = r @ t["gain2"].T + z1 @ t["from_z1"].T
            numpyro.sample("z2", dist.MultivariateNormal(loc2, scale_tril=t["chol2"]))

    return model, guide, {}


def labelled(t):
    """A label `y` for every row moves the mean of x; the guide sees it too."""
    t = jax.tree.map(array, t)

    def model(x, y):
        with numpyro.plate("data", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
            loc = z @ t["weight"].T + t["means"][y]
            numpyro.sample("x", dist.Normal(loc, t["scale"]).to_event(1), obs=x)

    def guide(x, y):
        loc = (x - t["means"][y]) @ t["gain"].T + t["shift"]
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("z", dist.MultivariateNormal(loc, scale_tril=t["chol"]))

    return model, guide, {}


def mixed_latents(t):
    """A discrete site without, and a continuous site with an event axis."""
    t = jax.tree.map(array, t)

    def model(x):
        with numpyro.plate("data", x.shape[0]):
            c = numpyro.sample("c", dist.Categorical(t["probs"]))
            z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
            loc = z @ t["weight"].T + t["means"][c]
            numpyro.sample("x", dist.Normal(loc, t["scale"]).to_event(1), obs=x)

    def guide(x):
        with numpyro.plate("data", x.shape[0]):
            c = numpyro.sample("c", dist.Categorical(logits=0.3 * x[:, :3]))
            loc = (x - t["means"][c]) @ t["gain"].T + t["shift"]
            numpyro.sample("z", dist.MultivariateNormal(loc, scale_tril=t["chol"]))

    return model, guide, {}


def correlated(t):
    """A multivariate normal likelihood."""
    t = jax.tree.map(array, t)

    def model(x):
        with numpyro.plate("data", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
            loc = z @ t["weight"].T + t["means"][0]
            noise = dist.MultivariateNormal(loc, scale_tril=t["noise_chol"])
            numpyro.sample("x", noise, obs=x)

    return model, _gaussian_guide(t), {}


def mixture(t):
    """A likelihood that is a mixture."""
    t = jax.tree.map(array, t)

    def model(x):
        with numpyro.plate("data", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
            loc = (z @ t["weight"].T)[:, None] + t["means"]
            parts = dist.Normal(loc, t["scale"]).to_event(1)
            weights = dist.Categorical(probs=jnp.broadcast_to(t["probs"], loc.shape[:2]))
            numpyro.sample("x", dist.MixtureSameFamily(weights, parts), obs=x)

    return model, _gaussian_guide(t), {}


def mask_aware(t):
    """A guide that asks for the mask: the posterior of what is observed alone, exactly."""
    t = jax.tree.map(array, t)
    bias, weight = t["means"][0], t["weight"]

    def model(x, mask=None):
        with numpyro.plate("data", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
            entries = dist.Normal(z @ weight.T + bias, t["scale"])
            shown = jnp.ones(x.shape, bool) if mask is None else mask
            numpyro.sample("x", entries.mask(shown).to_event(1), obs=x)

    def guide(x, mask):
        precision = (
            jnp.eye(2) + jnp.einsum("bd,di,dj->bij", 1.0 * mask, weight, weight) / t["scale"] ** 2
        )
        covariance = jnp.linalg.inv(precision)
        r = jnp.where(mask, x - bias, 0.0) @ weight / t["scale"] ** 2
        loc = jnp.einsum("bij,bj->bi", covariance, r)
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("z", dist.MultivariateNormal(loc, covariance))

    return model, guide, {}


def global_mean(t, x, mask):
    """A latent of each row and a mean of all rows, for NumPyro's Gibbs; the mean's exact draw."""
    t = jax.tree.map(array, t)

    def model(x, mask):
        mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
        with numpyro.plate("rows", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
            entries = dist.Normal(z @ t["weight"].T + mean, t["scale"])
            numpyro.sample("x", entries.mask(mask).to_event(1), obs=x)

    def guide(x):
        with numpyro.plate("rows", x.shape[0]):
            loc = (x - 1.0) @ t["gain"].T + t["shift"]
            numpyro.sample("z", dist.MultivariateNormal(loc, scale_tril=t["chol"]))

    def update_mean(rng_key, gibbs_sites, hmc_sites):
        residual = jnp.where(mask, x - hmc_sites["z"] @ t["weight"].T, 0.0)
        precision = 1 / 4.0 + mask.sum() / t["scale"] ** 2
        loc = residual.sum() / t["scale"] ** 2 / precision
        return {"mean": dist.Normal(loc, precision**-0.5).sample(rng_key)}

    return model, guide, update_mean


def _gaussian_guide(t):
    def guide(x):
        loc = (x - t["means"][0]) @ t["gain"].T + t["shift"]
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("z", dist.MultivariateNormal(loc, scale_tril=t["chol"]))

    return guide
