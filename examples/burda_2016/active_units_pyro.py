"""Active units before and after a change of objective, and without the inactive, in Pyro.

Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR, section 5.2.
https://arxiv.org/abs/1509.00519

Run `python examples/burda_2016/active_units_pyro.py --preset small --data FOLDER`.
"""

import active_units
import pyro
import training_pyro as training
from burda import PRESETS, arguments

from ppl_vae import pyro as api


def main(args):
    preset = PRESETS[args.preset]

    def look(fitted, x):
        pair, number = (fitted.model, fitted.guide), preset.num_particles
        pyro.set_rng_seed(args.seed)
        units = api.active_units(*pair, x)
        pyro.set_rng_seed(args.seed)
        whole = api.log_likelihood(*pair, x, num_particles=number)
        pair = api.prune(*pair, units)
        pyro.set_rng_seed(args.seed)
        pruned = api.log_likelihood(*pair, x, num_particles=number)
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
    main(arguments("active_units", "pyro", __doc__.splitlines()[0]))
