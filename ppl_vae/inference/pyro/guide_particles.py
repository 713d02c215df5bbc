"""K runs of a guide that share its encoder: torch maps the program, as `jax.vmap` does in the twin.

What does not depend on a particle is computed once for all; a guide that torch cannot map, such as
one that branches on values, is run on K copies of the rows instead.  Shapes: K particles, B rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyro
import torch
from torch import Tensor

from ppl_vae.inference.pyro.mcmc import random_state, set_random_state
from ppl_vae.inference.pyro.program import Latents, Program
from ppl_vae.inference.pyro.rows import map_tensors

__all__ = ["Sites", "rerun", "run_particles"]

Sites = dict[str, dict[str, Any]]
"""The sample sites of a run of a program, by name."""


@dataclass
class Seen:
    """What earlier runs have shown of a guide, so that it is tried once and not at each step."""

    has_several_sites: bool = False
    cannot_map: bool = False


@lru_cache(maxsize=256)
def _seen(guide: Callable[..., Any]) -> Seen:
    del guide
    return Seen()


def run_particles(program: Program, num_particles: int) -> Sites:
    """Draw z_k ~ q(z | x_o), each site's values (K, B, ...) and distribution."""
    seen = _seen(program.guide)
    if num_particles > 1 and seen.has_several_sites:
        return _several(program, num_particles, {})
    device = program.x_obs.device
    before = random_state(device)
    sites = program.trace_guide(program.x_obs)
    if num_particles == 1:
        return {name: {**site, "value": site["value"][None]} for name, site in sites.items()}
    if len(sites) > 1:
        seen.has_several_sites = True
        set_random_state(before, device)  # a first run must not draw other numbers than a second
        return _several(program, num_particles, {})
    ((name, site),) = sites.items()
    return {name: {**site, "value": site["fn"](torch.Size((num_particles,)))}}


def rerun(program: Program, guide: Sites, z: Latents) -> Sites:
    """Return the guide's sites at other values, (K, B, ...)."""
    if len(guide) == 1:
        return {name: {**site, "value": z[name]} for name, site in guide.items()}
    num_particles = len(next(iter(z.values())))  # a site's distribution depends on those before it
    if num_particles > 1:
        return _several(program, num_particles, z)
    sites = program.trace_guide(program.x_obs, z={name: value[0] for name, value in z.items()})
    return {name: {**site, "value": z[name]} for name, site in sites.items()}


def _several(program: Program, num_particles: int, z: Latents) -> Sites:
    """Run a guide of several sites at z, or with draws of its own."""
    seen = _seen(program.guide)
    if not seen.cannot_map:
        device = program.x_obs.device
        before = random_state(device)
        try:
            return _mapped(program, num_particles, z)
        except RuntimeError:  # as torch refuses; a fault of the guide itself comes again below
            seen.cannot_map = True
            set_random_state(before, device)
    return program.trace_guide(program.x_obs.expand(num_particles, *program.x_obs.shape), z=z)


def _mapped(program: Program, num_particles: int, z: Latents) -> Sites:
    """Run the guide under `torch.func.vmap`, from which nothing but tensors can leave."""
    skeleton: dict[str, Any] = {}

    def run(_: Tensor, z: Latents) -> tuple[Tensor, ...]:
        leaving: list[Tensor] = []

        def leave(tensor: Tensor) -> Tensor:
            leaving.append(tensor)
            return torch.empty(tensor.shape, device="meta")

        for name, site in program.trace_guide(program.x_obs, z=z).items():
            parts = {"fn": site["fn"], "value": site["value"]}
            skeleton[name] = map_tensors(leave, parts)
        return tuple(leaving)

    with pyro.validation_enabled(False):
        each = torch.func.vmap(run, randomness="different")(torch.empty(num_particles), z)
    arriving = iter(each)
    axes = torch.Size((num_particles, len(program.x_obs)))
    sites: Sites = map_tensors(lambda _: next(arriving), skeleton, lead=axes)
    return sites
