"""K runs of a guide that share its encoder: torch maps the program, as `jax.vmap` does in the twin.

What does not depend on a particle is computed once for all; a guide that torch cannot map, such as
one that branches on values, is run on K copies of the rows instead.  Shapes: K particles, B rows.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor

from ppl_vae.inference.pyro.kernel_state import random_state, set_random_state
from ppl_vae.inference.pyro.program import Latents, Program
from ppl_vae.inference.pyro.rows import map_tensors

__all__ = ["Sites", "rerun", "run_particles"]

Sites = dict[str, dict[str, Any]]
"""The sample sites of a run of a program, by name."""


@dataclass
class Seen:
    """What an earlier run has shown of a guide, so that it is not tried again at each step."""

    cannot_map: bool = False


SEEN: dict[tuple[int, Any], tuple[Any, Seen]] = {}
"""By identity, for not all that can be called has a hash, and as long as a guide lives."""


def _seen(guide: Callable[..., Any]) -> Seen:
    owner, method = getattr(guide, "__self__", guide), getattr(guide, "__func__", None)
    key = (id(owner), method)
    if key not in SEEN:
        try:
            SEEN[key] = weakref.ref(owner, lambda _: SEEN.pop(key, None)), Seen()
        except TypeError:  # a class with slots, of which nothing can be remembered
            return Seen()
    return SEEN[key][1]


def run_particles(program: Program, num_particles: int) -> Sites:
    """Draw z_k ~ q(z | x_o), each site's values (K, B, ...) and distribution."""
    sites = program.trace_guide(program.x_obs)
    if num_particles == 1:
        return {name: {**site, "value": site["value"][None]} for name, site in sites.items()}
    if len(sites) > 1:
        return _or_on_copies(
            program, num_particles, lambda: _one_by_one(program, sites, num_particles)
        )
    ((name, site),) = sites.items()
    return {name: {**site, "value": site["fn"](torch.Size((num_particles,)))}}


def rerun(program: Program, guide: Sites, z: Latents) -> Sites:
    """Return the guide's sites at other values, (K, B, ...)."""
    if len(guide) == 1:
        return {name: {**site, "value": z[name]} for name, site in guide.items()}
    num_particles = len(next(iter(z.values())))  # a site's distribution depends on those before it
    if num_particles > 1:
        return _or_on_copies(program, num_particles, lambda: _mapped(program, z), z)
    sites = program.trace_guide(program.x_obs, z={name: value[0] for name, value in z.items()})
    return {name: {**site, "value": z[name]} for name, site in sites.items()}


def _or_on_copies(
    program: Program, num_particles: int, run: Callable[[], Sites], z: Latents | None = None
) -> Sites:
    """Return what `run` does, or where torch cannot, a run on K copies of the rows."""
    seen, device = _seen(program.guide), program.x_obs.device
    if not seen.cannot_map:
        before = random_state(device)
        try:
            return run()
        except RuntimeError:  # as torch refuses; a fault of the guide itself comes again below
            seen.cannot_map = True
            set_random_state(before, device)  # a first run must draw what a second does
    return program.trace_guide(program.x_obs.expand(num_particles, *program.x_obs.shape), z=z)


def _one_by_one(program: Program, sites: Sites, num_particles: int) -> Sites:
    """Draw each site at the draws of those before it; torch does not map draws themselves."""
    once = {name: site["value"].detach() for name, site in sites.items()}
    z = {name: value.expand(num_particles, *value.shape) for name, value in once.items()}
    drawn: Sites = {}
    for name, site in sites.items():
        fn = _mapped(program, z)[name]["fn"] if drawn else site["fn"]
        value = fn() if drawn else fn(torch.Size((num_particles,)))
        drawn[name] = {**site, "fn": fn, "value": value}
        z = {**z, name: value}
    return drawn


def _mapped(program: Program, z: Latents) -> Sites:
    """Run the guide at z under `torch.func.vmap`, from which nothing but tensors can leave."""
    skeleton: dict[str, Any] = {}

    def run(z: Latents) -> tuple[Tensor, ...]:
        leaving: list[Tensor] = []

        def leave(tensor: Tensor) -> Tensor:
            leaving.append(tensor)
            return torch.empty(tensor.shape, device="meta")

        for name, site in program.trace_guide(program.x_obs, z=z).items():
            parts = {"fn": site["fn"], "value": site["value"]}
            skeleton[name] = map_tensors(leave, parts)
        return tuple(leaving)

    with pyro.validation_enabled(False):
        each = torch.func.vmap(run)(z)
    arriving = iter(each)
    axes = torch.Size((len(next(iter(z.values()))), len(program.x_obs)))
    sites: Sites = map_tensors(lambda _: next(arriving), skeleton, lead=axes)
    return sites
