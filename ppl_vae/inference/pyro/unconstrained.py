"""Latents in unconstrained coordinates, where gradient-based moves are made.

A site of constrained support is mapped by the host's own bijection, z = t(u), and a density of z
becomes one of u by the factor |dz/du|. Supports may depend on other latents.
"""

from collections.abc import Iterable
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from ppl_vae.inference.pyro.mwg import Decoded, decode
from ppl_vae.inference.pyro.program import Latents, Program
from ppl_vae.inference.pyro.rows import unfold_rows

__all__ = ["decode_unconstrained", "require_continuous", "to_unconstrained"]


def require_continuous(program: Program) -> None:
    """Raise a `ValueError` that names the latent sites without a gradient."""
    sites = program.trace_model()
    discrete = sorted(
        name
        for name, site in sites.items()
        if not site["is_observed"] and site["fn"].support.is_discrete
    )
    if discrete:
        raise ValueError(
            f"Latent sites {discrete} of the model are discrete, so that there is no gradient to "
            "follow. Use MWGKernel, ACMWGKernel or LAIRKernel, or sum these sites out in the model."
        )


def to_unconstrained(program: Program, z: Latents) -> tuple[Latents, Tensor]:
    """Return u with z = t(u), and log |dz/du| per row, shape (C, B)."""
    sites = program.trace_model(z=z, until=frozenset(z))
    transforms = {name: biject_to(sites[name]["fn"].support) for name in z}
    u = {name: transforms[name].inv(value) for name, value in z.items()}
    each = [_log_det(transforms[name], u[name], z[name], 2) for name in z]
    return u, torch.stack(each).sum(0)


def decode_unconstrained(program: Program, u: Latents) -> tuple[Decoded, Tensor]:
    """Run the model once at z = t(u); return what it says of z, and log |dz/du| per row, (C, B)."""
    at = _Constrain(u)
    with at:
        decoded = decode(program, u)
    joined = {name: (torch.cat(z), torch.cat(log_det)) for name, (z, log_det) in at.sites.items()}
    joined = unfold_rows(joined, decoded.log_prior.shape)
    log_det = torch.stack([log_det for _, log_det in joined.values()]).sum(0)
    return decoded._replace(z={name: z for name, (z, _) in joined.items()}), log_det


class _Constrain(Messenger):
    """Takes the values that the sites are given for unconstrained ones.

    A program that cannot be run on copies of the rows is run for each of them in turn.
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.names = names
        self.sites: dict[str, tuple[list[Tensor], list[Tensor]]] = {}  # z and log |dz/du|

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.names and msg["value"] is not None:
            transform, u = biject_to(msg["fn"].support), msg["value"]
            msg["value"] = transform(u)
            z, log_det = self.sites.setdefault(msg["name"], ([], []))
            z.append(msg["value"])
            log_det.append(_log_det(transform, u, msg["value"], 1))


def _log_det(transform: Any, u: Tensor, z: Tensor, num_axes: int) -> Tensor:
    log_det = transform.log_abs_det_jacobian(u, z)
    return log_det.reshape(*log_det.shape[:num_axes], -1).sum(-1)
