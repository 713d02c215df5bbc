"""Active units before and after a change of objective, and without the inactive, in NumPyro.

Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR, section 5.2.
https://arxiv.org/abs/1509.00519

Run `python examples/burda_2016/active_units_numpyro.py --preset small --data FOLDER`.
"""

import active_units
import training_numpyro as training
from burda import PRESETS, arguments
from jax import random

from ppl_vae import numpyro as api


def main(args):
    preset = PRESETS[args.preset]
    key_units, key_weights = random.split(random.key(args.seed))

    def look(fitted, x):
        pair, number = (fitted.model, fitted.guide), preset.num_particles
        units = api.active_units(key_units, *pair, x)
        whole = api.log_likelihood(key_weights, *pair, x, num_particles=number)
        pair = api.prune(*pair, units)
        pruned = api.log_likelihood(key_weights, *pair, x, num_particles=number)
        return active_units.Look(whole, pruned, units)

    def train_and_look(first, then, given):
        def objective(name):
            kind, particles = active_units.OBJECTIVES[name]
            return training.OBJECTIVES[kind](num_particles=particles)

        program = training.build(args, given, (preset.latent_dim,))
        cold = training.train(args, first, program, objective(first), given)
        yield look(cold, given.x_test)
        warm = training.train_on(args, f"{first}, then {then}", cold, objective(then), given)
        yield look(warm, given.x_test)

    active_units.run(args, training.DEVICE, train_and_look)


if __name__ == "__main__":
    main(arguments("active_units", "numpyro", __doc__.splitlines()[0]))
