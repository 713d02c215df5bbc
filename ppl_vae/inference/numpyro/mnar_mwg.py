"""Metropolis-within-Gibbs for data missing not at random (MWG-MNAR).

Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated
approximate ancestral sampling, TMLR, appendix on MNAR data.  https://arxiv.org/abs/2308.09078
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, random

from ppl_vae.inference.numpyro.mcmc import ProgramKernel
from ppl_vae.inference.numpyro.metropolis import accept_probability, accept_rows
from ppl_vae.inference.numpyro.missingness import check_missingness, log_missingness
from ppl_vae.inference.numpyro.mwg import Scored, decode, move_latents, score
from ppl_vae.inference.numpyro.program import Latents, Program
from ppl_vae.inference.numpyro.rows import select_rows
from ppl_vae.inference.numpyro.starting import within_prior

__all__ = ["MNARMWGInfo", "MNARMWGKernel", "MNARMWGState", "log_missing_ratio", "step"]


class MNARMWGState(NamedTuple):
    """What the next step needs."""

    x: Array  # completed rows, (B, *event)
    current: Scored
    log_missing: Array  # log p(M | x), (B,)

    @property
    def z(self) -> Latents:
        """The current latents."""
        return self.current.z


class MNARMWGInfo(NamedTuple):
    """Sample statistics of one step, per row."""

    lp: Array  # log p(x_o, z), (B,)
    acceptance_rate: Array  # of the latents, (B,)
    accepted: Array  # the latents moved, bool, (B,)
    acceptance_rate_x: Array  # of the missing entries, (B,)
    accepted_x: Array  # the missing entries moved, bool, (B,)
    diverging: Array  # a ratio was NaN and its move refused, bool, (B,)


def log_missing_ratio(log_missing_new: Array, log_missing: Array) -> Array:
    """Return log [p(M | x') / p(M | x)], shape (B,).

    A mask that x rules out is left at the first x' that does not; NaN where x' does too.
    """
    leaves = (log_missing == -jnp.inf) & (log_missing_new > -jnp.inf)
    return jnp.where(leaves, jnp.inf, log_missing_new - log_missing)


def step(
    key: Array, program: Program, state: MNARMWGState, missingness: Callable[..., Any]
) -> tuple[MNARMWGState, MNARMWGInfo]:
    """Move the latents as MWG does, then propose x_m' ~ p(x_m | x_o, z), accept or keep x_m."""
    key_z, key_x, key_accept = random.split(key, 3)
    current, of_z = move_latents(key_z, program, state.x, state.current)

    x_new = program.impute(key_x, current.likelihood)
    log_missing_new = log_missingness(program, missingness, x_new)
    log_a = log_missing_ratio(log_missing_new, state.log_missing)
    accepted = accept_rows(key_accept, log_a)
    x, log_missing = select_rows(accepted, (x_new, log_missing_new), (state.x, state.log_missing))

    info = MNARMWGInfo(
        lp=of_z.lp,
        acceptance_rate=of_z.acceptance_rate,
        accepted=of_z.accepted,
        acceptance_rate_x=accept_probability(log_a),
        accepted_x=accepted,
        diverging=of_z.diverging | (log_a != log_a),
    )
    return MNARMWGState(x, current, log_missing), info


class MNARMWGKernel(ProgramKernel):
    """Metropolis-within-Gibbs where what is missing depends on its own value.

    The target is p(z, x_m | x_o, M), proportional to p(z) p(x | z) p(M | x). The latents move as
    in `MWGKernel`, for M does not depend on them given x; a move x_m' ~ p(x_m | x_o, z) is accepted
    with probability min(1, p(M | x_o, x_m') / p(M | x_o, x_m)).

    Args:
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: `guide(x, *args, **kwargs)`, sampling every latent site of the model.
        missingness: `missingness(x, mask=None)`, a program that observes the mask; see
            `logistic_missingness`.
        site: name of the data site.
        params: trained values of `numpyro.param` sites, if any (`svi_result.params`).

    Raises:
        TypeError: when run, if `missingness` is no function of `mask`.
        ValueError: when run, if a site of `missingness` is not observed row by row.

    Example:
        >>> import numpy as np
        >>> from jax import random
        >>> from ppl_vae.missingness import mnar_self_logistic
        >>> from ppl_vae.numpyro import MCMC, MNARMWGKernel, VAE, fit, logistic_missingness
        >>> vae = VAE((3,), 2, hidden=(8,), likelihood="normal")
        >>> x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
        >>> fitted = fit(random.key(0), vae, x, num_steps=5)
        >>> mechanism = mnar_self_logistic(np.random.default_rng(0), x)
        >>> mask = mechanism.sample(np.random.default_rng(1), x)
        >>> missingness = logistic_missingness(mechanism)
        >>> kernel = MNARMWGKernel(fitted.model, fitted.guide, missingness)
        >>> mcmc = MCMC(kernel, num_warmup=5, num_samples=10)
        >>> mcmc.run(random.key(1), x, mask=mask)
        >>> mcmc.get_samples()["x"].shape
        (10, 20, 3)
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        missingness: Callable[..., Any],
        *,
        site: str = "x",
        params: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(model, guide, site=site, params=params)
        self.missingness = missingness

    def check(self, key: Array, program: Program) -> None:
        """Raise where the program or its missingness model cannot be sampled."""
        super().check(key, program)
        check_missingness(key, program, self.missingness)

    def start(self, key: Array, program: Program, x: Array, z: Latents | None) -> MNARMWGState:
        """Start from completed rows, at the latents handed over or at z ~ q(z | x)."""
        key_z, key_prior = random.split(key)
        z = program.propose(key_z, x) if z is None else z
        current = score(decode(program, within_prior(key_prior, program, z)))
        return MNARMWGState(x, current, log_missingness(program, self.missingness, x))

    def step(
        self, key: Array, program: Program, state: MNARMWGState
    ) -> tuple[MNARMWGState, MNARMWGInfo]:
        """Advance one chain by one iteration."""
        return step(key, program, state, self.missingness)

    def redecode(self, program: Program, state: MNARMWGState) -> MNARMWGState:
        """Recompute what the programs say of the current latents and rows."""
        log_missing = log_missingness(program, self.missingness, state.x)
        return MNARMWGState(state.x, score(decode(program, state.current.z)), log_missing)
