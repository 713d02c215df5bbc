"""From a VAE to trusted draws of missing pixels, in NumPyro.

A VAE is trained on 8 x 8 binary digits.  The lower half of each test image is then hidden, and
four samplers draw it anew, given the upper half and the VAE.  The table says how good the draws
are and whether the chains agree; ArviZ opens what is written to out/quickstart/.

References:
  1. Rezende et al. (2014), pseudo-Gibbs.  https://arxiv.org/abs/1401.4082
  2. Mattei and Frellsen (2018), Metropolis-within-Gibbs.  https://arxiv.org/abs/1802.04826
  3. Simkus and Gutmann (2023), AC-MWG and LAIR.  https://arxiv.org/abs/2308.09078

Run `python examples/quickstart/quickstart_numpyro.py --help` for the options.
"""

from jax import random
from report import arguments, print_table, save, scores

from ppl_vae.datasets import digits
from ppl_vae.masks import half, with_nan
from ppl_vae.numpyro import (
    MCMC,
    VAE,
    ACMWGKernel,
    LAIRKernel,
    MWGKernel,
    PseudoGibbsKernel,
    fit,
    to_inference_data,
)

BACKEND = "numpyro"
KERNELS = (PseudoGibbsKernel, MWGKernel, ACMWGKernel, LAIRKernel)


def train(args, key, x):
    """Fit a small VAE with Bernoulli pixels."""
    vae = VAE(event_shape=(64,), latent_dim=8, hidden=(128, 128), likelihood="bernoulli")
    fitted = fit(key, vae, x, num_steps=args.steps)
    fitted.save(args.out / BACKEND / "vae.safetensors")
    return fitted


def hide_lower_half(x):
    """Put NaN in the lower half of each image; return the rows and the mask (True = observed)."""
    mask = half((len(x), 8, 8), side="bottom").reshape(len(x), 64)
    return with_nan(x, mask), mask


def sample(args, key, kernel, x):
    """Run the chains on the missing pixels of all rows at once."""
    mcmc = MCMC(
        kernel,
        num_warmup=args.warmup,
        num_samples=args.samples,
        num_chains=args.chains,
        chain_method="vectorized",
    )
    mcmc.run(key, x)
    return to_inference_data(mcmc, dims={"x": ["pixel"]})


def main(args):
    key_fit, key_sample = random.split(random.key(args.seed))
    data = digits(binary=True)
    fitted = train(args, key_fit, data.x_train)
    truth = data.x_test[: args.rows]
    x, mask = hide_lower_half(truth)

    rows = []
    for i, Kernel in enumerate(KERNELS):
        print(f"{Kernel.__name__}:")
        kernel = Kernel(fitted.model, fitted.guide)
        idata = sample(args, random.fold_in(key_sample, i), kernel, x)
        rows.append(scores(BACKEND, Kernel.__name__, idata, truth, mask))
        save(args.out, BACKEND, Kernel.__name__, idata, truth, mask)
    print_table(args, BACKEND, rows)


if __name__ == "__main__":
    main(arguments(BACKEND))
