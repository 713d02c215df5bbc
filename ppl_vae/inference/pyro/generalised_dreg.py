"""Doubly reparameterised gradients for learned priors too.

Shapes: K particles, B rows.
"""

from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor
from torch.distributions import (
    Cauchy,
    Independent,
    Laplace,
    Normal,
    TransformedDistribution,
)

from ppl_vae.inference.pyro.doubly_reparameterised import Draws, DReG
from ppl_vae.inference.pyro.particles import (
    Sites,
    at,
    inner,
    log_prob,
    only,
    slopes,
    times,
    without_gradient,
)
from ppl_vae.inference.pyro.program import Latents

__all__ = ["GDReG", "redraw"]


class GDReG(DReG):
    """The importance-weighted bound, its gradients for guide and prior reparameterised twice.

        s_k d log p(z_k) / d theta  ->  c_k d T(e_k; theta) / d theta,  z_k = T(e_k; theta) ~ p(z),
        c_k = s_k ((1 - s_k) d log w_k / d z_k + d log q(z_k | x) / d z_k - d log p(z_k) / d z_k)

    As `DReG`, with the arrow at each latent site's density in the model: a learned prior, one that
    depends on labels, or a layer p(z_1 | z_2) of a hierarchy. The expected gradients are those of
    `IWAE`. Bauer and Mnih (2021), Generalized doubly reparameterized gradient estimators,
    https://arxiv.org/abs/2101.11046.

    Args:
        num_particles: draws a row, K.
        kl_weight, chunk_size: as in `IWAE`.
        site: name of the data site.

    Raises:
        ValueError: as `IWAE`.
        NotImplementedError: when run, if the model draws a latent neither from a normal, Laplace
            or Cauchy distribution nor from a transform of one.

    Example:
        >>> import pyro
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.pyro import GDReG, VAE, fit
        >>> pyro.set_rng_seed(0)
        >>> x, objective = digits(binary=True).x_train, GDReG(num_particles=5)
        >>> fit(VAE((64,), 4), x, objective=objective, num_steps=20).losses.shape
        (20,)
    """

    def through_model(self, draws: Draws) -> Tensor:
        """Return what has the gradient for the model, shape (K, B)."""
        share = draws.share
        z = without_gradient(without_zeros(share, draws.z))
        redrawn = redraw_all(draws.model, z)
        log_prior = log_prob(at(draws.model, z))
        slope_q = only(share > 0, slopes(draws.terms.log_q, draws.z))
        slope_p = slopes(log_prior, z)

        of_densities = inner(slope_q, redrawn) - inner(slope_p, redrawn)
        reparameterised = (1 - share) * inner(draws.slope, redrawn) + of_densities
        instead = times(share, reparameterised - log_prior)
        return super().through_model(draws) + self.kl_weight * instead


def without_zeros(share: Tensor, z: Latents) -> Latents:
    """Return z with its particles of no weight replaced by the row's heaviest.

    They do not count, but what lies outside of the prior's support has no noise that drew it.
    """
    best, rows = share.argmax(0), torch.arange(share.shape[1], device=share.device)
    return only(share > 0, z, {name: value[best, rows] for name, value in z.items()})


def redraw_all(model: Sites, z: Latents) -> Latents:
    """Return z as the model draws it, each site given the others."""
    return {name: redraw(name, model[name]["fn"], value) for name, value in z.items()}


def redraw(name: str, d: Any, z: Tensor) -> Tensor:
    """Return z, with the gradient of a draw from the distribution `d` that came out as z.

        T(e; theta),  e = T^-1(z; theta) without gradient

    Raises:
        NotImplementedError: for a distribution whose sampler is not known; names the site.
    """
    while isinstance(d, Independent | MaskedDistribution):
        d = d.base_dist
    if isinstance(d, TransformedDistribution):
        return _redraw_transformed(name, d, z)
    if not isinstance(d, Normal | Laplace | Cauchy):
        raise NotImplementedError(
            f"The model draws site {name!r} from a {type(d).__name__}; GDReG knows how z depends "
            "on the parameters of normal, Laplace and Cauchy distributions and of their "
            "transforms. Use DReG(), which is right for every prior."
        )
    return d.loc + d.scale * ((z - d.loc) / d.scale).detach()


def _redraw_transformed(name: str, d: Any, z: Tensor) -> Tensor:
    inverse = z
    for transform in reversed(d.transforms):
        inverse = transform.inv(inverse)
    z = redraw(name, d.base_dist, inverse)
    for transform in d.transforms:
        z = transform(z)
    return z
