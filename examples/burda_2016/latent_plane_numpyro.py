"""Two latents: the exact posterior beside q and beside resampled draws, VAE and IWAE, in NumPyro.

Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR, section 3.
https://arxiv.org/abs/1509.00519

Run `python examples/burda_2016/latent_plane_numpyro.py --preset small --data FOLDER`.
"""

import films
import latent_plane as plane
import numpy as np
import training_numpyro as training
from burda import PRESETS, arguments
from jax import random

from ppl_vae import numpyro as api


def main(args):
    num_particles = PRESETS[args.preset].num_particles
    key_grid, key_weights = random.split(random.key(args.seed))

    def train(method, particles, given):
        objective = training.OBJECTIVES[method](num_particles=particles)
        program = training.build(args, given, (2,))
        for epoch, name in films.looks(args, method):
            fitted = training.train(args, name, program, objective, given, epochs=epoch)
            points = plane.points()
            sheet = training.pixels(fitted, given.x_train[: len(points)], {"z1": points})
            means, _ = training.latent_law(fitted.guide, "z1", given.x_validation)
            yield plane.Snapshot(epoch, sheet, means), fitted

    def study(fitted, x):
        pair, shown = (fitted.model, fitted.guide), x[: plane.NUM_SHOWN]
        grid = api.grid_posterior(
            key_grid, *pair, x, bounds=plane.BOUNDS, num_points=plane.NUM_POINTS
        )
        resampled = api.importance_posterior(
            key_weights, *pair, x, num_particles=num_particles, num_samples=plane.NUM_SAMPLES
        )

        def decode(draws):
            return np.stack([training.pixels(fitted, shown, {"z1": z}) for z in draws])

        of_q = plane.draws_of_q(args.seed, *training.latent_law(fitted.guide, "z1", shown))
        resampled_z = resampled["posterior"]["z1"].values[0, : plane.NUM_DRAWS, : len(shown)]
        return plane.Posteriors(grid, resampled, decode(of_q), decode(resampled_z))

    plane.run(args, training.DEVICE, train, study)


if __name__ == "__main__":
    main(arguments("latent_plane", "numpyro", __doc__.splitlines()[0]))
