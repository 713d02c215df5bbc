"""Fitting the guide alone to a model as it stands, by draws from the model."""

import jax.numpy as jnp
from jax import Array, lax, random

from ppl_vae.incomplete_data import take_data_site
from ppl_vae.inference.numpyro.model_masks import without_mask
from ppl_vae.inference.numpyro.objectives import Objective
from ppl_vae.inference.numpyro.program import Program

__all__ = ["ForwardKL"]


class ForwardKL(Objective):
    """The guide's log density at draws from the model, which stays as it is.

        log q(z | x_o),  (z, x) ~ p(z, x),  x_o = the entries of x that the batch's mask shows

    Its maximum is the guide closest to p(z | x_o) in KL(p || q), on average over the model's own
    data: it covers all modes, and fits a guide to incomplete rows if it is trained with masks.
    Of the batch, it uses the number of rows, the masks and the further arguments (labels), and
    not the data. No gradient reaches the model. Latents may be discrete. This is the sleep phase
    of Hinton et al. (1995); Bornschein and Bengio (2015), Reweighted wake-sleep,
    https://arxiv.org/abs/1406.2751.

    Args:
        site: name of the data site.

    Example:
        >>> from jax import random
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.numpyro import VAE, fit
        >>> x = digits(binary=True).x_train
        >>> fitted = fit(random.key(0), VAE((64,), 4), x, num_steps=20)
        >>> refitted = fit(random.key(1), fitted, x, objective="forward-kl", num_steps=20)
        >>> refitted.losses.shape
        (20,)
    """

    can_infer_discrete = True  # or NumPyro's SVI warns of discrete latents

    def value(self, key: Array, program: Program) -> Array:
        """Return log q(z | x_o) at a draw for each row, shape (B,)."""
        z, x = draw_from_model(key, program)
        return program.log_proposal(z, jnp.where(program.mask, x, jnp.zeros_like(x)))


def draw_from_model(key: Array, program: Program) -> tuple[dict[str, Array], Array]:
    """Draw (z, x) ~ p(z, x), one pair for each row of the batch, without gradient."""
    key_z, key_x = random.split(key)
    sites = program.trace_model(key=key_z)
    x = without_mask(take_data_site(sites, program.site)["fn"]).sample(key_x)
    z = {name: site["value"] for name, site in sites.items() if not site["is_observed"]}
    return lax.stop_gradient((z, x.astype(program.x_obs.dtype)))
