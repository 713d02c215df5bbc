"""Gradients of importance-weighted bounds that do not drown in noise as particles are added.

Shapes: K particles, B rows.
"""

from typing import NamedTuple

from jax import Array, lax

from ppl_vae.inference.numpyro.importance_weighted import IWAE
from ppl_vae.inference.numpyro.particles import (
    Terms,
    draw,
    inner,
    log_mean_exp,
    log_terms,
    only,
    shares,
    times,
    with_gradient_of,
    with_slopes,
)
from ppl_vae.inference.numpyro.program import Latents, Program

__all__ = ["DReG", "Draws"]


class Draws(NamedTuple):
    """K draws of the latents without gradient, and their importance weights."""

    z: Latents  # (K, B, ...)
    terms: Terms  # with the gradients of model and guide
    share: Array  # (K, B), w_k / sum_j w_j
    slope: Latents  # d log w_k / d z_k, the shapes of z


class DReG(IWAE):
    """The importance-weighted bound, its gradient for the guide reparameterised twice.

        sum_k s_k^2  d log w_k / d z_k  d z_k / d phi,  s_k = w_k / sum_j w_j

    The value is that of `IWAE`, and so are the gradient for the model and the expected gradient
    for the guide; the noise of the latter falls with K, where that of `IWAE` grows relative to the
    gradient. The latents of all sites count as one, so that hierarchies are right too. With a
    `kl_weight` b, s_k^2 becomes (1 - b) s_k + b s_k^2. Tucker, Lawson, Gu and Maddison (2019),
    Doubly reparameterized gradient estimators, https://arxiv.org/abs/1810.04152.

    Args:
        num_particles: draws a row, K; with one, this is `STL`.
        kl_weight, chunk_size: as in `IWAE`.
        site: name of the data site.

    Raises:
        ValueError: as `IWAE`.

    Example:
        >>> from jax import random
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.numpyro import DReG, VAE, fit
        >>> x, objective = digits(binary=True).x_train, DReG(num_particles=5)
        >>> fit(random.key(0), VAE((64,), 4), x, objective=objective, num_steps=20).losses.shape
        (20,)
    """

    def value(self, key: Array, program: Program) -> Array:
        """Return the bound of each row, shape (B,)."""
        z = draw(key, program, self.num_particles)
        fixed = lax.stop_gradient(z)
        log_weight, terms, slope = with_slopes(lambda z: self.weights_at(program, z), fixed)
        share = shares(log_weight)
        draws = Draws(fixed, terms, share, only(share > 0, slope))

        along_path = inner(draws.slope, z)
        through_model = self.through_model(program, draws)
        surrogate = self.guide_coefficient(share) * along_path + through_model
        return with_gradient_of(log_mean_exp(log_weight), surrogate.sum(0))

    def weights_at(self, program: Program, z: Latents) -> tuple[Array, Terms]:
        """Return log w_k, shape (K, B), and its terms."""
        terms = log_terms(program, z, self.chunk_size)
        return self.weigh(terms), terms

    def weigh(self, terms: Terms) -> Array:
        """Return log w_k, shape (K, B)."""
        return terms.log_observed + times(self.kl_weight, terms.log_prior - terms.log_q)

    def guide_coefficient(self, share: Array) -> Array:
        """Return what multiplies d log w_k / d z_k d z_k / d phi, shape (K, B)."""
        return (1 - self.kl_weight) * share + self.kl_weight * share**2

    def through_model(self, program: Program, draws: Draws) -> Array:
        """Return what has the gradient for the model, shape (K, B)."""
        del program
        terms = draws.terms
        return times(draws.share, terms.log_observed + times(self.kl_weight, terms.log_prior))
