"""LAIR's pooled resampling while it runs, in memory that does not grow with the run.

Each of S slots keeps the proposal with the largest log w + g so far, g standard Gumbel and drawn
anew for each proposal and slot. A slot therefore holds proposal p of all that were made with
probability w_p / sum(w), independently of the other slots: exactly the law of multinomial
resampling from a stored run. An iteration's best is found at once, as max_p (log w_p + g_p) has the
law of log sum(w) + g, and is p with probability w_p / sum(w).

Shapes: S slots, K particles, P proposals, B rows. Source: Simkus and Gutmann (2023), section 4.2,
for the pooled resampling; Efraimidis and Spirakis (2006) for weighted reservoirs.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.scipy.special import logsumexp

from ppl_vae.counts import check_at_least
from ppl_vae.inference.numpyro.lair import LAIRKernel, LAIRState
from ppl_vae.inference.numpyro.program import Latents, Program
from ppl_vae.inference.numpyro.resampling import multinomial
from ppl_vae.inference.numpyro.rows import select_rows, take_rows

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

    z: Latents  # each (S, B, ...)
    score: Array  # largest log w + g of each slot, (S, B)


class StreamingLAIRState(NamedTuple):
    """What the next step needs."""

    x: Array  # one completion a particle, (K, B, *event)
    z: Latents  # the latents they were drawn from, each (K, B, ...)
    reservoir: Reservoir


class StreamingLAIRInfo(NamedTuple):
    """Sample statistics of one step, per row; LAIR's but for the proposals."""

    lp: Array  # log p(x_o, z) of each particle, (K, B)
    log_weight: Array  # of each proposal, (P, B); their mean weight estimates p(x_o)
    ess_weights: Array  # effective number of the P proposals, (B,)
    diverging: Array  # no proposal has a finite weight, bool, (B,)


def start_reservoir(z: Latents, num_slots: int) -> Reservoir:
    """Fill all slots with the first particle, (K, B, ...); the first proposals replace it."""
    first = {name: jnp.repeat(value[:1], num_slots, 0) for name, value in z.items()}
    num_rows = next(iter(z.values())).shape[1]
    return Reservoir(first, jnp.full((num_slots, num_rows), -jnp.inf, jnp.result_type(float)))


def keep_best(key: Array, reservoir: Reservoir, z: Latents, log_weight: Array) -> Reservoir:
    """Offer proposals z (P, B, ...) with log-weights (P, B) to every slot."""
    key_index, key_score = random.split(key)
    num_slots = len(reservoir.score)
    best = take_rows(z, multinomial(key_index, log_weight, num_slots))
    gumbel = random.gumbel(key_score, reservoir.score.shape)
    score = logsumexp(log_weight, axis=0) + gumbel
    kept = jax.vmap(select_rows)(score > reservoir.score, best, reservoir.z)
    return Reservoir(kept, jnp.maximum(score, reservoir.score))


class StreamingLAIRKernel(LAIRKernel):
    """LAIR that resamples from all its proposals while it runs, in memory of S latents a row.

    `pool(key, mcmc, num_samples)` then draws from the slots, at most S, with the law of pooling a
    stored run of all iterations, warm-up included. Let the host keep little, but enough for k-hat:
    `MCMC(kernel, num_warmup=5_000, num_samples=10)`.

    Args:
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: `guide(x, *args, **kwargs)`, sampling every latent site of the model.
        site: name of the data site.
        params: trained values of `numpyro.param` sites, if any (`svi_result.params`).
        num_particles: K, at least 1.
        num_prior: R, at least 0.
        num_slots: S, at least 1, of each chain.

    Raises:
        ValueError: if `num_particles`, `num_prior` or `num_slots` is out of range.

    Example:
        >>> from jax import random
        >>> from ppl_vae.numpyro import MCMC, StreamingLAIRKernel, VAE, fit, pool
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> data = digits(binary=True)
        >>> fitted = fit(random.key(0), VAE((64,), 4), data.x_train, num_steps=20)
        >>> kernel = StreamingLAIRKernel(fitted.model, fitted.guide, num_slots=20)
        >>> mcmc = MCMC(kernel, num_warmup=50, num_samples=1)
        >>> mcmc.run(random.key(1), with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64)))
        >>> pool(random.key(2), mcmc, 20)["posterior"]["z"].shape
        (1, 20, 3, 4)
    """

    settings = ("num_particles", "num_prior", "num_slots")

    def __init__(
        self, model, guide, *, site="x", params=None, num_particles=4, num_prior=1, num_slots=100
    ) -> None:
        super().__init__(
            model, guide, site=site, params=params, num_particles=num_particles, num_prior=num_prior
        )
        check_at_least(1, num_slots=num_slots)
        self.num_slots = int(num_slots)

    def start(self, key: Array, program: Program, x: Array, z: Latents | None) -> Any:
        """Start from one completion a particle."""
        x, z = super().start(key, program, x, z)
        return StreamingLAIRState(x, z, start_reservoir(z, self.num_slots))

    def step(self, key: Array, program: Program, state: Any) -> tuple[Any, Any]:
        """Advance one population by one iteration, and offer its proposals to the slots."""
        key_lair, key_slots = random.split(key)
        (x, z), info = super().step(key_lair, program, LAIRState(state.x, state.z))
        reservoir = keep_best(key_slots, state.reservoir, info.proposals, info.log_weight)
        return StreamingLAIRState(x, z, reservoir), StreamingLAIRInfo(*info[:-1])
