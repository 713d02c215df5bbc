"""Two stochastic layers: posterior means of both in the plane, VAE and IWAE, in Pyro.

Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR, section 5.
https://arxiv.org/abs/1509.00519

Run `python examples/burda_2016/two_layers_pyro.py --preset small --data FOLDER`.
"""

import pyro
import training_pyro as training
import two_layers
from burda import PRESETS, arguments

from ppl_vae import pyro as api


def main(args):
    num_particles = PRESETS[args.preset].num_particles

    def train_and_look(method, particles, given):
        fitted = training.train(
            args, method, training.build(args, given, two_layers.LATENT_DIMS),
            training.OBJECTIVES[method](num_particles=particles), given,
        )  # fmt: skip
        pair, x = (fitted.model, fitted.guide), given.x_test
        pyro.set_rng_seed(args.seed)
        resampled = api.importance_posterior(*pair, x, num_particles=num_particles)
        return two_layers.Latents(resampled, api.kl_per_site(*pair, x))

    two_layers.run(args, training.DEVICE, train_and_look)


if __name__ == "__main__":
    main(arguments("two_layers", "pyro", __doc__.splitlines()[0]))
