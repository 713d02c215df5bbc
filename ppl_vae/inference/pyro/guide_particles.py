"""K runs of a guide that share its encoder: torch maps the program, as `jax.vmap` does in the twin.

What does not depend on a particle is computed once for all; a guide that torch cannot map, such as
one that branches on values, is run on K copies of the rows instead.  A guide that draws more than
its sites, dropout masks say, is rerun with the random numbers it drew with.  Shapes: K particles,
B rows.
"""

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

from ppl_vae.inference.pyro.compiled import is_recording
from ppl_vae.inference.pyro.findings import findings
from ppl_vae.inference.pyro.kernel_state import random_state, set_random_state
from ppl_vae.inference.pyro.program import Latents, Program
from ppl_vae.inference.pyro.rows import map_tensors

__all__ = ["Sites", "rerun", "run_particles"]

Sites = dict[str, dict[str, Any]]
"""The sample sites of a run of a program, by name; those drawn say what random state was before."""


def run_particles(program: Program, num_particles: int) -> Sites:
    """Draw z_k ~ q(z | x_o), each site's values (K, B, ...) and distribution."""
    before = random_state(program.x_obs.device)
    sites = program.trace_guide(program.x_obs)
    if num_particles == 1:
        return {
            name: {**site, "value": site["value"][None], "before": before}
            for name, site in sites.items()
        }
    if len(sites) > 1:
        before = random_state(program.x_obs.device)
        drawn = _or_on_copies(
            program,
            num_particles,
            lambda: _one_by_one(program, sites, num_particles),
            program.trace_guide,
        )
        return {name: {**site, "before": before} for name, site in drawn.items()}
    ((name, site),) = sites.items()
    return {name: {**site, "value": site["fn"](torch.Size((num_particles,)))}}


def rerun(program: Program, guide: Sites, z: Latents) -> Sites:
    """Return the guide's sites at other values, (K, B, ...), all else that it drew as before."""
    if len(guide) == 1:
        return {name: {**site, "value": z[name]} for name, site in guide.items()}
    before = next(iter(guide.values()))["before"]
    num_particles = len(next(iter(z.values())))  # a site's distribution depends on those before it
    if num_particles > 1:
        return _or_on_copies(
            program,
            num_particles,
            lambda: _mapped(program, z),
            lambda x: _trace_again(program, x, z, before),
        )
    only = {name: value[0] for name, value in z.items()}
    sites = _trace_again(program, program.x_obs, only, before)
    return {name: {**site, "value": z[name]} for name, site in sites.items()}


def _or_on_copies(
    program: Program,
    num_particles: int,
    run: Callable[[], Sites],
    run_on: Callable[[Tensor], Sites],
) -> Sites:
    """Return what `run` does, or where torch cannot, what `run_on` does on K copies of the rows."""
    seen, device = findings(program.guide), program.x_obs.device
    if not seen.cannot_map:
        before = random_state(device)
        try:
            return run()
        except RuntimeError:  # as torch refuses; a fault of the guide itself comes again below
            seen.cannot_map = True
            set_random_state(before, device)  # a first run must draw what a second does
    return run_on(program.x_obs.expand(num_particles, *program.x_obs.shape))


def _trace_again(program: Program, x: Tensor, z: Latents, before: Tensor) -> Sites:
    """Run the guide at z with the random numbers of the run that began with the state `before`."""
    device = program.x_obs.device
    now = random_state(device)
    if is_recording():  # operations are recorded, and not what their random numbers begin with
        sites = program.trace_guide(x, z=z)
        with disable_proxy_modes_tracing():
            if not torch.equal(now, random_state(device)):
                raise NotImplementedError(REPEATED)
        return sites
    set_random_state(before, device)
    with _DrawInVain():
        sites = program.trace_guide(x, z=z)
    set_random_state(now, device)
    return sites


REPEATED = (
    "jit_compile cannot repeat what a guide of several sites draws besides them, dropout masks "
    "say, and this objective runs the guide twice: use IWAE(), call `eval()` on the guide's nets, "
    "or leave jit_compile out."
)


class _DrawInVain(Messenger):
    """Draws at sites whose values are given, so that what comes after has the same numbers."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["done"] and not msg["is_observed"]:
            with torch.no_grad():
                msg["fn"](*msg["args"], **msg["kwargs"])


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
