"""LAIR with proposals from past imputations as well.

Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated
approximate ancestral sampling, TMLR, appendix.  https://arxiv.org/abs/2308.09078

Shapes: K particles, H past imputations, R prior proposals, P = K + H + R, B rows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, random

from ppl_vae.counts import check_at_least
from ppl_vae.inference.numpyro.history import History, offer, pick_at_random, start_history
from ppl_vae.inference.numpyro.lair import LAIRInfo, LAIRKernel, renew, weigh
from ppl_vae.inference.numpyro.program import Latents, Program
from ppl_vae.inference.numpyro.resampling import multinomial
from ppl_vae.inference.numpyro.weighting import log_mixture
from ppl_vae.lair_options import require_function

__all__ = ["HistoricalLAIRKernel", "HistoricalLAIRState", "step"]


class HistoricalLAIRState(NamedTuple):
    """What the next step needs."""

    x: Array  # one completion a particle, (K, B, *event)
    z: Latents  # the latents they were drawn from, each (K, B, ...)
    history: History


def step(
    key: Array,
    program: Program,
    state: HistoricalLAIRState,
    *,
    num_past: int,
    num_prior: int,
    pick: Callable[..., Array],
) -> tuple[HistoricalLAIRState, LAIRInfo]:
    """Propose from the particles, from past imputations and from the prior; go on as in LAIR."""
    key_pick, key_weigh, key_renew, key_one, key_offer = random.split(key, 5)
    num_particles, num_rows = state.x.shape[:2]
    past = pick(key_pick, state.history, num_past, program.x_obs, program.mask)
    components = jnp.concatenate([state.x, past])
    proposed = weigh(key_weigh, program, components, num_prior, log_mixture)
    (x, z), info = renew(key_renew, program, proposed, num_particles, None, multinomial)

    one = random.randint(key_one, (), 0, num_particles)
    history = offer(key_offer, state.history, state.x[one], jnp.ones(num_rows, bool))
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
        params: trained values of `numpyro.param` sites, if any (`svi_result.params`).
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
        >>> from jax import random
        >>> from ppl_vae.numpyro import MCMC, HistoricalLAIRKernel, VAE, fit
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> data = digits(binary=True)
        >>> fitted = fit(random.key(0), VAE((64,), 4), data.x_train, num_steps=20)
        >>> kernel = HistoricalLAIRKernel(fitted.model, fitted.guide, num_past=2)
        >>> mcmc = MCMC(kernel, num_warmup=5, num_samples=10)
        >>> mcmc.run(random.key(1), with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64)))
        >>> mcmc.get_samples()["x"].shape  # draws, particles, rows, entries
        (10, 4, 3, 64)
    """

    settings = ("num_particles", "num_prior", "num_past", "history_size", "pick")

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *,
        site: str = "x",
        params: dict[str, Any] | None = None,
        num_particles: int = 4,
        num_prior: int = 1,
        num_past: int = 4,
        history_size: int = 20,
        pick: Callable[..., Array] = pick_at_random,
    ) -> None:
        super().__init__(
            model, guide, site=site, params=params, num_particles=num_particles, num_prior=num_prior
        )
        check_at_least(1, num_past=num_past)
        if not (isinstance(history_size, int | np.integer) and history_size >= num_past):
            raise ValueError(
                f"history_size must be an integer >= num_past={num_past}, got {history_size}."
            )
        arguments = "key, history, num_past, x_obs, mask"
        require_function("pick", pick, arguments, "history.pick_over_time")
        self.num_past = int(num_past)
        self.history_size = int(history_size)
        self.pick = pick

    def start(self, key: Array, program: Program, x: Array, z: Latents | None) -> Any:
        """Start from one completion a particle; the first is the history."""
        x, z = super().start(key, program, x, z)
        return HistoricalLAIRState(x, z, start_history(x[:1], self.history_size, binary=False))

    def step(self, key: Array, program: Program, state: Any) -> tuple[Any, LAIRInfo]:
        """Advance one population by one iteration."""
        return step(
            key, program, state, num_past=self.num_past, num_prior=self.num_prior, pick=self.pick
        )
