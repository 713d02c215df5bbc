"""Variance and signal-to-noise ratio of gradients against k, IWAE, STL and DReG, in NumPyro.

Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR; Tucker, Lawson, Gu
and Maddison (2019), Doubly reparameterized gradient estimators, https://arxiv.org/abs/1810.04152.

Run `python examples/burda_2016/gradients_numpyro.py --preset small --data FOLDER`.
"""

import gradients
import training_numpyro as training
from burda import PRESETS, arguments
from jax import random

from ppl_vae import numpyro as api


def main(args):
    preset = PRESETS[args.preset]

    def train_and_probe(num_stages, given):
        fitted = training.train(
            args, f"IWAE_{num_stages}", training.build(args, given, (preset.latent_dim,)),
            api.IWAE(num_particles=5), given, num_stages=num_stages,
        )  # fmt: skip
        return api.gradient_quality(
            random.key(args.seed), fitted, given.x_validation[: gradients.NUM_ROWS],
            objectives=gradients.ESTIMATORS,
            num_particles=gradients.PARTICLES[args.preset],
            num_draws=gradients.NUM_DRAWS[args.preset],
        )  # fmt: skip

    gradients.run(args, training.DEVICE, train_and_probe)


if __name__ == "__main__":
    main(arguments("gradients", "numpyro", __doc__.splitlines()[0]))
