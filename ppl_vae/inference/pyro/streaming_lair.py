"""LAIR's pooled resampling while it runs, in memory that does not grow with the run.

Each of S slots keeps the proposal with the largest log w + g so far, g standard Gumbel and drawn
anew for each proposal and slot. A slot therefore holds proposal p of all that were made with
probability w_p / sum(w), independently of the other slots: exactly the law of multinomial
resampling from a stored run. An iteration's best is found at once, as max_p (log w_p + g_p) has the
law of log sum(w) + g, and is p with probability w_p / sum(w).

Shapes: C chains, S slots, K particles, P proposals, B rows. Source: Simkus and Gutmann (2023),
section 4.2, for the pooled resampling; Efraimidis and Spirakis (2006) for weighted reservoirs.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppl_vae.counts import check_at_least
from ppl_vae.inference.pyro.lair import LAIRKernel, LAIRState
from ppl_vae.inference.pyro.program import Latents, Program
from ppl_vae.inference.pyro.resampling import multinomial
from ppl_vae.inference.pyro.rows import select_rows, take_rows

__all__ = [
    "Reservoir",
    "StreamingLAIRInfo",
    "StreamingLAIRKernel",
    "StreamingLAIRState",
    "keep_best",
    "start_reservoir",
]


class Reservoir(NamedTuple):
    """A weighted sample of all proposals so far."""

    z: Latents  # each (C, S, B, ...)
    score: Tensor  # largest log w + g of each slot, (C, S, B)


class StreamingLAIRState(NamedTuple):
    """What the next step needs."""

    x: Tensor  # one completion a particle, (C, K, B, *event)
    z: Latents  # the latents they were drawn from, each (C, K, B, ...)
    reservoir: Reservoir


class StreamingLAIRInfo(NamedTuple):
    """Sample statistics of one step, per row; LAIR's but for the proposals."""

    lp: Tensor  # log p(x_o, z) of each particle, (C, K, B)
    log_weight: Tensor  # of each proposal, (C, P, B); their mean weight estimates p(x_o)
    ess_weights: Tensor  # effective number of the P proposals, (C, B)
    diverging: Tensor  # no proposal has a finite weight, bool, (C, B)


def start_reservoir(z: Latents, num_slots: int) -> Reservoir:
    """Fill all slots with the first particle, (C, K, B, ...); the first proposals replace it."""
    first = {name: value[:, [0] * num_slots] for name, value in z.items()}
    value = next(iter(z.values()))
    shape = (len(value), num_slots, value.shape[2])
    return Reservoir(first, torch.full(shape, -torch.inf, device=value.device))


def keep_best(reservoir: Reservoir, z: Latents, log_weight: Tensor) -> Reservoir:
    """Offer proposals z (C, P, B, ...) with log-weights (C, P, B) to every slot."""
    num_slots = reservoir.score.shape[1]
    best = take_rows(z, multinomial(log_weight, num_slots))
    gumbel = -torch.empty_like(reservoir.score).exponential_().log()
    score = log_weight.logsumexp(1, keepdim=True) + gumbel
    kept = select_rows(score > reservoir.score, best, reservoir.z)
    return Reservoir(kept, torch.maximum(score, reservoir.score))


class StreamingLAIRKernel(LAIRKernel):
    """LAIR that resamples from all its proposals while it runs, in memory of S latents a row.

    `pool(mcmc, num_samples)` then draws from the slots, at most S, with the law of pooling a
    stored run of all iterations, warm-up included. Let the host keep little, but enough for k-hat:
    `MCMC(kernel, num_warmup=5_000, num_samples=10)`.

    Args:
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: `guide(x, *args, **kwargs)`, sampling every latent site of the model.
        site: name of the data site.
        num_particles: K, at least 1.
        num_prior: R, at least 0.
        num_slots: S, at least 1, of each chain.

    Raises:
        ValueError: if `num_particles`, `num_prior` or `num_slots` is out of range.

    Example:
        >>> import pyro
        >>> from ppl_vae.pyro import MCMC, StreamingLAIRKernel, VAE, fit, pool
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> pyro.set_rng_seed(0)
        >>> data = digits(binary=True)
        >>> fitted = fit(VAE((64,), 4), data.x_train, num_steps=20)
        >>> kernel = StreamingLAIRKernel(fitted.model, fitted.guide, num_slots=20)
        >>> mcmc = MCMC(kernel, num_warmup=50, num_samples=1)
        >>> mcmc.run(with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64)))
        >>> pool(mcmc, 20)["posterior"]["z"].shape
        (1, 20, 3, 4)
    """

    settings = ("num_particles", "num_prior", "num_slots")

    def __init__(
        self, model, guide, *, site="x", num_particles=4, num_prior=1, num_slots=100
    ) -> None:
        super().__init__(model, guide, site=site, num_particles=num_particles, num_prior=num_prior)
        check_at_least(1, num_slots=num_slots)
        self.num_slots = int(num_slots)

    def start(self, program: Program, x: Tensor, z: Latents | None) -> Any:
        """Start from one completion a particle."""
        x, z = super().start(program, x, z)
        return StreamingLAIRState(x, z, start_reservoir(z, self.num_slots))

    def step(self, program: Program, state: Any) -> tuple[Any, Any]:
        """Advance all populations by one iteration, and offer their proposals to the slots."""
        (x, z), info = super().step(program, LAIRState(state.x, state.z))
        reservoir = keep_best(state.reservoir, info.proposals, info.log_weight)
        return StreamingLAIRState(x, z, reservoir), StreamingLAIRInfo(*info[:-1])
