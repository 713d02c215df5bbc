"""LAIR with several latents from every proposal.

Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated
approximate ancestral sampling, TMLR, section 4.2.  https://arxiv.org/abs/2308.09078

Shapes: K particles, R prior proposals, I draws of each, P = I (K + R), B rows.
"""

from jax import Array, random

from ppl_vae.inference.numpyro.lair import LAIRInfo, LAIRKernel, LAIRState, renew, weigh
from ppl_vae.inference.numpyro.program import Program
from ppl_vae.inference.numpyro.resampling import multinomial
from ppl_vae.inference.numpyro.weighting import log_mixture

__all__ = ["MultiDrawLAIRKernel"]


class MultiDrawLAIRKernel(LAIRKernel):
    """LAIR that draws I latents from each of the K encoders, and I R from the prior.

        w(z) = p(x_o, z) / { [sum_k q(z | x^k) + R p(z)] / (K + R) },  I (K + R) of them

    The bias at fixed K is of order 1 / (I (K + R)), and a proposal is compared with K encoders as
    in `LAIRKernel`. With `resample=resampling.local(I)` a particle stays among its own proposals:
    one heavy weight cannot take the whole population, and the bias is of order 1 / I.

    Args:
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: `guide(x, *args, **kwargs)`, sampling every latent site of the model.
        site: name of the data site.
        params: trained values of `numpyro.param` sites, if any (`svi_result.params`).
        num_particles: K, at least 1.
        num_prior: R, at least 0.
        num_draws: I, at least 1; with 1 it is `LAIRKernel`.
        log_denominator: as for `LAIRKernel`.
        resample: a scheme of `ppl_vae.numpyro.resampling`, such as `resampling.local(I)`.

    Raises:
        ValueError: if one of the numbers is out of range.

    Example:
        >>> from jax import random
        >>> from ppl_vae.numpyro import MCMC, MultiDrawLAIRKernel, VAE, fit, resampling
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> data = digits(binary=True)
        >>> fitted = fit(random.key(0), VAE((64,), 4), data.x_train, num_steps=20)
        >>> options = {"num_draws": 3, "resample": resampling.local(3)}
        >>> kernel = MultiDrawLAIRKernel(fitted.model, fitted.guide, **options)
        >>> mcmc = MCMC(kernel, num_warmup=5, num_samples=10)
        >>> mcmc.run(random.key(1), with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64)))
        >>> mcmc.get_extra_fields()["info"].log_weight.shape  # draws, proposals, rows
        (10, 15, 3)
    """

    settings = ("num_particles", "num_prior", "num_draws", "log_denominator", "resample")

    def __init__(
        self, model, guide, *, site="x", params=None, num_particles=4, num_prior=1, num_draws=2,
        log_denominator=log_mixture, resample=multinomial,
    ) -> None:  # fmt: skip
        self.num_draws = num_draws
        super().__init__(
            model, guide, site=site, params=params, num_particles=num_particles,
            num_prior=num_prior, log_denominator=log_denominator, resample=resample,
        )  # fmt: skip

    def step(self, key: Array, program: Program, state: LAIRState) -> tuple[LAIRState, LAIRInfo]:
        """Advance one population by one iteration."""
        key_weigh, key_renew = random.split(key)
        proposed = weigh(
            key_weigh, program, state.x, self.num_prior, self.log_denominator, self.num_draws
        )
        return renew(key_renew, program, proposed, self.num_particles, None, self.resample)
