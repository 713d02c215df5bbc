"""Whether chains and particles can be folded into rows before a program runs."""

import warnings

import pyro
import torch

from ppl_vae.inference.pyro.findings import findings
from ppl_vae.inference.pyro.program import Latents, Program

__all__ = ["learn_to_fold"]


def learn_to_fold(program: Program) -> None:
    """Try model and guide on two copies of the rows, and remember whether that is right.

    Of a program whose densities differ between runs, as with dropout, nothing but an error tells.

    One that takes other arrays of so many rows as a part of the data, or has a plate of a fixed
    size, is then run for each chain or particle in turn.
    """
    with pyro.validation_enabled(False):
        z = program.propose(program.x_obs)
        twice = {name: torch.stack([value, value]) for name, value in z.items()}
        x = torch.stack([program.x_obs, program.x_obs])
        for role, fn in (("model", program.model), ("guide", program.guide)):
            known = findings(fn)
            if known.cannot_fold:
                continue
            copies = program.x_obs.clone(), program.x_obs.clone()  # one x would be run once
            once, again = (_densities(role, program, copy, z) for copy in copies)
            try:
                folded = _densities(role, program, x, twice)
            except Exception:  # whatever the program raises at shapes that it does not know
                known.cannot_fold = True
            else:
                known.cannot_fold = _close(once, again) and not _close(folded, once)
            if known.cannot_fold:
                warnings.warn(
                    f"The {role} cannot be run on copies of the rows, so that each chain or "
                    "particle takes a run of its own, which is slower. Let plates have x.shape[0] "
                    "rows, and pass what has one entry a row as an argument.",
                    stacklevel=2,
                )


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b.expand_as(a), rtol=1e-3, atol=1e-3, equal_nan=True)


def _densities(role: str, program: Program, x: torch.Tensor, z: Latents) -> torch.Tensor:
    if role == "guide":
        return program.log_proposal(z, x)
    log_prior, log_others, likelihood = program.decode(z)
    return log_prior + log_others + program.log_observed(likelihood)
