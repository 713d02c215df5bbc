"""Real tables, half of them missing: MWG, AC-MWG and LAIR beside common imputers, in Pyro.

Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated
approximate ancestral sampling, TMLR, section 5.2.  https://arxiv.org/abs/2308.09078

Run `python examples/simkus_2023/tabular_pyro.py --preset small --data FOLDER`.
"""

import pyro
import sampling_pyro as sampling
import tabular
import torch
from experiment import arguments, weights_file

from ppl_vae import pyro as api


def train(args, preset, table, device):
    """Return the table's trained VAE; a second call goes on from where the first stopped."""
    likelihood = ("normal", tabular.SCALE_FLOOR)
    shape = table.x_train.shape[1:]
    pyro.set_rng_seed(args.seed)
    return api.fit(
        api.VAE(shape, preset.latent_dim, preset.hidden, likelihood).to(device),
        torch.as_tensor(table.x_train, device=device),
        num_steps=preset.num_steps,
        batch_size=preset.batch_size,
        checkpoint=weights_file(args, table.name, "checkpoint"),
    )


def main(args):
    preset = tabular.PRESETS[args.preset]
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def sampler(table):
        fitted = train(args, preset, table, device)
        low, high = (torch.as_tensor(limit, device=device) for limit in table.limits)

        def guide(x):
            return fitted.guide(x.clamp(low, high))

        return sampling.sampler(
            fitted.model, guide, torch.as_tensor(table.x, device=device), preset, args.seed,
            num_draws=preset.num_draws, num_slots=preset.num_draws,
        )  # fmt: skip

    tabular.run(args, device, sampler)


if __name__ == "__main__":
    main(arguments("tabular", "pyro", __doc__.splitlines()[0], needs_data=True))
