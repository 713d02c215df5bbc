"""Latent-adaptive importance resampling (LAIR).

Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated
approximate ancestral sampling, TMLR, section 4.2.  https://arxiv.org/abs/2308.09078

Shapes: K particles, R prior proposals, P = K + R, B rows.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, random
from jax.scipy.special import logsumexp

from ppl_vae.importance import pareto_khat
from ppl_vae.inference.numpyro.mcmc import ProgramKernel
from ppl_vae.inference.numpyro.program import Latents, Program
from ppl_vae.inference.numpyro.resampling import multinomial
from ppl_vae.inference.numpyro.rows import take_rows
from ppl_vae.inference.numpyro.weighting import log_mixture
from ppl_vae.inference_data import Run
from ppl_vae.lair_options import check_lair_options, require_function

__all__ = [
    "LAIRInfo", "LAIRKernel", "LAIRState", "Weighed", "lair_info", "renew", "step", "weigh",
    "without_nan",
]  # fmt: skip


class LAIRState(NamedTuple):
    """What the next step needs."""

    x: Array  # one completion a particle, (K, B, *event)
    z: Latents  # the latents they were drawn from, each (K, B, ...)


class LAIRInfo(NamedTuple):
    """Sample statistics of one step, per row."""

    lp: Array  # log p(x_o, z) of each particle, (K, B)
    log_weight: Array  # of each proposal, (P, B); their mean weight estimates p(x_o)
    ess_weights: Array  # effective number of the P proposals, (B,)
    diverging: Array  # no proposal has a finite weight, bool, (B,)
    proposals: Latents  # each (P, B, ...), kept for the pooled resampling


def step(
    key: Array,
    program: Program,
    state: LAIRState,
    *,
    num_prior: int,
    log_denominator: Callable[[Array, Array, int], Array] = log_mixture,
    transform: Callable[[Array], Array] | None = None,
    resample: Callable[[Array, Array, int], Array] = multinomial,
) -> tuple[LAIRState, LAIRInfo]:
    """Propose from every particle's encoder and from the prior, weigh, resample, impute."""
    key_weigh, key_renew = random.split(key)
    proposed = weigh(key_weigh, program, state.x, num_prior, log_denominator)
    return renew(key_renew, program, proposed, len(state.x), transform, resample)


class Weighed(NamedTuple):
    """Proposals and what the model says of them."""

    z: Latents  # each (P, B, ...)
    log_joint: Array  # log p(x_o, z), (P, B)
    likelihood: dist.Distribution  # p(x | z), batch shape (P, B)
    log_weight: Array  # (P, B)


def weigh(
    key: Array,
    program: Program,
    x: Array,
    num_prior: int,
    log_denominator: Callable[[Array, Array, int], Array],
    num_draws: int = 1,
) -> Weighed:
    """Propose I latents from completed rows x (K, B, *event) each, and weigh them."""
    key_q, key_prior = random.split(key)

    # 1. Propose: I latents from each particle's encoder, I R from the prior.
    keys = random.split(key_q, (len(x), num_draws))
    z = jax.vmap(jax.vmap(program.propose, (0, None)))(keys, x)
    z = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), z)
    if num_prior > 0:
        keys = random.split(key_prior, num_draws * num_prior)
        z_prior = jax.vmap(program.propose_from_prior)(keys)
        z = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), z, z_prior)

    # 2. Weigh: p(x_o, z) over the density that proposed it.
    log_prior, log_others, likelihood = jax.vmap(program.decode)(z)
    log_joint = log_prior + log_others + jax.vmap(program.log_observed)(likelihood)
    log_q = jax.vmap(jax.vmap(program.log_proposal, (0, None)), (None, 0), 1)(z, x)
    log_weight = log_joint - log_denominator(log_q, log_prior, num_prior)
    return Weighed(z, log_joint, likelihood, log_weight)


def renew(
    key: Array,
    program: Program,
    proposed: Weighed,
    num_particles: int,
    transform: Callable[[Array], Array] | None,
    resample: Callable[[Array, Array, int], Array],
) -> tuple[LAIRState, LAIRInfo]:
    """Resample the population from weighed proposals, and impute."""
    key_ancestor, key_x = random.split(key)
    log_weight = without_nan(proposed.log_weight)

    # 3. Resample one ancestor a particle, among all proposals of the row.
    chosen_by = log_weight if transform is None else _transformed(transform, log_weight)
    ancestor = resample(key_ancestor, chosen_by, num_particles)
    z, lp, likelihood = take_rows(proposed[:3], ancestor)

    # 4. Impute x_m ~ p(x_m | x_o, z).
    x = jax.vmap(program.impute)(random.split(key_x, num_particles), likelihood)
    return LAIRState(x, z), lair_info(lp, log_weight, proposed.z)


def _transformed(transform: Callable[[Array], Array], log_weight: Array) -> Array:
    changed = transform(log_weight)
    if changed.shape != log_weight.shape:
        raise ValueError(
            "transform must return log-weights of the shape that it gets, "
            f"{log_weight.shape}, it returned {changed.shape}."
        )
    return without_nan(changed)


def without_nan(log_weight: Array) -> Array:
    """Let a proposal without a weight never be drawn."""
    return jnp.where(jnp.isnan(log_weight), -jnp.inf, log_weight)


def lair_info(lp: Array, log_weight: Array, proposals: Latents) -> LAIRInfo:
    """Return the statistics of one step."""
    diverging = (log_weight == -jnp.inf).all(0)
    return LAIRInfo(lp, log_weight, ess_weights(log_weight), diverging, proposals)


def ess_weights(log_weight: Array) -> Array:
    """Return (sum w)^2 / sum w^2 over the leading axis."""
    return jnp.exp(2 * logsumexp(log_weight, axis=0) - logsumexp(2 * log_weight, axis=0))


class LAIRKernel(ProgramKernel):
    """Iterated importance resampling with a population of K imputations as proposals.

    Each iteration draws z_k ~ q(z | x^k), k = 1..K, and R latents from the prior, weighs all by

        w(z) = p(x_o, z) / { [sum_k q(z | x^k) + R p(z)] / (K + R) },

    resamples K of them with replacement and draws x_m^k ~ p(x_m | x_o, z). The K particles are one
    chain's population: draws of one iteration share ancestors. At fixed K their law has a bias of
    order 1 / (K + R); `pool` resamples from all iterations and has none in the limit.

    Args:
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: `guide(x, *args, **kwargs)`, sampling every latent site of the model.
        site: name of the data site.
        params: trained values of `numpyro.param` sites, if any (`svi_result.params`).
        num_particles: K, at least 1.
        num_prior: R, at least 0. With R >= 1 the weights of a bounded likelihood are bounded.
        log_denominator: the density that the joint is divided by, of `ppl_vae.numpyro.weighting`:
            `log_mixture` (DMIS, above) or `log_own_component` (SMIS).
        resample: a scheme of `ppl_vae.numpyro.resampling`.
        transform: of the log-weights (P, B) before resampling, such as `weighting.truncate`; the
            reported weights are those before it.

    Raises:
        TypeError: if `log_denominator`, `resample` or `transform` is no function of its arguments.
        ValueError: if `num_particles` or `num_prior` is out of range.

    Example:
        >>> from jax import random
        >>> from ppl_vae.numpyro import MCMC, LAIRKernel, VAE, fit
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> data = digits(binary=True)
        >>> fitted = fit(random.key(0), VAE((64,), 4), data.x_train, num_steps=20)
        >>> mcmc = MCMC(LAIRKernel(fitted.model, fitted.guide), num_warmup=5, num_samples=10)
        >>> mcmc.run(random.key(1), with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64)))
        >>> mcmc.get_samples()["x"].shape  # draws, particles, rows, entries
        (10, 4, 3, 64)
    """

    num_particles: int
    num_draws: int = 1  # from each component
    settings: ClassVar[tuple[str, ...]] = (
        "num_particles", "num_prior", "log_denominator", "resample", "transform",
    )  # fmt: skip

    def __init__(
        self, model, guide, *, site="x", params=None, num_particles=4, num_prior=1,
        log_denominator=log_mixture, resample=multinomial, transform=None,
    ) -> None:  # fmt: skip
        super().__init__(model, guide, site=site, params=params)
        mixture, scheme = "weighting.log_mixture", "resampling.systematic"
        require_function("log_denominator", log_denominator, "log_q, log_prior, num_prior", mixture)
        require_function("resample", resample, "key, log_weight, num_draws", scheme)
        if transform is not None:
            require_function("transform", transform, "log_weight", "weighting.truncate")
        check_lair_options(num_particles, num_prior, self.num_draws, resample)
        self.num_particles = int(num_particles)
        self.num_prior = int(num_prior)
        self.log_denominator = log_denominator
        self.resample = resample
        self.transform = transform

    def start(self, key: Array, program: Program, x: Array, z: Latents | None) -> LAIRState:
        """Start from one completion a particle."""
        if z is None:
            z = jax.vmap(program.propose)(random.split(key, self.num_particles), x)
        return LAIRState(x, z)

    def step(self, key: Array, program: Program, state: LAIRState) -> tuple[LAIRState, LAIRInfo]:
        """Advance one population by one iteration."""
        return step(
            key,
            program,
            state,
            num_prior=self.num_prior,
            log_denominator=self.log_denominator,
            transform=self.transform,
            resample=self.resample,
        )

    def collect(self, mcmc: Any) -> Run:
        """Return the draws, and k-hat of the weights of all iterations per chain and row.

        It is NaN where fewer than 25 weights were kept, too few for a tail.
        """
        run = super().collect(mcmc)
        if "log_weight" not in run.stats:
            return run
        log_weight = run.stats["log_weight"]  # (C, T, P, B)
        pooled = log_weight.reshape(len(log_weight), -1, log_weight.shape[-1])
        khat = pareto_khat(pooled, axis=1)
        if pooled.shape[1] < 25:
            khat = np.full_like(khat, np.nan)
        return replace(run, stats={**run.stats, "khat": khat})
