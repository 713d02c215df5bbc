"""Reweighted wake-sleep: the guide follows the posterior, and not the bound.

Shapes: K particles, B rows.
"""

from jax import Array

from ppl_vae.counts import check_at_least
from ppl_vae.inference.numpyro.doubly_reparameterised import DReG
from ppl_vae.inference.numpyro.objectives import Objective
from ppl_vae.inference.numpyro.particles import (
    draw_without_gradient,
    log_mean_exp,
    log_terms,
    shares,
    times,
    with_gradient_of,
)
from ppl_vae.inference.numpyro.program import Program

__all__ = ["RWS", "RWSDReG"]


class RWS(Objective):
    """Reweighted wake-sleep, its wake phase for model and guide.

        sum_k s_k (d log p(x_o, z_k) / d theta + d log q(z_k | x) / d phi),  s_k = w_k / sum_j w_j

    The value is that of `IWAE`, and so is the gradient for the model; the gradient for the guide
    is, as K grows, that of -KL(p(z | x_o) || q(z | x)), so that the guide covers all modes. Latents
    may be discrete. There is no `kl_weight`: shares weighed otherwise are not those of the
    posterior. The sleep phase is `ForwardKL`. Bornschein and Bengio (2015), Reweighted
    wake-sleep, https://arxiv.org/abs/1406.2751.

    Args:
        num_particles: draws a row, K; with one, the gradient for the guide has mean zero.
        chunk_size: as in `IWAE`.
        site: name of the data site.

    Raises:
        ValueError: if `num_particles` is below 1.

    Example:
        >>> from jax import random
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.numpyro import RWS, VAE, fit
        >>> x, objective = digits(binary=True).x_train, RWS(num_particles=5)
        >>> fit(random.key(0), VAE((64,), 4), x, objective=objective, num_steps=20).losses.shape
        (20,)
    """

    can_infer_discrete = True  # or NumPyro's SVI warns of discrete latents

    def __init__(
        self, *, num_particles: int = 50, chunk_size: int | None = None, site: str = "x"
    ) -> None:
        super().__init__(site=site)
        check_at_least(self.least_particles, num_particles=num_particles)
        self.num_particles = num_particles
        if chunk_size is not None:
            check_at_least(1, chunk_size=chunk_size)
        self.chunk_size = chunk_size

    def value(self, key: Array, program: Program) -> Array:
        """Return the bound of each row, shape (B,)."""
        z = draw_without_gradient(key, program, self.num_particles)
        log_observed, log_prior, log_q = log_terms(program, z, self.chunk_size)
        log_weight = log_observed + log_prior - log_q
        surrogate = times(shares(log_weight), log_observed + log_prior + log_q)
        return with_gradient_of(log_mean_exp(log_weight), surrogate.sum(0))


class RWSDReG(DReG):
    """Reweighted wake-sleep, its gradient for the guide reparameterised twice.

        sum_k (s_k - s_k^2)  d log w_k / d z_k  d z_k / d phi,  s_k = w_k / sum_j w_j

    The value is that of `IWAE`, the gradient for the model that of `RWS`, the gradient for the
    guide has the mean of that of `RWS`, and no noise where q is the posterior. Tucker, Lawson, Gu
    and Maddison (2019), Doubly reparameterized gradient estimators,
    https://arxiv.org/abs/1810.04152.

    Args:
        num_particles: draws a row, K; with one, the gradient for the guide is zero.
        chunk_size: as in `IWAE`.
        site: name of the data site.

    Raises:
        ValueError: if `num_particles` is below 1; when run, if a site of the guide cannot be
            reparameterised.

    Example:
        >>> from jax import random
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.numpyro import RWSDReG, VAE, fit
        >>> x, objective = digits(binary=True).x_train, RWSDReG(num_particles=5)
        >>> fit(random.key(0), VAE((64,), 4), x, objective=objective, num_steps=20).losses.shape
        (20,)
    """

    def __init__(
        self, *, num_particles: int = 50, chunk_size: int | None = None, site: str = "x"
    ) -> None:
        super().__init__(num_particles=num_particles, chunk_size=chunk_size, site=site)

    def guide_coefficient(self, share: Array) -> Array:
        """Return what multiplies d log w_k / d z_k d z_k / d phi, shape (K, B)."""
        return share - share**2
