"""Baselines without an encoder: importance resampling from the prior, and marginal draws.

Simkus and Gutmann (2023) use both as ablations. https://arxiv.org/abs/2308.09078

Shapes: K particles, P proposals, B rows.
"""

import jax
from jax import Array, random

from ppl_vae.counts import check_at_least
from ppl_vae.inference.numpyro.lair import LAIRInfo, LAIRKernel, LAIRState, Weighed, renew
from ppl_vae.inference.numpyro.mcmc import ProgramKernel
from ppl_vae.inference.numpyro.program import Latents, Program
from ppl_vae.inference.numpyro.pseudo_gibbs import PseudoGibbsInfo, PseudoGibbsState
from ppl_vae.inference.numpyro.resampling import multinomial

__all__ = ["MarginalKernel", "PriorResamplingKernel"]


class PriorResamplingKernel(LAIRKernel):
    """Importance resampling from the prior: LAIR whose mixture has prior components alone.

    Each iteration draws P latents z ~ p(z), weighs them by p(x_o | z), resamples K of them and
    draws x_m ~ p(x_m | x_o, z). Iterations are independent of each other. The bias at fixed P is
    of order 1 / P; `pool` takes it away. It needs about exp(KL(p(z | x_o) || p(z))) proposals.

    Args:
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: as for the other kernels; it is checked, and not used.
        site: name of the data site.
        params: trained values of `numpyro.param` sites, if any (`svi_result.params`).
        num_particles: K, at least 1.
        num_prior: P, at least 1.

    Raises:
        ValueError: if `num_particles` or `num_prior` is out of range.

    Example:
        >>> from jax import random
        >>> from ppl_vae.numpyro import MCMC, PriorResamplingKernel, VAE, fit
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> data = digits(binary=True)
        >>> fitted = fit(random.key(0), VAE((64,), 4), data.x_train, num_steps=20)
        >>> kernel = PriorResamplingKernel(fitted.model, fitted.guide, num_prior=100)
        >>> mcmc = MCMC(kernel, num_warmup=0, num_samples=10)
        >>> mcmc.run(random.key(1), with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64)))
        >>> mcmc.get_samples()["x"].shape  # draws, particles, rows, entries
        (10, 1, 3, 64)
    """

    def __init__(
        self, model, guide, *, site="x", params=None, num_particles=1, num_prior=100
    ) -> None:
        super().__init__(
            model, guide, site=site, params=params, num_particles=num_particles, num_prior=num_prior
        )
        check_at_least(1, num_prior=num_prior)

    def step(self, key: Array, program: Program, state: LAIRState) -> tuple[LAIRState, LAIRInfo]:
        """Draw, weigh and resample anew; the state is not looked at."""
        del state
        key_z, key_next = random.split(key)
        z = jax.vmap(program.propose_from_prior)(random.split(key_z, self.num_prior))
        log_prior, log_others, likelihood = jax.vmap(program.decode)(z)
        log_observed = log_others + jax.vmap(program.log_observed)(likelihood)
        weighed = Weighed(z, log_prior + log_observed, likelihood, log_observed)
        return renew(key_next, program, weighed, self.num_particles, None, multinomial)


class MarginalKernel(ProgramKernel):
    """Draws of x_m from the model as if nothing were observed: z ~ p(z), x_m ~ p(x_m | z).

    The baseline that shows what conditioning is worth. Iterations are independent.

    Args:
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: as for the other kernels; it is checked, and not used.
        site: name of the data site.
        params: trained values of `numpyro.param` sites, if any (`svi_result.params`).

    Example:
        >>> from jax import random
        >>> from ppl_vae.numpyro import MCMC, MarginalKernel, VAE, fit
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> data = digits(binary=True)
        >>> fitted = fit(random.key(0), VAE((64,), 4), data.x_train, num_steps=20)
        >>> mcmc = MCMC(MarginalKernel(fitted.model, fitted.guide), num_warmup=0, num_samples=10)
        >>> mcmc.run(random.key(1), with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64)))
        >>> mcmc.get_samples()["x"].shape
        (10, 3, 64)
    """

    def start(self, key: Array, program: Program, x: Array, z: Latents | None) -> PseudoGibbsState:
        """Start from completed rows; the first iteration forgets them."""
        return PseudoGibbsState(x, program.propose_from_prior(key) if z is None else z)

    def step(
        self, key: Array, program: Program, state: PseudoGibbsState
    ) -> tuple[PseudoGibbsState, PseudoGibbsInfo]:
        """Draw anew; the state is not looked at."""
        del state
        key_z, key_x = random.split(key)
        z = program.propose_from_prior(key_z)
        log_prior, log_others, likelihood = program.decode(z)
        lp = log_prior + log_others + program.log_observed(likelihood)
        return PseudoGibbsState(program.draw_marginally(key_x, likelihood), z), PseudoGibbsInfo(lp)
