"""Test log-likelihood and active units of VAE, IWAE and DReG with k = 1, 5, 50, in NumPyro.

Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR, table 1.
https://arxiv.org/abs/1509.00519

Run `python examples/burda_2016/table_numpyro.py --preset small --data FOLDER`, or some cells of it:
`--layers 1 --objectives IWAE --particles 5 50`.
"""

import table
import training_numpyro as training
from burda import PRESETS, arguments
from jax import random

from ppl_vae import numpyro as api


def main(args):
    preset = PRESETS[args.preset]

    def train(cell, given):
        latent_dims = (preset.latent_dim,) if cell.layers == 1 else preset.latent_dims
        return training.train_replicas(
            args, cell.name, lambda: training.build(args, given, latent_dims),
            training.OBJECTIVES[cell.objective](num_particles=cell.particles), given,
        )  # fmt: skip

    def score(fitted, seed, given):
        numbers, x = (1, preset.num_particles), given.x_test
        key_units, key_weights = random.split(random.key(seed))
        units = api.active_units(key_units, fitted.model, fitted.guide, x)
        whole = api.log_likelihood(
            key_weights, fitted.model, fitted.guide, x, num_particles=numbers
        )
        pair = api.prune(fitted.model, fitted.guide, units)
        pruned = api.log_likelihood(key_weights, *pair, x, num_particles=numbers)
        return table.Score(whole, pruned, units)

    table.run(args, training.DEVICE, train, score)


if __name__ == "__main__":
    main(
        arguments(
            "table", "numpyro", __doc__.splitlines()[0],
            layers=table.LAYERS, objectives=table.OBJECTIVES, particles=table.PARTICLES,
            smoke=table.SMOKE,
        )
    )  # fmt: skip
