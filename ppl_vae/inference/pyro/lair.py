"""Latent-adaptive importance resampling (LAIR).

Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated
approximate ancestral sampling, TMLR, section 4.2.  https://arxiv.org/abs/2308.09078

Shapes: C chains, K particles, R prior proposals, P = K + R, B rows.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from ppl_vae.importance import pareto_khat
from ppl_vae.inference.pyro.mcmc import ProgramKernel
from ppl_vae.inference.pyro.program import Latents, Program
from ppl_vae.inference.pyro.resampling import multinomial
from ppl_vae.inference.pyro.rows import take_rows
from ppl_vae.inference.pyro.weighting import log_mixture
from ppl_vae.inference_data import Run
from ppl_vae.lair_options import check_lair_options, require_function

__all__ = [
    "LAIRInfo", "LAIRKernel", "LAIRState", "Weighed", "lair_info", "renew", "step", "weigh",
    "without_nan",
]  # fmt: skip


class LAIRState(NamedTuple):
    """What the next step needs."""

    x: Tensor  # one completion a particle, (C, K, B, *event)
    z: Latents  # the latents they were drawn from, each (C, K, B, ...)


class LAIRInfo(NamedTuple):
    """Sample statistics of one step, per row."""

    lp: Tensor  # log p(x_o, z) of each particle, (C, K, B)
    log_weight: Tensor  # of each proposal, (C, P, B); their mean weight estimates p(x_o)
    ess_weights: Tensor  # effective number of the P proposals, (C, B)
    diverging: Tensor  # no proposal has a finite weight, bool, (C, B)
    proposals: Latents  # each (C, P, B, ...), kept for the pooled resampling


def step(
    program: Program,
    state: LAIRState,
    *,
    num_prior: int,
    log_denominator: Callable[[Tensor, Tensor, int], Tensor] = log_mixture,
    transform: Callable[[Tensor], Tensor] | None = None,
    resample: Callable[[Tensor, int], Tensor] = multinomial,
) -> tuple[LAIRState, LAIRInfo]:
    """Propose from every particle's encoder and from the prior, weigh, resample, impute."""
    proposed = weigh(program, state.x, num_prior, log_denominator)
    return renew(program, proposed, state.x.shape[1], transform, resample)


class Weighed(NamedTuple):
    """Proposals and what the model says of them."""

    z: Latents  # each (C, P, B, ...)
    log_joint: Tensor  # log p(x_o, z), (C, P, B)
    likelihood: Distribution  # p(x | z), batch shape (C, P, B)
    log_weight: Tensor  # (C, P, B)


def weigh(
    program: Program,
    x: Tensor,
    num_prior: int,
    log_denominator: Callable[[Tensor, Tensor, int], Tensor],
    num_draws: int = 1,
) -> Weighed:
    """Propose I latents from completed rows x (C, K, B, *event) each, and weigh them."""
    # 1. Propose: I latents from each particle's encoder, I R from the prior.
    z = program.propose(x if num_draws == 1 else x.repeat_interleave(num_draws, 1))
    if num_prior > 0:
        z_prior = program.propose_from_prior((len(x), num_draws * num_prior))
        z = {name: torch.cat([z[name], z_prior[name]], 1) for name in z}

    # 2. Weigh: p(x_o, z) over the density that proposed it.
    log_prior, log_others, likelihood = program.decode(z)
    log_joint = log_prior + log_others + program.log_observed(likelihood)
    log_q = program.log_proposal_of_each(z, x)
    log_weight = log_joint - log_denominator(log_q, log_prior, num_prior)
    return Weighed(z, log_joint, likelihood, log_weight)


def renew(
    program: Program,
    proposed: Weighed,
    num_particles: int,
    transform: Callable[[Tensor], Tensor] | None,
    resample: Callable[[Tensor, int], Tensor],
) -> tuple[LAIRState, LAIRInfo]:
    """Resample the population from weighed proposals, and impute."""
    log_weight = without_nan(proposed.log_weight)

    # 3. Resample one ancestor a particle, among all proposals of the row.
    chosen_by = log_weight if transform is None else _transformed(transform, log_weight)
    ancestor = resample(chosen_by, num_particles)
    z, lp, likelihood = take_rows(tuple(proposed[:3]), ancestor)

    # 4. Impute x_m ~ p(x_m | x_o, z).
    x = program.impute(likelihood)
    return LAIRState(x, z), lair_info(lp, log_weight, proposed.z)


def _transformed(transform: Callable[[Tensor], Tensor], log_weight: Tensor) -> Tensor:
    changed = transform(log_weight)
    if changed.shape != log_weight.shape:
        raise ValueError(
            "transform must return log-weights of the shape that it gets, "
            f"{tuple(log_weight.shape)}, it returned {tuple(changed.shape)}."
        )
    return without_nan(changed)


def without_nan(log_weight: Tensor) -> Tensor:
    """Let a proposal without a weight never be drawn."""
    return torch.where(log_weight.isnan(), -torch.inf, log_weight)


def lair_info(lp: Tensor, log_weight: Tensor, proposals: Latents) -> LAIRInfo:
    """Return the statistics of one step."""
    diverging = (log_weight == -torch.inf).all(1)
    return LAIRInfo(lp, log_weight, ess_weights(log_weight), diverging, proposals)


def ess_weights(log_weight: Tensor) -> Tensor:
    """Return (sum w)^2 / sum w^2 over the proposals."""
    return (2 * log_weight.logsumexp(1) - (2 * log_weight).logsumexp(1)).exp()


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
        num_particles: K, at least 1.
        num_prior: R, at least 0. With R >= 1 the weights of a bounded likelihood are bounded.
        log_denominator: the density that the joint is divided by, of `ppl_vae.pyro.weighting`:
            `log_mixture` (DMIS, above) or `log_own_component` (SMIS).
        resample: a scheme of `ppl_vae.pyro.resampling`.
        transform: of the log-weights (C, P, B) before resampling, such as `weighting.truncate`;
            the reported weights are those before it.

    Raises:
        TypeError: if `log_denominator`, `resample` or `transform` is no function of its arguments.
        ValueError: if `num_particles` or `num_prior` is out of range.

    Example:
        >>> import pyro
        >>> from ppl_vae.pyro import MCMC, LAIRKernel, VAE, fit
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> pyro.set_rng_seed(0)
        >>> data = digits(binary=True)
        >>> fitted = fit(VAE((64,), 4), data.x_train, num_steps=20)
        >>> mcmc = MCMC(LAIRKernel(fitted.model, fitted.guide), num_warmup=5, num_samples=10)
        >>> mcmc.run(with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64)))
        >>> mcmc.get_samples()["x"].shape  # draws, particles, rows, entries
        torch.Size([10, 4, 3, 64])
    """

    num_particles: int
    num_draws: int = 1  # from each component
    settings: ClassVar[tuple[str, ...]] = (
        "num_particles", "num_prior", "log_denominator", "resample", "transform",
    )  # fmt: skip

    def __init__(
        self, model, guide, *, site="x", num_particles=4, num_prior=1,
        log_denominator=log_mixture, resample=multinomial, transform=None,
    ) -> None:  # fmt: skip
        super().__init__(model, guide, site=site)
        mixture, scheme = "weighting.log_mixture", "resampling.systematic"
        require_function("log_denominator", log_denominator, "log_q, log_prior, num_prior", mixture)
        require_function("resample", resample, "log_weight, num_draws", scheme)
        if transform is not None:
            require_function("transform", transform, "log_weight", "weighting.truncate")
        check_lair_options(num_particles, num_prior, self.num_draws, resample)
        self.num_particles = int(num_particles)
        self.num_prior = int(num_prior)
        self.log_denominator = log_denominator
        self.resample = resample
        self.transform = transform

    def start(self, program: Program, x: Tensor, z: Latents | None) -> LAIRState:
        """Start from one completion a particle."""
        if z is None:
            z = program.propose(x)
        return LAIRState(x, z)

    def step(self, program: Program, state: LAIRState) -> tuple[LAIRState, LAIRInfo]:
        """Advance the populations by one iteration."""
        return step(
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
