"""Omniglot, whole quadrants missing: a convolutional VAE, MWG, AC-MWG and LAIR, in NumPyro.

Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated
approximate ancestral sampling, TMLR, section 5.3.  https://arxiv.org/abs/2308.09078

Run `python examples/simkus_2023/omniglot_numpyro.py --preset small --data FOLDER`.
"""

import jax
import numpy as np
import omniglot
import resnet_numpyro as resnet
import sampling_numpyro as sampling
from experiment import arguments, weights_file
from flax import nnx
from jax import random
from numpyro import handlers

from ppl_vae import numpyro as api


def train(args, preset, given):
    """Return the trained VAE; a second call goes on from where the first stopped."""
    shape, rngs = given.x_train.shape[1:], nnx.Rngs(args.seed)
    nets = resnet.pair(shape, preset.latent_dim, preset.hidden, rngs) if preset.residual else {}
    vae = api.VAE(shape, preset.latent_dim, preset.hidden, "bernoulli", **nets)
    return api.fit(
        random.key(args.seed),
        vae,
        given.x_train,
        num_steps=preset.num_steps,
        batch_size=preset.batch_size,
        checkpoint=weights_file(args, "vae", "checkpoint"),
    )


def main(args):
    preset = omniglot.PRESETS[args.preset]

    def sampler(given):
        fitted = train(args, preset, given)

        sample = sampling.sampler(
            fitted.model, fitted.guide, given.x, preset, args.seed,
            num_draws=preset.num_draws, num_slots=preset.num_draws,
        )  # fmt: skip

        @jax.jit
        def encode(x):
            return handlers.trace(handlers.seed(fitted.guide, 0)).get_trace(x)["z"]["fn"].mean

        return sample, lambda x: np.asarray(encode(x))

    omniglot.run(args, jax.devices()[0].platform, sampler)


if __name__ == "__main__":
    main(arguments("omniglot", "numpyro", __doc__.splitlines()[0], needs_data=True))
