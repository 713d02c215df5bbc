"""Baselines without an encoder: importance resampling from the prior, and marginal draws.

Simkus and Gutmann (2023) use both as ablations. https://arxiv.org/abs/2308.09078

Shapes: C chains, K particles, P proposals, B rows.
"""

from torch import Tensor

from ppl_vae.counts import check_at_least
from ppl_vae.inference.pyro.lair import LAIRInfo, LAIRKernel, LAIRState, Weighed, renew
from ppl_vae.inference.pyro.mcmc import ProgramKernel
from ppl_vae.inference.pyro.program import Latents, Program
from ppl_vae.inference.pyro.pseudo_gibbs import PseudoGibbsInfo, PseudoGibbsState
from ppl_vae.inference.pyro.resampling import multinomial

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
        num_particles: K, at least 1.
        num_prior: P, at least 1.

    Raises:
        ValueError: if `num_particles` or `num_prior` is out of range.

    Example:
        >>> import pyro
        >>> from ppl_vae.pyro import MCMC, PriorResamplingKernel, VAE, fit
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> pyro.set_rng_seed(0)
        >>> data = digits(binary=True)
        >>> fitted = fit(VAE((64,), 4), data.x_train, num_steps=20)
        >>> kernel = PriorResamplingKernel(fitted.model, fitted.guide, num_prior=100)
        >>> mcmc = MCMC(kernel, num_warmup=0, num_samples=10)
        >>> mcmc.run(with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64)))
        >>> mcmc.get_samples()["x"].shape  # draws, particles, rows, entries
        torch.Size([10, 1, 3, 64])
    """

    def __init__(self, model, guide, *, site="x", num_particles=1, num_prior=100) -> None:
        super().__init__(model, guide, site=site, num_particles=num_particles, num_prior=num_prior)
        check_at_least(1, num_prior=num_prior)

    def step(self, program: Program, state: LAIRState) -> tuple[LAIRState, LAIRInfo]:
        """Draw, weigh and resample anew; of the state only the number of chains is used."""
        z = program.propose_from_prior((len(state.x), self.num_prior))
        log_prior, log_others, likelihood = program.decode(z)
        log_observed = log_others + program.log_observed(likelihood)
        weighed = Weighed(z, log_prior + log_observed, likelihood, log_observed)
        return renew(program, weighed, self.num_particles, None, multinomial)


class MarginalKernel(ProgramKernel):
    """Draws of x_m from the model as if nothing were observed: z ~ p(z), x_m ~ p(x_m | z).

    The baseline that shows what conditioning is worth. Iterations are independent.

    Args:
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: as for the other kernels; it is checked, and not used.
        site: name of the data site.

    Example:
        >>> import pyro
        >>> from ppl_vae.pyro import MCMC, MarginalKernel, VAE, fit
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> pyro.set_rng_seed(0)
        >>> data = digits(binary=True)
        >>> fitted = fit(VAE((64,), 4), data.x_train, num_steps=20)
        >>> mcmc = MCMC(MarginalKernel(fitted.model, fitted.guide), num_warmup=0, num_samples=10)
        >>> mcmc.run(with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64)))
        >>> mcmc.get_samples()["x"].shape
        torch.Size([10, 3, 64])
    """

    def start(self, program: Program, x: Tensor, z: Latents | None) -> PseudoGibbsState:
        """Start from completed rows; the first iteration forgets them."""
        return PseudoGibbsState(x, program.propose_from_prior((len(x),)) if z is None else z)

    def step(
        self, program: Program, state: PseudoGibbsState
    ) -> tuple[PseudoGibbsState, PseudoGibbsInfo]:
        """Draw anew; of the state only the number of chains is used."""
        z = program.propose_from_prior((len(state.x),))
        log_prior, log_others, likelihood = program.decode(z)
        lp = log_prior + log_others + program.log_observed(likelihood)
        return PseudoGibbsState(program.draw_marginally(likelihood), z), PseudoGibbsInfo(lp)
