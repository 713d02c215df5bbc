"""Programs in the shapes that others write, Pyro twin (compare foreign_numpyro.py).

Each function returns model, guide and what a kernel needs besides.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn


def array(value):
    return torch.as_tensor(value, dtype=torch.get_default_dtype())


def arrays(t):
    return {name: array(value) for name, value in t.items()}


class Encoder(nn.Module):
    def __init__(self, num_features, hidden, latent_dim):
        super().__init__()
        self.first = nn.Linear(num_features, hidden)
        self.loc = nn.Linear(hidden, latent_dim)
        self.log_scale = nn.Linear(hidden, latent_dim)

    def forward(self, x):
        h = nn.functional.softplus(self.first(x))
        return self.loc(h), self.log_scale(h).exp()


class PublishedVAE(nn.Module):
    """The shape of Pyro's own example: a module with nets, sites `latent` and `obs`."""

    def __init__(self, num_features, latent_dim, hidden):
        super().__init__()
        self.latent_dim = latent_dim
        self.encoder = Encoder(num_features, hidden, latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, hidden),
            nn.Softplus(),
            nn.Linear(hidden, num_features),
            nn.Sigmoid(),
        )

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            loc = x.new_zeros(torch.Size((x.shape[0], self.latent_dim)))
            scale = x.new_ones(torch.Size((x.shape[0], self.latent_dim)))
            z = pyro.sample("latent", dist.Normal(loc, scale).to_event(1))
            pyro.sample("obs", dist.Bernoulli(self.decoder(z)).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            loc, scale = self.encoder(x)
            pyro.sample("latent", dist.Normal(loc, scale).to_event(1))


def published_vae(x, latent_dim=3, hidden=16, num_steps=300):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    vae = PublishedVAE(x.shape[1], latent_dim, hidden)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    for _ in range(num_steps):
        svi.step(array(x))
    return vae.model, vae.guide, {"site": "obs"}


def conv_net(x):
    """Convolutions over one-channel images, with three event axes."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    encoder = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(64, 4)
    )
    decoder = nn.Sequential(
        nn.Linear(2, 64), nn.Tanh(), nn.Unflatten(1, (4, 4, 4)), nn.ConvTranspose2d(4, 1, 4, 2, 1)
    )

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(3), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        h = encoder(x)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(h[:, :2], torch.exp(0.1 * h[:, 2:])).to_event(1))

    return model, guide, {}


def hierarchy(t):
    """z1, then z2 | z1, in the model; the guide's z2 depends on its z1 too."""
    t = arrays(t)

    def model(x):
        with pyro.plate("data", x.shape[0]):
            z1 = pyro.sample("z1", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            z2 = pyro.sample("z2", dist.Normal(z1 @ t["link"].T, t["scale2"]).to_event(1))
            pyro.sample(
                "x", dist.Normal(z2 @ t["weight"].T + t["bias"], t["scale"]).to_event(1), obs=x
            )

    def guide(x):
        r = x - t["bias"]
        with pyro.plate("data", x.shape[0]):
            loc1 = r @ t["gain1"].T + t["shift"]
            z1 = pyro.sample("z1", dist.MultivariateNormal(loc1, scale_tril=t["chol1"]))
            loc2 = r @ t["gain2"].T + z1 @ t["from_z1"].T
            pyro.sample("z2", dist.MultivariateNormal(loc2, scale_tril=t["chol2"]))

    return model, guide, {}


def labelled(t):
    """A label `y` for every row moves the mean of x; the guide sees it too."""
    t = arrays(t)

    def model(x, y):
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = z @ t["weight"].T + t["means"][y]
            pyro.sample("x", dist.Normal(loc, t["scale"]).to_event(1), obs=x)

    def guide(x, y):
        loc = (x - t["means"][y]) @ t["gain"].T + t["shift"]
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=t["chol"]))

    return model, guide, {}


def mixed_latents(t):
    """A discrete site without, and a continuous site with an event axis."""
    t = arrays(t)

    def model(x):
        with pyro.plate("data", x.shape[0]):
            c = pyro.sample("c", dist.Categorical(t["probs"]))
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = z @ t["weight"].T + t["means"][c]
            pyro.sample("x", dist.Normal(loc, t["scale"]).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", x.shape[0]):
            c = pyro.sample("c", dist.Categorical(logits=0.3 * x[:, :3]))
            loc = (x - t["means"][c]) @ t["gain"].T + t["shift"]
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=t["chol"]))

    return model, guide, {}


def correlated(t):
    """A multivariate normal likelihood."""
    t = arrays(t)

    def model(x):
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = z @ t["weight"].T + t["means"][0]
            noise = dist.MultivariateNormal(loc, scale_tril=t["noise_chol"])
            pyro.sample("x", noise, obs=x)

    return model, _gaussian_guide(t), {}


def mixture(t):
    """A likelihood that is a mixture."""
    t = arrays(t)

    def model(x):
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = (z @ t["weight"].T)[:, None] + t["means"]
            parts = dist.Normal(loc, t["scale"]).to_event(1)
            weights = dist.Categorical(probs=t["probs"].expand(loc.shape[:2]))
            pyro.sample("x", dist.MixtureSameFamily(weights, parts), obs=x)

    return model, _gaussian_guide(t), {}


def mask_aware(t):
    """A guide that asks for the mask: the posterior of what is observed alone, exactly."""
    t = arrays(t)
    bias, weight = t["means"][0], t["weight"]

    def model(x, mask=None):
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            entries = dist.Normal(z @ weight.T + bias, t["scale"])
            shown = torch.ones(x.shape, dtype=torch.bool) if mask is None else mask
            pyro.sample("x", entries.mask(shown).to_event(1), obs=x)

    def guide(x, mask):
        products = torch.einsum("bd,di,dj->bij", mask.to(weight), weight, weight)
        covariance = torch.linalg.inv(torch.eye(2).to(weight) + products / t["scale"] ** 2)
        r = torch.where(mask, x - bias, 0.0) @ weight / t["scale"] ** 2
        loc = torch.einsum("bij,bj->bi", covariance, r)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.MultivariateNormal(loc, covariance))

    return model, guide, {}


def _gaussian_guide(t):
    def guide(x):
        loc = (x - t["means"][0]) @ t["gain"].T + t["shift"]
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=t["chol"]))

    return guide
