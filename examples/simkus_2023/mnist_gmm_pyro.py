"""MNIST-GMM, few pixels observed: class posteriors of MWG, AC-MWG and LAIR, in Pyro.

Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated
approximate ancestral sampling, TMLR, section 5.1.  https://arxiv.org/abs/2308.09078

Run `python examples/simkus_2023/mnist_gmm_pyro.py --preset small --data FOLDER`.
"""

from itertools import pairwise

import mnist_gmm
import pyro
import pyro.distributions as dist
import sampling_pyro as sampling
import torch
from experiment import arguments, weights_file
from torch import nn
from torch.nn.functional import softplus

from ppl_vae import pyro as api


class MLP(nn.Module):
    """Location and positive scale of the outputs."""

    def __init__(self, widths):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(i, o) for i, o in pairwise(widths)])

    def forward(self, h):
        *body, head = self.layers
        for layer in body:
            h = layer(h).relu()
        loc, raw = head(h).chunk(2, -1)
        return loc, softplus(raw)


def vae(args, preset, device):
    """z ~ N(0, I), x | z and q(z | x) normal; both scales depend on the condition."""
    latent_dim, hidden = preset.latent_dim, preset.hidden
    pyro.set_rng_seed(args.seed)
    encoder = MLP((mnist_gmm.SIDE**2, *hidden, 2 * latent_dim)).to(device)
    decoder = MLP((latent_dim, *hidden[::-1], 2 * mnist_gmm.SIDE**2)).to(device)

    def model(x):
        loc, scale = x.new_zeros(latent_dim), x.new_ones(latent_dim)
        decode = pyro.module("decoder", decoder)
        with pyro.plate("rows", x.shape[0]):
            z = pyro.sample("z", dist.Normal(loc, scale).to_event(1))
            loc, scale = decode(z)
            floor = mnist_gmm.EXTRA_SCALE
            pyro.sample("x", dist.Normal(loc, scale + floor).to_event(1), obs=x)

    def guide(x):
        loc, scale = pyro.module("encoder", encoder)(x)
        with pyro.plate("rows", x.shape[0]):
            pyro.sample("z", dist.Normal(loc, scale + 1e-4).to_event(1))

    return model, guide


def main(args):
    preset = mnist_gmm.PRESETS[args.preset]
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def sampler(given):
        fitted = api.fit(
            vae(args, preset, device),
            torch.as_tensor(given.x_train, device=device),
            num_steps=preset.num_steps,
            batch_size=preset.batch_size,
            checkpoint=weights_file(args, "vae", "checkpoint"),
        )
        low, high = (torch.as_tensor(limit, device=device) for limit in given.limits)

        def guide(x):
            return fitted.guide(x.clamp(low, high))

        return sampling.sampler(
            fitted.model, guide, torch.as_tensor(given.x, device=device), preset, args.seed,
            num_slots=mnist_gmm.SCORED,
        )  # fmt: skip

    mnist_gmm.run(args, device, sampler)


if __name__ == "__main__":
    main(arguments("mnist_gmm", "pyro", __doc__.splitlines()[0], needs_data=True))
