"""The importance-weighted bound with its bias of first order taken off.

Shapes: K particles, B rows.
"""

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp

from ppl_vae.inference.numpyro.importance_weighted import IWAE
from ppl_vae.inference.numpyro.particles import log_mean_exp
from ppl_vae.inference.numpyro.program import Program

__all__ = ["JVI"]


class JVI(IWAE):
    """The jackknife of the importance-weighted bound, nearer to log p(x_o) and no bound.

        K L_K - (K - 1) (1/K) sum_k L_(K-1, without k),  L = log mean of the weights

    What L_K is too small by falls as 1 / K, what remains here as 1 / K^2. Nowozin (2018), Debiasing
    evidence approximations, https://openreview.net/forum?id=HyZoi-WRb.

    Args:
        num_particles: draws a row, K, at least 2.
        kl_weight, chunk_size: as in `IWAE`.
        site: name of the data site.

    Raises:
        ValueError: if `num_particles` is below 2; else as `IWAE`.

    Example:
        >>> from jax import random
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.numpyro import JVI, VAE, fit
        >>> x, objective = digits(binary=True).x_train, JVI(num_particles=5)
        >>> fit(random.key(0), VAE((64,), 4), x, objective=objective, num_steps=20).losses.shape
        (20,)
    """

    least_particles = 2  # or there is none to leave out

    def value(self, key: Array, program: Program) -> Array:
        """Return the estimate of each row, shape (B,)."""
        log_weight = self.log_weight(key, program)
        num = self.num_particles
        left_out = log_mean_without_each(log_weight).mean(0)
        return num * log_mean_exp(log_weight) - (num - 1) * left_out


def log_mean_without_each(log_weight: Array) -> Array:
    """Return log of the mean of the other weights for each k, shape (K, B)."""
    num = len(log_weight)
    left_out = jnp.eye(num, dtype=bool)[:, :, None]
    return logsumexp(jnp.where(left_out, -jnp.inf, log_weight), axis=1) - jnp.log(num - 1)
