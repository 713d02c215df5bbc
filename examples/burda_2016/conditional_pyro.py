"""Images given their class, with a prior learned for each class or the same for all, in Pyro.

Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR, with labels; after
github.com/nbip/IWAE, tasks 4 and 5.  https://arxiv.org/abs/1509.00519

Run `python examples/burda_2016/conditional_pyro.py --preset small --data FOLDER`.
"""

import conditional
import pyro
import training_pyro as training
from burda import PRESETS, arguments, hidden_widths

from ppl_vae import pyro as api
from ppl_vae.pixels import pixel_logits


def main(args):
    preset = PRESETS[args.preset]

    def train_and_look(prior, particles, given):
        pyro.set_rng_seed(args.seed)
        program = api.ConditionalVAE(
            given.x_train.shape[1:], (preset.latent_dim,), conditional.NUM_CLASSES,
            hidden_widths(args, (preset.latent_dim,)), prior=prior,
            output_bias=pixel_logits(given.x_train),
        )  # fmt: skip
        fitted = training.train(
            args, f"{prior}_{particles}", program, api.IWAE(num_particles=particles), given,
            given.y_train,
        )  # fmt: skip
        pyro.set_rng_seed(args.seed)
        x, labels = conditional.with_every_class(given.x_test)
        found = api.log_likelihood(
            fitted.model, fitted.guide, x, labels, num_particles=preset.num_particles
        )
        classes = conditional.classes()
        rows = given.x_train[: len(classes)]
        noise = {"z1": conditional.noise(args.seed, preset.latent_dim)}
        z = training.from_prior(fitted, noise, rows, classes)
        images = training.pixels(fitted, rows, z, classes)
        return conditional.Conditional(found, images)

    conditional.run(args, training.DEVICE, train_and_look)


if __name__ == "__main__":
    main(
        arguments(
            "conditional", "pyro", __doc__.splitlines()[0],
            priors=conditional.PRIORS, particles=conditional.PARTICLES,
        )
    )  # fmt: skip
