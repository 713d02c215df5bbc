"""MNIST-GMM, few pixels observed: class posteriors of MWG, AC-MWG and LAIR, in NumPyro.

Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated
approximate ancestral sampling, TMLR, section 5.1.  https://arxiv.org/abs/2308.09078

Run `python examples/simkus_2023/mnist_gmm_numpyro.py --preset small --data FOLDER`.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
import mnist_gmm
import numpyro
import numpyro.distributions as dist
import sampling_numpyro as sampling
from experiment import arguments, weights_file
from flax import nnx
from jax import random
from numpyro.contrib.module import nnx_module

from ppl_vae import numpyro as api


class MLP(nnx.Module):
    """Location and positive scale of the outputs."""

    def __init__(self, widths, rngs):
        self.layers = nnx.List([nnx.Linear(i, o, rngs=rngs) for i, o in pairwise(widths)])

    def __call__(self, h):
        *body, head = self.layers
        for layer in body:
            h = nnx.relu(layer(h))
        loc, raw = jnp.split(head(h), 2, -1)
        return loc, nnx.softplus(raw)


def vae(args, preset):
    """z ~ N(0, I), x | z and q(z | x) normal; both scales depend on the condition."""
    latent_dim, hidden = preset.latent_dim, preset.hidden
    rngs = nnx.Rngs(args.seed)
    encoder = MLP((mnist_gmm.SIDE**2, *hidden, 2 * latent_dim), rngs)
    decoder = MLP((latent_dim, *hidden[::-1], 2 * mnist_gmm.SIDE**2), rngs)

    def model(x):
        loc, scale = jnp.zeros(latent_dim), jnp.ones(latent_dim)
        decode = nnx_module("decoder", decoder)
        with numpyro.plate("rows", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(loc, scale).to_event(1))
            loc, scale = decode(z)
            floor = mnist_gmm.EXTRA_SCALE
            numpyro.sample("x", dist.Normal(loc, scale + floor).to_event(1), obs=x)

    def guide(x):
        loc, scale = nnx_module("encoder", encoder)(x)
        with numpyro.plate("rows", x.shape[0]):
            numpyro.sample("z", dist.Normal(loc, scale + 1e-4).to_event(1))

    return model, guide


def main(args):
    preset = mnist_gmm.PRESETS[args.preset]

    def sampler(given):
        fitted = api.fit(
            random.key(args.seed),
            vae(args, preset),
            given.x_train,
            num_steps=preset.num_steps,
            batch_size=preset.batch_size,
            checkpoint=weights_file(args, "vae", "checkpoint"),
        )
        low, high = given.limits

        def guide(x):
            return fitted.guide(jnp.clip(x, low, high))

        return sampling.sampler(
            fitted.model, guide, given.x, preset, args.seed,
            num_slots=mnist_gmm.SCORED,
        )  # fmt: skip

    mnist_gmm.run(args, jax.devices()[0].platform, sampler)


if __name__ == "__main__":
    main(arguments("mnist_gmm", "numpyro", __doc__.splitlines()[0], needs_data=True))
