"""Starts at the latents that explain the observed entries best.

Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated
approximate ancestral sampling, TMLR, appendix (there by stochastic gradient ascent; here by Adam,
with the same cosine schedule).  https://arxiv.org/abs/2308.09078

Shapes: C chains, P particles, B rows.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, random

from ppl_vae.counts import check_at_least
from ppl_vae.inference.numpyro.estimators import checked_program
from ppl_vae.inference.numpyro.program import Latents, Program
from ppl_vae.inference.numpyro.rows import take_rows
from ppl_vae.inference.numpyro.starting import HandOver
from ppl_vae.inference.numpyro.unconstrained import (
    decode_unconstrained,
    require_continuous,
    to_unconstrained,
)

__all__ = ["map_start"]


def map_start(
    key: Array,
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Any,
    *args: Any,
    mask: Any = None,
    site: str = "x",
    params: dict[str, Any] | None = None,
    num_chains: int = 1,
    num_particles: int = 5,
    num_steps: int = 120,
    learning_rate: float = 0.05,
    **kwargs: Any,
) -> HandOver:
    """Return starts for the chains of any kernel, at modes of p(z | x_o).

    Each chain's best of P latents drawn from the prior, after gradient ascent on log p(x_o, z), and
    a draw x_m ~ p(x_m | x_o, z). Chains may end in one mode together: compare several starts before
    R-hat is believed.

    Args:
        key: random key.
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: as for the kernels; it is checked, and not used.
        x: data, shape (rows, *event), NaN where missing.
        *args: further arguments of the model.
        mask: bool, the shape of x, True = observed; by default what is not NaN.
        site: name of the data site.
        params: trained values of `numpyro.param` sites, if any (`svi_result.params`).
        num_chains: C, as given to `MCMC`.
        num_particles: P, at least 1.
        num_steps: of Adam, at least 1.
        learning_rate: of Adam in unconstrained coordinates, falling to 0 by a cosine.
        **kwargs: further keyword arguments of the model.

    Returns:
        What `mcmc.run(..., init_params=...)` takes.

    Raises:
        ValueError: a latent site is discrete, a number is out of range, or bad data or programs.

    Example:
        >>> from jax import random
        >>> from ppl_vae.numpyro import MCMC, MWGKernel, VAE, fit, map_start
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> data = digits(binary=True)
        >>> fitted = fit(random.key(0), VAE((64,), 4), data.x_train, num_steps=20)
        >>> x = with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64))
        >>> start = map_start(random.key(1), fitted.model, fitted.guide, x)
        >>> mcmc = MCMC(MWGKernel(fitted.model, fitted.guide), num_warmup=5, num_samples=10)
        >>> mcmc.run(random.key(2), x, init_params=start)
    """
    check_at_least(1, num_chains=num_chains, num_particles=num_particles, num_steps=num_steps)
    if not 0 < learning_rate < np.inf:
        raise ValueError(f"learning_rate must be above 0 and finite, got {learning_rate}.")
    program = checked_program(key, model, guide, x, args, mask, site, params, kwargs)
    require_continuous(key, program)

    def start(key: Array) -> Latents:
        key_z, key_x = random.split(key)
        z = jax.vmap(program.propose_from_prior)(random.split(key_z, num_particles))
        u, _ = jax.vmap(lambda z: to_unconstrained(program, z))(z)
        return _best(key_x, program, _climb(program, u, num_steps, learning_rate))

    if num_chains == 1:
        values = jax.jit(start)(key)
    else:
        values = jax.jit(jax.vmap(start))(random.split(key, num_chains))
    return HandOver(values, f"map_start, {num_steps} iterations")


def _climb(program: Program, u: Latents, num_steps: int, learning_rate: float) -> Latents:
    """Ascend log p(x_o, z(u)) from u, each (P, B, ...)."""
    adam = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))

    def loss(u: Latents) -> Array:
        at, _ = jax.vmap(lambda u: decode_unconstrained(program, u))(u)
        return -(at.log_prior + at.log_observed).sum()

    def ascend(carry: Any, _: None) -> tuple[Any, None]:
        u, state = carry
        updates, state = adam.update(jax.grad(loss)(u), state)
        return (optax.apply_updates(u, updates), state), None

    (u, _), _ = jax.lax.scan(ascend, (u, adam.init(u)), length=num_steps)
    return u


def _best(key: Array, program: Program, u: Latents) -> Latents:
    """The best particle of each row, and a completion drawn from it."""
    at, _ = jax.vmap(lambda u: decode_unconstrained(program, u))(u)
    lp = at.log_prior + at.log_observed
    best = jnp.where(jnp.isnan(lp), -jnp.inf, lp).argmax(0)
    z, likelihood = take_rows((at.z, at.likelihood), best[None])
    x = jax.vmap(lambda likelihood: program.impute(key, likelihood))(likelihood)
    return {program.site: x[0], **{name: value[0] for name, value in z.items()}}
