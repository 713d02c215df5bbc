"""Two stochastic layers: posterior means of both in the plane, VAE and IWAE, in Pyro.

Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR, section 5.
https://arxiv.org/abs/1509.00519

Run `python examples/burda_2016/two_layers_pyro.py --preset small --data FOLDER`.
"""

import films
import pyro
import training_pyro as training
import two_layers
from burda import PRESETS, arguments

from ppl_vae import pyro as api


def main(args):
    num_particles = PRESETS[args.preset].num_particles

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
        pyro.set_rng_seed(args.seed)
        resampled = api.importance_posterior(*pair, x, num_particles=num_particles)
        return two_layers.Latents(resampled, api.kl_per_site(*pair, x))

    two_layers.run(args, training.DEVICE, train, look)


if __name__ == "__main__":
    main(arguments("two_layers", "pyro", __doc__.splitlines()[0]))
