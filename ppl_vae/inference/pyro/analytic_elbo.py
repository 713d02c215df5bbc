"""The evidence lower bound with closed-form divergences.

Shapes: K particles, B rows.
"""

import torch
from pyro.distributions import Independent, MaskedDistribution
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from ppl_vae.inference.pyro.objectives import ELBO
from ppl_vae.inference.pyro.particles import (
    Sites,
    decode,
    draw_particles,
    log_prob,
    times,
    values,
)
from ppl_vae.inference.pyro.program import Program

__all__ = ["AnalyticELBO"]


class AnalyticELBO(ELBO):
    """The evidence lower bound with its divergences in closed form.

        mean over k of  log p(x_o | z_k) - kl_weight KL(q(z | x) || p(z)),  z_k ~ q(z | x)

    Several latent sites have one divergence each, given the sites that the guide drew before. A
    site that the model draws from one which the guide draws later has none in closed form, such as
    p(z_1 | z_2) where the guide goes upwards: log q - log p of its draw stands for it, as in
    `ELBO`. Kingma and Welling (2014), eq. 7, https://arxiv.org/abs/1312.6114.

    Args:
        num_particles: draws a row, K.
        kl_weight, chunk_size: as in `ELBO`.
        site: name of the data site.

    Raises:
        ValueError: as `ELBO`; when run, if the guide samples a site that the model has not.
        NotImplementedError: when run, if a site's divergence has no closed form.

    Example:
        >>> import pyro
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.pyro import AnalyticELBO, VAE, fit
        >>> pyro.set_rng_seed(0)
        >>> x, objective = digits(binary=True).x_train, AnalyticELBO(num_particles=2)
        >>> fit(VAE((64,), 4), x, objective=objective, num_steps=20).losses.shape
        (20,)
    """

    def log_weight(self, program: Program) -> Tensor:
        """Return log p(x_o | z_k) - kl_weight KL(q(z | x) || p(z)), shape (K, B)."""
        guide = draw_particles(program, self.num_particles)
        log_observed, latent = decode(program, values(guide), self.chunk_size)
        return log_observed - times(self.kl_weight, divergence(guide, latent))


def divergence(guide: Sites, model: Sites) -> Tensor:
    """Return the sum over latent sites of KL(q || p), shape (K, B)."""
    drawn_before = {name: set(list(guide)[:i]) for i, name in enumerate(guide)}
    parents: set[str] = set()  # latent sites that the model drew before
    total = torch.zeros(())
    for name, site in model.items():
        if parents <= drawn_before[name]:
            total = total + site_divergence(name, guide[name]["fn"], site["fn"])
        else:
            total = total + log_prob({name: guide[name]}) - log_prob({name: site})
        parents.add(name)
    return total


def site_divergence(name: str, q: Distribution, p: Distribution) -> Tensor:
    """Return KL(q || p) of the site `name`."""
    try:
        return kl_divergence(q, p)
    except NotImplementedError as error:
        raise NotImplementedError(
            f"KL(q || p) of site {name!r} has no closed form here: {_family(q)} in the guide, "
            f"{_family(p)} in the model. Use ELBO() or STL(), which estimate it by draws."
        ) from error


def _family(d: Distribution) -> str:
    while isinstance(d, Independent | MaskedDistribution):
        d = d.base_dist
    return type(d).__name__
