"""Real tables, half of them missing: MWG, AC-MWG and LAIR beside common imputers, in NumPyro.

Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated
approximate ancestral sampling, TMLR, section 5.2.  https://arxiv.org/abs/2308.09078

Run `python examples/simkus_2023/tabular_numpyro.py --preset small --data FOLDER`.
"""

import jax
import jax.numpy as jnp
import sampling_numpyro as sampling
import tabular
from experiment import arguments, weights_file
from jax import random

from ppl_vae import numpyro as api


def train(args, preset, table):
    """Return the table's trained VAE; a second call goes on from where the first stopped."""
    likelihood = ("normal", tabular.SCALE_FLOOR)
    shape = table.x_train.shape[1:]
    return api.fit(
        random.key(args.seed),
        api.VAE(shape, preset.latent_dim, preset.hidden, likelihood),
        table.x_train,
        num_steps=preset.num_steps,
        batch_size=preset.batch_size,
        checkpoint=weights_file(args, table.name, "checkpoint"),
    )


def main(args):
    preset = tabular.PRESETS[args.preset]

    def sampler(table):
        fitted = train(args, preset, table)
        low, high = table.limits

        def guide(x):
            return fitted.guide(jnp.clip(x, low, high))

        return sampling.sampler(
            fitted.model, guide, table.x, preset, args.seed,
            num_draws=preset.num_draws, num_slots=preset.num_draws,
        )  # fmt: skip

    tabular.run(args, jax.devices()[0].platform, sampler)


if __name__ == "__main__":
    main(arguments("tabular", "numpyro", __doc__.splitlines()[0], needs_data=True))
