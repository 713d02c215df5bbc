"""Metropolis-within-Gibbs for data missing not at random (MWG-MNAR).

Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated
approximate ancestral sampling, TMLR, appendix on MNAR data.  https://arxiv.org/abs/2308.09078
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppl_vae.inference.pyro.mcmc import ProgramKernel
from ppl_vae.inference.pyro.metropolis import accept_probability, accept_rows
from ppl_vae.inference.pyro.missingness import check_missingness, log_missingness
from ppl_vae.inference.pyro.mwg import Scored, decode, move_latents, score
from ppl_vae.inference.pyro.program import Latents, Program
from ppl_vae.inference.pyro.rows import select_rows
from ppl_vae.inference.pyro.starting import within_prior

__all__ = ["MNARMWGInfo", "MNARMWGKernel", "MNARMWGState", "log_missing_ratio", "step"]


class MNARMWGState(NamedTuple):
    """What the next step needs."""

    x: Tensor  # completed rows, (C, B, *event)
    current: Scored
    log_missing: Tensor  # log p(M | x), (C, B)

    @property
    def z(self) -> Latents:
        """The current latents."""
        return self.current.z


class MNARMWGInfo(NamedTuple):
    """Sample statistics of one step, per row."""

    lp: Tensor  # log p(x_o, z), (C, B)
    acceptance_rate: Tensor  # of the latents, (C, B)
    accepted: Tensor  # the latents moved, bool, (C, B)
    acceptance_rate_x: Tensor  # of the missing entries, (C, B)
    accepted_x: Tensor  # the missing entries moved, bool, (C, B)
    diverging: Tensor  # a ratio was NaN and its move refused, bool, (C, B)


def log_missing_ratio(log_missing_new: Tensor, log_missing: Tensor) -> Tensor:
    """Return log [p(M | x') / p(M | x)], shape (C, B).

    A mask that x rules out is left at the first x' that does not; NaN where x' does too.
    """
    leaves = (log_missing == -torch.inf) & (log_missing_new > -torch.inf)
    return torch.where(leaves, torch.inf, log_missing_new - log_missing)


def step(
    program: Program, state: MNARMWGState, missingness: Callable[..., Any]
) -> tuple[MNARMWGState, MNARMWGInfo]:
    """Move the latents as MWG does, then propose x_m' ~ p(x_m | x_o, z), accept or keep x_m."""
    current, of_z = move_latents(program, state.x, state.current)

    x_new = program.impute(current.likelihood)
    log_missing_new = log_missingness(program, missingness, x_new)
    log_a = log_missing_ratio(log_missing_new, state.log_missing)
    accepted = accept_rows(log_a)
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

    Raises:
        TypeError: when run, if `missingness` is no function of `mask`.
        ValueError: when run, if a site of `missingness` is not observed row by row.

    Example:
        >>> import numpy as np
        >>> import pyro, torch
        >>> from ppl_vae.missingness import mnar_self_logistic
        >>> from ppl_vae.pyro import MCMC, MNARMWGKernel, VAE, fit, logistic_missingness
        >>> pyro.set_rng_seed(0)
        >>> vae = VAE((3,), 2, hidden=(8,), likelihood="normal")
        >>> x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
        >>> fitted = fit(vae, torch.as_tensor(x), num_steps=5)
        >>> mechanism = mnar_self_logistic(np.random.default_rng(0), x)
        >>> mask = mechanism.sample(np.random.default_rng(1), x)
        >>> missingness = logistic_missingness(mechanism)
        >>> kernel = MNARMWGKernel(fitted.model, fitted.guide, missingness)
        >>> mcmc = MCMC(kernel, num_warmup=5, num_samples=10)
        >>> mcmc.run(torch.as_tensor(x), mask=torch.as_tensor(mask))
        >>> mcmc.get_samples()["x"].shape
        torch.Size([10, 20, 3])
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        missingness: Callable[..., Any],
        *,
        site: str = "x",
    ) -> None:
        super().__init__(model, guide, site=site)
        self.missingness = missingness

    def check(self, program: Program) -> None:
        """Raise where the program or its missingness model cannot be sampled."""
        super().check(program)
        check_missingness(program, self.missingness)

    def start(self, program: Program, x: Tensor, z: Latents | None) -> MNARMWGState:
        """Start from completed rows, at the latents handed over or at z ~ q(z | x)."""
        z = program.propose(x) if z is None else z
        current = score(decode(program, within_prior(program, z)))
        return MNARMWGState(x, current, log_missingness(program, self.missingness, x))

    def step(self, program: Program, state: MNARMWGState) -> tuple[MNARMWGState, MNARMWGInfo]:
        """Advance the chains by one iteration."""
        return step(program, state, self.missingness)

    def redecode(self, program: Program, state: MNARMWGState) -> MNARMWGState:
        """Recompute what the programs say of the current latents and rows."""
        log_missing = log_missingness(program, self.missingness, state.x)
        return MNARMWGState(state.x, score(decode(program, state.current.z)), log_missing)
