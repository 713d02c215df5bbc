"""The toy grid: three pitfalls of Metropolis-within-Gibbs, and AC-MWG and LAIR, in Pyro.

Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated
approximate ancestral sampling, TMLR, section 3 and figure 2.  https://arxiv.org/abs/2308.09078

Run `python examples/simkus_2023/toy_grid_pyro.py --preset small`.
"""

from functools import cache

import numpy as np
import pyro
import pyro.distributions as dist
import torch
import toy_grid
from experiment import Results, arguments, weights_file, whole
from torch import nn
from torch.nn.functional import softplus
from tqdm import trange

from ppl_vae import pyro as api
from ppl_vae.schedules import Cosine


class ResidualMLP(nn.Module):
    """Blocks of two layers with a way round, and dropout in between."""

    def __init__(self, num_in, num_out, preset):
        super().__init__()
        width = preset.width
        self.first = linear(num_in, width)
        self.inner = nn.ModuleList([linear(width, width) for _ in range(preset.num_blocks)])
        self.outer = nn.ModuleList([linear(width, width) for _ in range(preset.num_blocks)])
        self.dropout = nn.Dropout(0.1)
        self.last = linear(width, num_out)

    def forward(self, x):
        h = self.first(x).relu()
        for inner, outer in zip(self.inner, self.outer, strict=True):
            h = (h + outer(self.dropout(inner(h).relu()))).relu()
        return self.last(h)


def linear(num_in, num_out):
    """A layer whose first weights follow the law of flax's, which the NumPyro twin has."""
    layer = nn.Linear(num_in, num_out)
    scale = num_in**-0.5 / 0.8796  # 0.8796 is the deviation of a normal cut at 2
    nn.init.trunc_normal_(layer.weight, std=scale, a=-2 * scale, b=2 * scale)
    nn.init.zeros_(layer.bias)
    return layer


class ToyVAE(nn.Module):
    """z ~ U(0, 1), x | z normal, q(z | x) a Beta distribution."""

    def __init__(self, preset):
        super().__init__()
        self.encoder = ResidualMLP(2, 2, preset)
        self.decoder = ResidualMLP(1, 4, preset)

    def decode(self, z):
        loc, raw = self.decoder(z).chunk(2, -1)
        return dist.Normal(loc, softplus(raw) + 1e-8).to_event(1)

    def model(self, x):
        with pyro.plate("rows", x.shape[0]):
            low, high = (x.new_full((1,), bound) for bound in toy_grid.BOUNDS)
            z = pyro.sample("z", dist.Uniform(low, high).to_event(1))
            pyro.sample("x", self.decode(z), obs=x)

    def guide(self, x):
        encoder = pyro.module("encoder", self.encoder)
        with pyro.plate("rows", x.shape[0]):
            pyro.sample("z", beta(encoder(x)))


def beta(raw):
    """The encoder's distribution."""
    a, b = softplus(raw).chunk(2, -1)
    return dist.Beta(a, b).to_event(1)


def loss(vae, x, z):
    """Each component has its part of the latent: -log E p(x | z) - E log q(z | x), z (S, B, 1)."""
    log_p = vae.decode(z).log_prob(x)
    log_q = beta(vae.encoder(x)).log_prob(z)
    evidence = log_p.logsumexp(0) - np.log(len(z))
    return -(evidence + log_q.mean(0)).mean()


def train_step(vae, optimizer, x, z):
    value = loss(vae, x, z)
    optimizer.zero_grad()
    value.backward()
    nn.utils.clip_grad_norm_(vae.parameters(), 10.0)
    optimizer.step()
    return value.item()


def train(args, preset, device):
    """Return the trained VAE, or the one that an earlier call has trained."""
    torch.manual_seed(args.seed)
    vae = ToyVAE(preset).to(device)
    path = weights_file(args, "vae", "pt")
    if not path.exists():
        optimizer = torch.optim.Adam(vae.parameters(), lr=preset.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, preset.num_steps)
        rng = np.random.default_rng(args.seed)
        x, component = toy_grid.draw(rng, 27_000)
        for step in (bar := trange(preset.num_steps, desc="training")):
            rows = rng.integers(len(x), size=preset.batch_size)
            z = toy_grid.latents(rng, component[rows], preset.num_latents)
            batch = (torch.as_tensor(a, device=device) for a in (x[rows], z))
            value = train_step(vae, optimizer, *batch)
            schedule.step()
            if step % 100 == 0 or step + 1 == preset.num_steps:
                toy_grid.show_loss(bar, step, float(value))
        with whole(path) as part:
            torch.save(vae.state_dict(), part)
    vae.load_state_dict(torch.load(path, weights_only=True, map_location=device))
    return vae.eval()


def refit(args, preset, vae, device):
    """Return the guide fitted to the VAE's own posterior, by draws from the VAE: forward KL."""
    x, _ = toy_grid.draw(np.random.default_rng(args.seed), 27_000)
    pyro.set_rng_seed(args.seed)
    fitted = api.fit(
        (vae.model, vae.guide),
        torch.as_tensor(x, device=device),
        objective="forward-kl",
        num_steps=preset.num_refit_steps,
        batch_size=preset.batch_size,
        learning_rate=Cosine(1e-3, 0.0, preset.num_refit_steps),
        clip_norm=10.0,
        checkpoint=weights_file(args, "encoder", "checkpoint"),
    )
    return fitted.guide


def main(args):
    preset = toy_grid.PRESETS[args.preset]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    results = Results(args, device)
    vae = train(args, preset, device)
    guide = refit(args, preset, vae, device) if preset.num_refit_steps else vae.guide

    def run(kernel, seed, num_iterations, start=None):
        num_warmup = num_iterations // 100
        mcmc = api.MCMC(
            kernel,
            num_warmup=num_warmup,
            num_samples=num_iterations - num_warmup,
            num_chains=preset.num_replicates,
            chain_method="vectorized",
            jit_compile=num_iterations > 2_000,  # it takes some ten seconds
            disable_validation=True,
        )
        pyro.set_rng_seed(seed)
        mcmc.run(torch.as_tensor(toy_grid.X, device=device), init_params=start)
        return mcmc

    @cache
    def start():
        kernel = api.PseudoGibbsKernel(vae.model, guide)
        x = np.stack([toy_grid.START] * preset.num_replicates)
        start = {"x": torch.as_tensor(x, device=device)}
        return run(kernel, args.seed, 1, start).last_state.hand_over()

    def sample(name, method, seed):
        kernel = getattr(api, method.kernel)(vae.model, guide, **method.options)
        mcmc = run(kernel, seed, preset.num_proposals // method.proposals, start())
        yield name, api.to_inference_data(mcmc)
        if method.kernel == "LAIRKernel":
            num_draws = mcmc.num_samples * method.options["num_particles"]
            yield f"{name} resampled", api.pool(mcmc, num_draws)

    def decode(z):
        with torch.no_grad():
            normal = vae.decode(torch.as_tensor(z, device=device)).base_dist
        return normal.loc.cpu().numpy(), normal.scale.cpu().numpy()

    toy_grid.run(args, results, sample, decode)


if __name__ == "__main__":
    main(arguments("toy_grid", "pyro", __doc__.splitlines()[0]))
