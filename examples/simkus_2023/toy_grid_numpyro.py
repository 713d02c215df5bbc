"""The toy grid: three pitfalls of Metropolis-within-Gibbs, and AC-MWG and LAIR, in NumPyro.

Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated
approximate ancestral sampling, TMLR, section 3 and figure 2.  https://arxiv.org/abs/2308.09078

Run `python examples/simkus_2023/toy_grid_numpyro.py --preset small`.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import toy_grid
from experiment import Results, arguments, weights_file, whole
from flax import nnx
from jax import random
from numpyro.contrib.module import nnx_module
from tqdm import trange

from ppl_vae import numpyro as api
from ppl_vae.schedules import Cosine


class ResidualMLP(nnx.Module):
    """Blocks of two layers with a way round, and dropout in between."""

    def __init__(self, num_in, num_out, preset, rngs):
        width = preset.width
        self.first = nnx.Linear(num_in, width, rngs=rngs)
        self.inner = nnx.List(
            [nnx.Linear(width, width, rngs=rngs) for _ in range(preset.num_blocks)]
        )
        self.outer = nnx.List(
            [nnx.Linear(width, width, rngs=rngs) for _ in range(preset.num_blocks)]
        )
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.last = nnx.Linear(width, num_out, rngs=rngs)

    def __call__(self, x):
        h = nnx.relu(self.first(x))
        for inner, outer in zip(self.inner, self.outer, strict=True):
            h = nnx.relu(h + outer(self.dropout(nnx.relu(inner(h)))))
        return self.last(h)


class ToyVAE(nnx.Module):
    """z ~ U(0, 1), x | z normal, q(z | x) a Beta distribution."""

    def __init__(self, preset, rngs):
        self.encoder = ResidualMLP(2, 2, preset, rngs)
        self.decoder = ResidualMLP(1, 4, preset, rngs)

    def decode(self, z):
        loc, raw = jnp.split(self.decoder(z), 2, -1)
        return dist.Normal(loc, nnx.softplus(raw) + 1e-8).to_event(1)

    def model(self, x):
        with numpyro.plate("rows", x.shape[0]):
            z = numpyro.sample("z", dist.Uniform(*toy_grid.BOUNDS).expand([1]).to_event(1))
            numpyro.sample("x", self.decode(z), obs=x)

    def guide(self, x):
        with numpyro.plate("rows", x.shape[0]):
            numpyro.sample("z", beta(self.encoder(x)))


def beta(raw):
    """The encoder's distribution."""
    a, b = jnp.split(nnx.softplus(raw), 2, -1)
    return dist.Beta(a, b).to_event(1)


def loss(vae, x, z):
    """Each component has its part of the latent: -log E p(x | z) - E log q(z | x), z (S, B, 1)."""
    log_p = vae.decode(z).log_prob(x)
    log_q = beta(vae.encoder(x)).log_prob(z)
    evidence = jax.scipy.special.logsumexp(log_p, 0) - jnp.log(len(z))
    return -(evidence + log_q.mean(0)).mean()


@nnx.jit
def train_step(vae, optimizer, x, z):
    value, gradient = nnx.value_and_grad(loss)(vae, x, z)
    optimizer.update(vae, gradient)
    return value


def train(args, preset):
    """Return the trained VAE, or the one that an earlier call has trained."""
    vae = ToyVAE(preset, nnx.Rngs(args.seed))
    path = weights_file(args, "vae", "npz")
    if not path.exists():
        schedule = optax.cosine_decay_schedule(preset.learning_rate, preset.num_steps)
        adam = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule))
        optimizer, rng = nnx.Optimizer(vae, adam, wrt=nnx.Param), np.random.default_rng(args.seed)
        x, component = toy_grid.draw(rng, 27_000)
        for step in (bar := trange(preset.num_steps, desc="training")):
            rows = rng.integers(len(x), size=preset.batch_size)
            z = toy_grid.latents(rng, component[rows], preset.num_latents)
            value = train_step(vae, optimizer, x[rows], z)
            if step % 100 == 0 or step + 1 == preset.num_steps:
                toy_grid.show_loss(bar, step, float(value))
        with whole(path) as part:
            np.savez(part, *jax.tree.leaves(nnx.state(vae, nnx.Param)))
    with np.load(path) as file:
        leaves = [jnp.asarray(file[name]) for name in file.files]
    state = nnx.state(vae, nnx.Param)
    nnx.update(vae, jax.tree.unflatten(jax.tree.structure(state), leaves))
    vae.eval()
    return vae


def refit(args, preset, vae):
    """Return the guide fitted to the VAE's own posterior, by draws from the VAE: forward KL."""

    def guide(x):
        encoder = nnx_module("encoder", vae.encoder)
        with numpyro.plate("rows", x.shape[0]):
            numpyro.sample("z", beta(encoder(x)))

    x, _ = toy_grid.draw(np.random.default_rng(args.seed), 27_000)
    fitted = api.fit(
        random.key(args.seed),
        (vae.model, guide),
        x,
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
    results = Results(args, jax.devices()[0].platform)
    vae = train(args, preset)
    guide = refit(args, preset, vae) if preset.num_refit_steps else vae.guide

    def run(kernel, key, num_iterations, start=None):
        num_warmup = num_iterations // 100
        mcmc = api.MCMC(
            kernel,
            num_warmup=num_warmup,
            num_samples=num_iterations - num_warmup,
            num_chains=preset.num_replicates,
            chain_method="vectorized",
        )
        mcmc.run(key, toy_grid.X, init_params=start)
        return mcmc

    @cache
    def start():
        kernel = api.PseudoGibbsKernel(vae.model, guide)
        x = np.stack([toy_grid.START] * preset.num_replicates)
        return run(kernel, random.key(args.seed), 1, {"x": x}).last_state.hand_over()

    def sample(name, method, seed):
        kernel = getattr(api, method.kernel)(vae.model, guide, **method.options)
        key_run, key_pool = random.split(random.key(seed))
        mcmc = run(kernel, key_run, preset.num_proposals // method.proposals, start())
        yield name, api.to_inference_data(mcmc)
        if method.kernel == "LAIRKernel":
            num_draws = mcmc.num_samples * method.options["num_particles"]
            yield f"{name} resampled", api.pool(key_pool, mcmc, num_draws)

    def decode(z):
        normal = vae.decode(jnp.asarray(z)).base_dist
        return np.asarray(normal.loc), np.asarray(normal.scale)

    toy_grid.run(args, results, sample, decode)


if __name__ == "__main__":
    main(arguments("toy_grid", "numpyro", __doc__.splitlines()[0]))
