"""LAIR that changes while it runs: flattened weights at first, prior proposals now and then.

Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated
approximate ancestral sampling, TMLR, appendix.  https://arxiv.org/abs/2308.09078

Shapes: K particles, R prior proposals, P = K + R, B rows.
"""

from collections.abc import Callable
from math import log
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, random

from ppl_vae.counts import check_at_least
from ppl_vae.inference.numpyro.lair import LAIRInfo, LAIRKernel, renew, weigh
from ppl_vae.inference.numpyro.program import Latents, Program
from ppl_vae.inference.numpyro.resampling import multinomial
from ppl_vae.inference.numpyro.weighting import log_mixture
from ppl_vae.lair_options import require_function

__all__ = ["ScheduledLAIRKernel", "ScheduledLAIRState", "log_scheduled_mixture", "step"]


class ScheduledLAIRState(NamedTuple):
    """What the next step needs."""

    x: Array  # one completion a particle, (K, B, *event)
    z: Latents  # the latents they were drawn from, each (K, B, ...)
    iteration: Array  # t, counted from the start of the chain


def log_scheduled_mixture(
    log_q: Array, log_prior: Array, num_prior: int, *, replenish: Array
) -> Array:
    """Return the log density of the proposals, with prior components only where `replenish`.

    Elsewhere the prior's proposals get the weight 0, and the K others the weight P / K times their
    own, so that the mean over all P still estimates p(x_o). Arguments as in `log_mixture`.
    """
    num_particles = log_q.shape[1]
    with_prior = log_mixture(log_q, log_prior, num_prior)
    without = log_mixture(log_q, log_prior, 0) + log(num_particles / (num_particles + num_prior))
    of_guide = jnp.arange(len(log_q)) < num_particles
    without = jnp.where(of_guide[:, None], without, jnp.inf)
    return jnp.where(replenish, with_prior, without)


def step(
    key: Array,
    program: Program,
    state: ScheduledLAIRState,
    *,
    num_prior: int,
    replenish_every: int,
    power: Callable[[Array], Array],
) -> tuple[ScheduledLAIRState, LAIRInfo]:
    """Advance as LAIR does, with what the schedule has for this iteration."""
    key_weigh, key_renew = random.split(key)
    t = state.iteration
    replenish = t % replenish_every == 0

    def log_denominator(log_q: Array, log_prior: Array, num_prior: int) -> Array:
        return log_scheduled_mixture(log_q, log_prior, num_prior, replenish=replenish)

    proposed = weigh(key_weigh, program, state.x, num_prior, log_denominator)

    def flatten(log_weight: Array) -> Array:
        return jnp.where(log_weight == -jnp.inf, -jnp.inf, power(t) * log_weight)

    (x, z), info = renew(key_renew, program, proposed, len(state.x), flatten, multinomial)
    return ScheduledLAIRState(x, z, t + 1), info


class ScheduledLAIRKernel(LAIRKernel):
    """LAIR with prior proposals at every n-th iteration, and a power of the weights that changes.

    At iteration t = 0, 1, ... particles are resampled with probability proportional to w^power(t).
    Weights are reported as they are, without the power: `pool` and the estimate of p(x_o) do not
    change their meaning.

    Args:
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: `guide(x, *args, **kwargs)`, sampling every latent site of the model.
        site: name of the data site.
        params: trained values of `numpyro.param` sites, if any (`svi_result.params`).
        num_particles: K, at least 1.
        num_prior: R, at least 1.
        replenish_every: n, at least 1; 1 is LAIR.
        power: of t, in (0, 1], such as `weighting.poly(num_iterations)`; by default 1.

    Raises:
        ValueError: if one of the numbers is out of range, or power(t) at some t up to 100,000.
        TypeError: if `power` is no function.

    Example:
        >>> from jax import random
        >>> from ppl_vae.numpyro import MCMC, ScheduledLAIRKernel, VAE, fit, weighting
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> data = digits(binary=True)
        >>> fitted = fit(random.key(0), VAE((64,), 4), data.x_train, num_steps=20)
        >>> kernel = ScheduledLAIRKernel(fitted.model, fitted.guide, power=weighting.poly(15))
        >>> mcmc = MCMC(kernel, num_warmup=5, num_samples=10)
        >>> mcmc.run(random.key(1), with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64)))
        >>> mcmc.get_samples()["x"].shape  # draws, particles, rows, entries
        (10, 4, 3, 64)
    """

    settings = ("num_particles", "num_prior", "replenish_every", "power")

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *,
        site: str = "x",
        params: dict[str, Any] | None = None,
        num_particles: int = 4,
        num_prior: int = 1,
        replenish_every: int = 1,
        power: Callable[[Array], Array] = jnp.ones_like,
    ) -> None:
        super().__init__(
            model, guide, site=site, params=params, num_particles=num_particles, num_prior=num_prior
        )
        check_at_least(1, num_prior=num_prior, replenish_every=replenish_every)
        require_function("power", power, "t", "weighting.poly(1_000)")
        for t in (0, 1, 10, 100, 1_000, 10_000, 100_000):
            value = float(power(jnp.asarray(float(t))))
            if not 0 < value <= 1:
                raise ValueError(f"power(t) must lie in (0, 1]; at t = {t} it is {value}.")
        self.replenish_every = int(replenish_every)
        self.power = power

    def start(self, key: Array, program: Program, x: Array, z: Latents | None) -> Any:
        """Start from one completion a particle, at t = 0."""
        x, z = super().start(key, program, x, z)
        return ScheduledLAIRState(x, z, jnp.zeros(()))

    def step(self, key: Array, program: Program, state: Any) -> tuple[Any, LAIRInfo]:
        """Advance one population by one iteration."""
        return step(
            key,
            program,
            state,
            num_prior=self.num_prior,
            replenish_every=self.replenish_every,
            power=self.power,
        )
