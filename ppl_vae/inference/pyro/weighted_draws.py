"""Draws of the guide with the log densities of every site: what importance weights are made of.

Shapes: S particles, B rows.
"""

from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor

from ppl_vae.inference.pyro.model_masks import without_mask
from ppl_vae.inference.pyro.program import Latents, Program
from ppl_vae.inference.pyro.row_blocks import at_once
from ppl_vae.inference.pyro.support import likelihood_within, log_prob_within

__all__ = ["WeightedDraws", "draw_latents", "draw_weighted"]

PARTICLES_PER_DRAW = 128  # whatever the chunks: the draws must not depend on them


class WeightedDraws(NamedTuple):
    """Draws z_s ~ q(z | x_o), each (S, B, ...), and their log densities, each (S, B), in nats."""

    z: Latents
    log_q: Latents  # log q(z_l | ...) of every latent site
    log_prior: Latents  # log p(z_l | ...) of every latent site
    log_observed: Tensor  # log p(x_o | z_s), and of other observed sites

    @property
    def log_joint(self) -> Tensor:
        """log p(x_o, z_s), shape (S, B)."""
        return sum(self.log_prior.values(), self.log_observed)

    @property
    def log_weight(self) -> Tensor:
        """log p(x_o, z_s) - log q(z_s | x_o), shape (S, B)."""
        return self.log_joint - sum(self.log_q.values(), torch.zeros(()))


@torch.no_grad()
def draw_weighted(program: Program, num_particles: int, chunk_size: int) -> WeightedDraws:
    """Draw z_s ~ q(z | x_o) and weigh them; `chunk_size` rows are decoded at a time."""
    size, parts = at_once(chunk_size, program), []
    with pyro.validation_enabled(False):  # of every number; the program was checked before
        for first in range(0, num_particles, PARTICLES_PER_DRAW):
            z, log_q = _draw(program, min(PARTICLES_PER_DRAW, num_particles - first))
            chunks = zip(*(value.split(size) for value in z.values()), strict=True)
            decoded = [_decode(program, dict(zip(z, chunk, strict=True))) for chunk in chunks]
            parts.append(WeightedDraws(z, log_q, *_joined(decoded)))
    return WeightedDraws(*_joined(parts))


@torch.no_grad()
def draw_latents(program: Program, num_particles: int, chunk_size: int) -> Latents:
    """Draw z_s ~ q(z | x_o), shape (S, B, ...), the same draws as `draw_weighted`."""
    del chunk_size
    with pyro.validation_enabled(False):
        sizes = [
            min(PARTICLES_PER_DRAW, num_particles - first)
            for first in range(0, num_particles, PARTICLES_PER_DRAW)
        ]
        (z,) = _joined([(_draw(program, size)[0],) for size in sizes])
    return z


def _draw(program: Program, num_particles: int) -> tuple[Latents, Latents]:
    """Draw z_s ~ q(z | x_o) and return log q(z_l | ...); a guide with one site is run once."""
    sites = program.trace_guide(program.x_obs)
    if len(sites) == 1:  # several may hang together
        ((name, site),) = sites.items()
        value = site["fn"].sample(torch.Size((num_particles,)))
        return {name: value}, {name: log_prob_within(site["fn"], value)}

    x = program.x_obs.expand(num_particles, *program.x_obs.shape)
    return _values_and_log_probs(program.trace_guide(x))


def _decode(program: Program, z: Latents) -> tuple[Latents, Tensor]:
    """Return log p(z_l | ...) of every latent site, and log p of all that is observed."""
    sites = program.trace_model(z=z)
    log_observed = program.log_observed(without_mask(sites.pop(program.site)["fn"]))
    _, log_p = _values_and_log_probs(sites)
    log_prior = {name: log_p.pop(name) for name in z}
    log_observed = sum(log_p.values(), log_observed)
    return log_prior, likelihood_within(sum(log_prior.values(), torch.zeros(())), log_observed)


def _values_and_log_probs(sites: dict[str, dict[str, Any]]) -> tuple[Latents, Latents]:
    log_probs = {n: log_prob_within(site["fn"], site["value"]) for n, site in sites.items()}
    return {name: site["value"] for name, site in sites.items()}, log_probs


def _joined(parts: list[Any]) -> list[Any]:
    """Concatenate tensors and dicts of them along the particles, field by field."""
    joined: list[Any] = []
    for field in zip(*parts, strict=True):
        if isinstance(field[0], dict):
            joined.append({name: torch.cat([part[name] for part in field]) for name in field[0]})
        else:
            joined.append(torch.cat(list(field)))
    return joined
