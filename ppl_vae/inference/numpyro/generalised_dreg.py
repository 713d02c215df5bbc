"""Doubly reparameterised gradients for learned priors too.

Shapes: K particles, B rows.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, lax

from ppl_vae.inference.numpyro.doubly_reparameterised import Draws, DReG
from ppl_vae.inference.numpyro.particles import inner, only, slopes, times
from ppl_vae.inference.numpyro.program import Latents, Program

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
        >>> from jax import random
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.numpyro import GDReG, VAE, fit
        >>> x, objective = digits(binary=True).x_train, GDReG(num_particles=5)
        >>> fit(random.key(0), VAE((64,), 4), x, objective=objective, num_steps=20).losses.shape
        (20,)
    """

    def through_model(self, program: Program, draws: Draws) -> Array:
        """Return what has the gradient for the model, shape (K, B)."""
        share, z = draws.share, without_zeros(draws.share, draws.z)
        slope_q = slopes(lambda z: log_q_at(program, z), z)
        slope_p = slopes(lambda at: log_prior_at(program, z, at), z)
        redrawn = redraw_all(program, z)

        of_densities = inner(slope_q, redrawn) - inner(slope_p, redrawn)
        reparameterised = (1 - share) * inner(draws.slope, redrawn) + of_densities
        instead = times(share, reparameterised - log_prior_at(program, z, z))
        return super().through_model(program, draws) + self.kl_weight * instead


def without_zeros(share: Array, z: Latents) -> Latents:
    """Return z with its particles of no weight replaced by the row's heaviest.

    They do not count, but what lies outside of the prior's support has no noise that drew it.
    """
    best, rows = share.argmax(0), jnp.arange(share.shape[1])
    return only(share > 0, z, {name: value[best, rows] for name, value in z.items()})


def log_q_at(program: Program, z: Latents) -> Array:
    """Return log q(z_k | x_o), shape (K, B)."""
    return jax.vmap(lambda z: program.log_proposal(z, program.x_obs))(z)


def log_prior_at(program: Program, z: Latents, at: Latents) -> Array:
    """Return the log densities of all latents at `at`, of distributions given z, shape (K, B)."""

    def of_one_particle(z: Latents, at: Latents) -> Array:
        sites = program.trace_model(z=z)
        return sum((sites[name]["fn"].log_prob(at[name]) for name in z), jnp.zeros(()))

    return jax.vmap(of_one_particle)(z, at)


def redraw_all(program: Program, z: Latents) -> Latents:
    """Return z as the model draws it, each site given the others."""

    def of_one_particle(z: Latents) -> Latents:
        sites = program.trace_model(z=z)
        return {name: redraw(name, sites[name]["fn"], value) for name, value in z.items()}

    return jax.vmap(of_one_particle)(z)


def redraw(name: str, d: Any, z: Array) -> Array:
    """Return z, with the gradient of a draw from the distribution `d` that came out as z.

        T(e; theta),  e = T^-1(z; theta) without gradient

    Raises:
        NotImplementedError: for a distribution whose sampler is not known; names the site.
    """
    while isinstance(d, dist.Independent | dist.ExpandedDistribution | dist.MaskedDistribution):
        d = d.base_dist
    if isinstance(d, dist.TransformedDistribution):
        return _redraw_transformed(name, d, z)
    if not isinstance(d, dist.Normal | dist.Laplace | dist.Cauchy):
        raise NotImplementedError(
            f"The model draws site {name!r} from a {type(d).__name__}; GDReG knows how z depends "
            "on the parameters of normal, Laplace and Cauchy distributions and of their "
            "transforms. Use DReG(), which is right for every prior."
        )
    return d.loc + d.scale * lax.stop_gradient((z - d.loc) / d.scale)


def _redraw_transformed(name: str, d: Any, z: Array) -> Array:
    inverse = z
    for transform in reversed(d.transforms):
        inverse = transform.inv(inverse)
    z = redraw(name, d.base_dist, inverse)
    for transform in d.transforms:
        z = transform(z)
    return z
