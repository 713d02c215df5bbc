"""Pseudo-Gibbs: alternate the guide and the likelihood, as if the guide were the posterior.

Rezende, Mohamed and Wierstra (2014), Stochastic backpropagation and approximate inference in deep
generative models, ICML, appendix F.  https://arxiv.org/abs/1401.4082
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, random

from ppl_vae.inference.numpyro.mcmc import ProgramKernel
from ppl_vae.inference.numpyro.program import Latents, Program
from ppl_vae.inference.numpyro.rows import select_rows
from ppl_vae.inference.numpyro.starting import within_prior

__all__ = ["PseudoGibbsInfo", "PseudoGibbsKernel", "PseudoGibbsState", "step"]


class PseudoGibbsState(NamedTuple):
    """What the next step needs."""

    x: Array  # completed rows, (B, *event)
    z: Latents  # the latents they were drawn from, each (B, ...)


class PseudoGibbsInfo(NamedTuple):
    """Sample statistics of one step, per row."""

    lp: Array  # log p(x_o, z) of the draw, -inf outside of the prior's support, (B,)


def step(
    key: Array, program: Program, state: PseudoGibbsState
) -> tuple[PseudoGibbsState, PseudoGibbsInfo]:
    """Draw z ~ q(z | x_o, x_m), then x_m ~ p(x_m | x_o, z)."""
    key_z, key_x = random.split(key)
    z = program.propose(key_z, state.x)
    log_prior, log_others, likelihood = program.decode(z)
    x = program.impute(key_x, likelihood)
    lp = log_prior + log_others + program.log_observed(likelihood)
    x, z = select_rows(log_prior == -jnp.inf, tuple(state), (x, z))  # no p(x | z): all stays
    return PseudoGibbsState(x, z), PseudoGibbsInfo(lp)


class PseudoGibbsKernel(ProgramKernel):
    """Alternate draws z ~ q(z | x) and x_m ~ p(x_m | x_o, z); a fast baseline, **biased**.

    Its draws follow p(x_m, z | x_o) only if the guide is the exact posterior q(z | x) = p(z | x);
    otherwise they follow another law, and no run length mends that. Use it to warm up
    `MWGKernel` or `ACMWGKernel`, which correct for the guide.

    Args:
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: `guide(x, *args, **kwargs)`, sampling every latent site of the model.
        site: name of the data site.
        params: trained values of `numpyro.param` sites, if any (`svi_result.params`).

    Example:
        >>> from jax import random
        >>> from ppl_vae.numpyro import MCMC, PseudoGibbsKernel, VAE, fit
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> data = digits(binary=True)
        >>> fitted = fit(random.key(0), VAE((64,), 4), data.x_train, num_steps=20)
        >>> mcmc = MCMC(PseudoGibbsKernel(fitted.model, fitted.guide), num_warmup=5, num_samples=10)
        >>> mcmc.run(random.key(1), with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64)))
        >>> mcmc.get_samples()["x"].shape
        (10, 3, 64)
    """

    def start(self, key: Array, program: Program, x: Array, z: Latents | None) -> PseudoGibbsState:
        """Start from completed rows."""
        key_z, key_prior = random.split(key)
        z = program.propose(key_z, x) if z is None else z
        return PseudoGibbsState(x, within_prior(key_prior, program, z))

    def step(
        self, key: Array, program: Program, state: PseudoGibbsState
    ) -> tuple[PseudoGibbsState, PseudoGibbsInfo]:
        """Advance one chain by one iteration."""
        return step(key, program, state)
