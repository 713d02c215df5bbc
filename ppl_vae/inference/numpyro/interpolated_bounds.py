"""Bounds between the ELBO and the importance-weighted one, or beyond.

Shapes: K particles, B rows.
"""

from math import isfinite
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ppl_vae.inference.numpyro.importance_weighted import IWAE
from ppl_vae.inference.numpyro.particles import log_mean_exp, times
from ppl_vae.inference.numpyro.program import Program
from ppl_vae.schedules import Schedule

__all__ = ["CIWAE", "Renyi"]


class CIWAE(IWAE):
    """A combination of the ELBO and the importance-weighted bound of the same draws.

        beta (1/K) sum_k log w_k + (1 - beta) log (1/K) sum_k w_k

    The ELBO keeps the signal of the guide's gradient, the other term the bound tight. Rainforth et
    al. (2018), Tighter variational bounds are not necessarily better,
    https://arxiv.org/abs/1802.04537.

    Args:
        beta: from 0, which is `IWAE`, to 1, which is `ELBO`; or a schedule.
        num_particles: draws a row, K.
        kl_weight, chunk_size: as in `IWAE`.
        site: name of the data site.

    Raises:
        ValueError: if `beta` is outside [0, 1]; else as `IWAE`.

    Example:
        >>> from jax import random
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.numpyro import CIWAE, VAE, fit
        >>> x, objective = digits(binary=True).x_train, CIWAE(beta=0.1, num_particles=5)
        >>> fit(random.key(0), VAE((64,), 4), x, objective=objective, num_steps=20).losses.shape
        (20,)
    """

    def __init__(
        self,
        *,
        beta: float | Schedule = 0.5,
        num_particles: int = 50,
        kl_weight: float | Schedule = 1.0,
        chunk_size: int | None = None,
        site: str = "x",
    ) -> None:
        super().__init__(
            num_particles=num_particles, kl_weight=kl_weight, chunk_size=chunk_size, site=site
        )
        is_number = isinstance(beta, int | float | np.number)
        if not (isinstance(beta, Schedule) or (is_number and 0 <= beta <= 1)):
            raise ValueError(
                f"beta must be between 0 (IWAE) and 1 (ELBO), or a schedule, got {beta!r}."
            )
        self.beta: Any = beta

    def value(self, key: Array, program: Program) -> Array:
        """Return the bound of each row, shape (B,)."""
        log_weight = self.log_weight(key, program)
        elbo, iwae = log_weight.mean(0), log_mean_exp(log_weight)
        return times(self.beta, elbo) + times(1 - self.beta, iwae)


class Renyi(IWAE):
    """The bound by Renyi's divergence of order alpha.

        1 / (1 - alpha)  log (1/K) sum_k w_k^(1 - alpha)

    With alpha = 0 it is `IWAE`, with alpha -> 1 the ELBO; below 0 and with many particles it lies
    above log p(x_o), and above 1 below the ELBO. Li and Turner (2016), Renyi divergence variational
    inference, https://arxiv.org/abs/1602.02311.

    Args:
        alpha: order of the divergence, any finite number; 1 is `ELBO`.
        num_particles: draws a row, K.
        kl_weight, chunk_size: as in `IWAE`.
        site: name of the data site.

    Raises:
        ValueError: if `alpha` is not a finite number; else as `IWAE`.

    Example:
        >>> from jax import random
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.numpyro import Renyi, VAE, fit
        >>> x, objective = digits(binary=True).x_train, Renyi(alpha=0.5, num_particles=5)
        >>> fit(random.key(0), VAE((64,), 4), x, objective=objective, num_steps=20).losses.shape
        (20,)
    """

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        num_particles: int = 50,
        kl_weight: float | Schedule = 1.0,
        chunk_size: int | None = None,
        site: str = "x",
    ) -> None:
        super().__init__(
            num_particles=num_particles, kl_weight=kl_weight, chunk_size=chunk_size, site=site
        )
        if not isinstance(alpha, int | float | np.number) or not isfinite(alpha):
            raise ValueError(f"alpha must be a finite number, got {alpha!r}.")
        self.alpha = alpha

    def value(self, key: Array, program: Program) -> Array:
        """Return the bound of each row, shape (B,)."""
        log_weight = self.log_weight(key, program)
        power = 1 - self.alpha
        if power == 0:
            return log_weight.mean(0)
        # Relative to the largest w^power, expm1 and log1p lose no digits as power goes to zero.
        largest = log_weight.max(0) if power > 0 else log_weight.min(0)
        largest = lax.stop_gradient(jnp.where(jnp.isfinite(largest), largest, 0.0))
        relative = jnp.expm1(power * (log_weight - largest))
        return largest + jnp.log1p(relative.mean(0)) / power
