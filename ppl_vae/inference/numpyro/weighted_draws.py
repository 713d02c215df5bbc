"""Draws of the guide with the log densities of every site: what importance weights are made of.

Shapes: S particles, B rows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random

from ppl_vae.inference.numpyro.model_masks import without_mask
from ppl_vae.inference.numpyro.program import Latents, Program
from ppl_vae.inference.numpyro.row_blocks import at_once
from ppl_vae.inference.numpyro.support import likelihood_within, log_prob_within

__all__ = ["WeightedDraws", "draw_latents", "draw_weighted"]


class WeightedDraws(NamedTuple):
    """Draws z_s ~ q(z | x_o), each (S, B, ...), and their log densities, each (S, B), in nats."""

    z: Latents
    log_q: Latents  # log q(z_l | ...) of every latent site
    log_prior: Latents  # log p(z_l | ...) of every latent site
    log_observed: Array  # log p(x_o | z_s), and of other observed sites

    @property
    def log_joint(self) -> Array:
        """log p(x_o, z_s), shape (S, B)."""
        return sum(self.log_prior.values(), self.log_observed)

    @property
    def log_weight(self) -> Array:
        """log p(x_o, z_s) - log q(z_s | x_o), shape (S, B)."""
        return self.log_joint - sum(self.log_q.values(), jnp.zeros(()))


def draw_weighted(
    key: Array, program: Program, num_particles: int, chunk_size: int
) -> WeightedDraws:
    """Draw z_s ~ q(z | x_o) and weigh them; `chunk_size` rows are decoded at a time."""

    def of_one_particle(key: Array) -> WeightedDraws:
        guide = program.trace_guide(program.x_obs, key=key)
        z = {name: site["value"] for name, site in guide.items()}
        model = program.trace_model(z=z)
        likelihood = without_mask(model.pop(program.site)["fn"])
        log_observed = program.log_observed(likelihood)
        log_p = _log_probs(model)
        log_prior = {name: log_p.pop(name) for name in z}
        log_observed = sum(log_p.values(), log_observed)
        log_observed = likelihood_within(sum(log_prior.values(), jnp.zeros(())), log_observed)
        return WeightedDraws(z, _log_probs(guide), log_prior, log_observed)

    keys = random.split(key, num_particles)
    return jax.lax.map(of_one_particle, keys, batch_size=at_once(chunk_size, program))


def draw_latents(key: Array, program: Program, num_particles: int, chunk_size: int) -> Latents:
    """Draw z_s ~ q(z | x_o), shape (S, B, ...), the same draws as `draw_weighted`."""
    return jax.lax.map(
        lambda key: program.propose(key, program.x_obs),
        random.split(key, num_particles),
        batch_size=at_once(chunk_size, program),
    )


def _log_probs(sites: dict) -> Latents:
    return {name: log_prob_within(site["fn"], site["value"]) for name, site in sites.items()}
