"""Omniglot, whole quadrants missing: a convolutional VAE, MWG, AC-MWG and LAIR, in Pyro.

Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated
approximate ancestral sampling, TMLR, section 5.3.  https://arxiv.org/abs/2308.09078

Run `python examples/simkus_2023/omniglot_pyro.py --preset small --data FOLDER`.
"""

import omniglot
import pyro
import resnet_pyro as resnet
import sampling_pyro as sampling
import torch
from experiment import arguments, weights_file

from ppl_vae import pyro as api


def train(args, preset, given, device):
    """Return the trained VAE; a second call goes on from where the first stopped."""
    pyro.set_rng_seed(args.seed)
    shape = given.x_train.shape[1:]
    nets = resnet.pair(shape, preset.latent_dim, preset.hidden) if preset.residual else {}
    vae = api.VAE(shape, preset.latent_dim, preset.hidden, "bernoulli", **nets)
    return api.fit(
        vae.to(device),
        torch.as_tensor(given.x_train, device=device),
        num_steps=preset.num_steps,
        batch_size=preset.batch_size,
        checkpoint=weights_file(args, "vae", "checkpoint"),
    )


def main(args):
    preset = omniglot.PRESETS[args.preset]
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def sampler(given):
        fitted = train(args, preset, given, device)

        sample = sampling.sampler(
            fitted.model, fitted.guide, torch.as_tensor(given.x, device=device), preset, args.seed,
            num_draws=preset.num_draws, num_slots=preset.num_draws,
        )  # fmt: skip

        @torch.no_grad()
        def embed(x):
            loc, _ = fitted.program.encoder(torch.as_tensor(x, device=device))
            return loc.cpu().numpy()

        return sample, embed

    omniglot.run(args, device, sampler)


if __name__ == "__main__":
    main(arguments("omniglot", "pyro", __doc__.splitlines()[0], needs_data=True))
