"""Gradients of importance-weighted bounds that do not drown in noise as particles are added.

Shapes: K particles, B rows.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.inference.pyro.importance_weighted import IWAE
from ppl_vae.inference.pyro.particles import (
    Sites,
    Terms,
    decode,
    draw_particles,
    inner,
    log_mean_exp,
    log_terms,
    only,
    rerun,
    shares,
    slopes,
    times,
    values,
    with_gradient_of,
    without_gradient,
)
from ppl_vae.inference.pyro.program import Latents, Program

__all__ = ["DReG", "Draws"]


class Draws(NamedTuple):
    """K draws of the latents without gradient, and their importance weights."""

    z: Latents  # (K, B, ...)
    model: Sites  # the sites of the model at z, but the data's
    terms: Terms  # with the gradients of model and guide
    share: Tensor  # (K, B), w_k / sum_j w_j
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
        >>> import pyro
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.pyro import DReG, VAE, fit
        >>> pyro.set_rng_seed(0)
        >>> x, objective = digits(binary=True).x_train, DReG(num_particles=5)
        >>> fit(VAE((64,), 4), x, objective=objective, num_steps=20).losses.shape
        (20,)
    """

    @torch.enable_grad()  # type: ignore[untyped-decorator]
    def value(self, program: Program) -> Tensor:
        """Return the bound of each row, shape (B,)."""
        guide = draw_particles(program, self.num_particles)
        fixed = without_gradient(values(guide))
        log_observed, model = decode(program, fixed, self.chunk_size)
        terms = log_terms(log_observed, model, rerun(program, guide, fixed))
        log_weight = self.weigh(terms)
        share = shares(log_weight)
        slope = only(share > 0, slopes(log_weight, fixed))
        draws = Draws(fixed, model, terms, share, slope)

        along_path = inner(slope, values(guide))
        surrogate = self.guide_coefficient(share) * along_path + self.through_model(draws)
        return with_gradient_of(log_mean_exp(log_weight), surrogate.sum(0))

    def weigh(self, terms: Terms) -> Tensor:
        """Return log w_k, shape (K, B)."""
        return terms.log_observed + times(self.kl_weight, terms.log_prior - terms.log_q)

    def guide_coefficient(self, share: Tensor) -> Tensor:
        """Return what multiplies d log w_k / d z_k d z_k / d phi, shape (K, B)."""
        return (1 - self.kl_weight) * share + self.kl_weight * share**2

    def through_model(self, draws: Draws) -> Tensor:
        """Return what has the gradient for the model, shape (K, B)."""
        terms = draws.terms
        return times(draws.share, terms.log_observed + times(self.kl_weight, terms.log_prior))
