"""Two stochastic layers: posterior means of both in the plane, VAE and IWAE, in NumPyro.

Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR, section 5.
https://arxiv.org/abs/1509.00519

Run `python examples/burda_2016/two_layers_numpyro.py --preset small --data FOLDER`.
"""

import films
import training_numpyro as training
import two_layers
from burda import PRESETS, arguments
from jax import random

from ppl_vae import numpyro as api


def main(args):
    num_particles = PRESETS[args.preset].num_particles
    key_weights, key_kl = random.split(random.key(args.seed))

    def train(method, particles, given):
        objective = training.OBJECTIVES[method](num_particles=particles)
        program = training.build(args, given, two_layers.LATENT_DIMS)
        rows = given.x_train[: two_layers.SIDE**2]
        for epoch, name in films.looks(args, method):
            fitted = training.train(args, name, program, objective, given, epochs=epoch)
            sheets = [
                training.pixels(fitted, rows, training.from_prior(fitted, noise, rows))
                for noise in two_layers.noise(args.seed)
            ]
            yield two_layers.Snapshot(epoch, *sheets), fitted

    def look(fitted, x):
        pair = (fitted.model, fitted.guide)
        resampled = api.importance_posterior(key_weights, *pair, x, num_particles=num_particles)
        return two_layers.Latents(resampled, api.kl_per_site(key_kl, *pair, x))

    two_layers.run(args, training.DEVICE, train, look)


if __name__ == "__main__":
    main(arguments("two_layers", "numpyro", __doc__.splitlines()[0]))
