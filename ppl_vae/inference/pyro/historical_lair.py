"""LAIR with proposals from past imputations as well.

Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated
approximate ancestral sampling, TMLR, appendix.  https://arxiv.org/abs/2308.09078

Shapes: C chains, K particles, H past imputations, R prior proposals, P = K + H + R, B rows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppl_vae.counts import check_at_least
from ppl_vae.inference.pyro.history import History, offer, pick_at_random, start_history
from ppl_vae.inference.pyro.lair import LAIRInfo, LAIRKernel, renew, weigh
from ppl_vae.inference.pyro.program import Latents, Program
from ppl_vae.inference.pyro.resampling import multinomial
from ppl_vae.inference.pyro.weighting import log_mixture
from ppl_vae.lair_options import require_function

__all__ = ["HistoricalLAIRKernel", "HistoricalLAIRState", "step"]


class HistoricalLAIRState(NamedTuple):
    """What the next step needs."""

    x: Tensor  # one completion a particle, (C, K, B, *event)
    z: Latents  # the latents they were drawn from, each (C, K, B, ...)
    history: History


def step(
    program: Program,
    state: HistoricalLAIRState,
    *,
    num_past: int,
    num_prior: int,
    pick: Callable[..., Tensor],
) -> tuple[HistoricalLAIRState, LAIRInfo]:
    """Propose from the particles, from past imputations and from the prior; go on as in LAIR."""
    num_chains, num_particles, num_rows = state.x.shape[:3]
    past = pick(state.history, num_past, program.x_obs, program.mask)
    components = torch.cat([state.x, past], 1)
    proposed = weigh(program, components, num_prior, log_mixture)
    (x, z), info = renew(program, proposed, num_particles, None, multinomial)

    one = torch.randint(num_particles, (1,), device=state.x.device)
    always = torch.ones(num_chains, num_rows, dtype=torch.bool, device=state.x.device)
    history = offer(state.history, state.x[:, one].squeeze(1), always)
    return HistoricalLAIRState(x, z, history), info


class HistoricalLAIRKernel(LAIRKernel):
    """LAIR whose mixture of proposals has H past imputations of the row as components too.

        w(z) = p(x_o, z) / { [sum_k q(z | x^k) + sum_h q(z | x^h) + R p(z)] / (K + H + R) }

    The history is a reservoir of one imputation from each past iteration: in the beginning most
    entries are still the start, after many times `history_size` iterations all are about equally
    likely. H entries of it are used at a time. Given the past, the proposals are fixed, so that
    the mean weight stays an unbiased estimate of p(x_o), and pooling stays valid.

    To keep a burn-in out of the history, start from the `last_state.hand_over()` of a run of
    `LAIRKernel`.

    Args:
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: `guide(x, *args, **kwargs)`, sampling every latent site of the model.
        site: name of the data site.
        num_particles: K, at least 1.
        num_prior: R, at least 0.
        num_past: H, at least 1.
        history_size: entries of the history per chain and row, at least H.
        pick: which H of them, `history.pick_at_random` or `history.pick_over_time`: one of each of
            H stretches of the past, old and new; H must divide `history_size`.

    Raises:
        ValueError: if one of the numbers is out of range.
        TypeError: if `pick` is no function.

    Example:
        >>> import pyro
        >>> from ppl_vae.pyro import MCMC, HistoricalLAIRKernel, VAE, fit
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> pyro.set_rng_seed(0)
        >>> data = digits(binary=True)
        >>> fitted = fit(VAE((64,), 4), data.x_train, num_steps=20)
        >>> kernel = HistoricalLAIRKernel(fitted.model, fitted.guide, num_past=2)
        >>> mcmc = MCMC(kernel, num_warmup=5, num_samples=10)
        >>> mcmc.run(with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64)))
        >>> mcmc.get_samples()["x"].shape  # draws, particles, rows, entries
        torch.Size([10, 4, 3, 64])
    """

    settings = ("num_particles", "num_prior", "num_past", "history_size", "pick")

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *,
        site: str = "x",
        num_particles: int = 4,
        num_prior: int = 1,
        num_past: int = 4,
        history_size: int = 20,
        pick: Callable[..., Tensor] = pick_at_random,
    ) -> None:
        super().__init__(model, guide, site=site, num_particles=num_particles, num_prior=num_prior)
        check_at_least(1, num_past=num_past)
        if not (isinstance(history_size, int | np.integer) and history_size >= num_past):
            raise ValueError(
                f"history_size must be an integer >= num_past={num_past}, got {history_size}."
            )
        arguments = "history, num_past, x_obs, mask"
        require_function("pick", pick, arguments, "history.pick_over_time")
        self.num_past = int(num_past)
        self.history_size = int(history_size)
        self.pick = pick

    def start(self, program: Program, x: Tensor, z: Latents | None) -> Any:
        """Start from one completion a particle; the first is the history."""
        x, z = super().start(program, x, z)
        return HistoricalLAIRState(x, z, start_history(x[:, :1], self.history_size, binary=False))

    def step(self, program: Program, state: Any) -> tuple[Any, LAIRInfo]:
        """Advance the populations by one iteration."""
        return step(
            program, state, num_past=self.num_past, num_prior=self.num_prior, pick=self.pick
        )
