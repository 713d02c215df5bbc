"""Omniglot, whole quadrants missing: a convolutional VAE, MWG, AC-MWG and LAIR, in NumPyro.

Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated
approximate ancestral sampling, TMLR, section 5.3.  https://arxiv.org/abs/2308.09078

Run `python examples/simkus_2023/omniglot_numpyro.py --preset small --data FOLDER`.
"""

from functools import cache

import jax
import numpy as np
import omniglot
from experiment import arguments
from jax import random
from numpyro import handlers

from ppl_vae import numpyro as api


def train(args, preset, given):
    """Return the trained VAE, or the one that an earlier call has trained."""
    path = args.out / "weights.safetensors"
    if not path.exists():
        fitted = api.fit(
            random.key(args.seed),
            api.VAE(given.x_train.shape[1:], preset.latent_dim, preset.hidden, "bernoulli"),
            given.x_train,
            num_steps=preset.num_steps,
            batch_size=preset.batch_size,
        )
        fitted.save(path)
    return api.load(path)


def main(args):
    preset = omniglot.PRESETS[args.preset]

    def sampler(given):
        fitted = train(args, preset, given)

        def run(kernel, key, num_iterations, num_draws, start=None):
            mcmc = api.MCMC(
                kernel,
                num_warmup=num_iterations - num_draws,
                num_samples=num_draws,
                num_chains=preset.num_chains,
                chain_method="vectorized",
            )
            mcmc.run(key, given.x, init_params=start)
            return mcmc

        @cache
        def start(name):
            build = {"LAIR": api.LAIRKernel, "pseudo-Gibbs": api.PseudoGibbsKernel}[name]
            kernel = build(fitted.model, fitted.guide)
            return run(kernel, random.key(args.seed), preset.num_warmup, 1).last_state.hand_over()

        def sample(name, method, seed):
            key_run, key_pool = random.split(random.key(seed))
            num_iterations = preset.num_proposals // method.proposals
            build = getattr(api, method.kernel)
            if method.kernel != "StreamingLAIRKernel":
                kernel = build(fitted.model, fitted.guide, **method.options)
                mcmc = run(kernel, key_run, num_iterations, preset.num_draws, start(method.start))
                return api.to_inference_data(mcmc)
            slots = {"num_slots": preset.num_draws}
            kernel = build(fitted.model, fitted.guide, **method.options, **slots)
            mcmc = run(kernel, key_run, num_iterations, 1, start(method.start))
            return api.pool(key_pool, mcmc, preset.num_draws)

        @jax.jit
        def encode(x):
            return handlers.trace(handlers.seed(fitted.guide, 0)).get_trace(x)["z"]["fn"].mean

        return sample, lambda x: np.asarray(encode(x))

    omniglot.run(args, jax.devices()[0].platform, sampler)


if __name__ == "__main__":
    main(arguments("omniglot", "numpyro", __doc__.splitlines()[0], needs_data=True))
