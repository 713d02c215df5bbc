"""Latents in unconstrained coordinates, where gradient-based moves are made.

A site of constrained support is mapped by the host's own bijection, z = t(u), and a density of z
becomes one of u by the factor |dz/du|. Supports may depend on other latents.
"""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
from jax import Array
from numpyro.distributions import biject_to
from numpyro.primitives import Messenger

from ppl_vae.inference.numpyro.mwg import Decoded, decode
from ppl_vae.inference.numpyro.program import Latents, Program

__all__ = ["decode_unconstrained", "require_continuous", "to_unconstrained"]


def require_continuous(key: Array, program: Program) -> None:
    """Raise a `ValueError` that names the latent sites without a gradient."""
    sites = program.trace_model(key=key)
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


def to_unconstrained(program: Program, z: Latents) -> tuple[Latents, Array]:
    """Return u with z = t(u), and log |dz/du| per row, shape (B,)."""
    sites = program.trace_model(z=z)
    transforms = {name: biject_to(sites[name]["fn"].support) for name in z}
    u = {name: transforms[name].inv(value) for name, value in z.items()}
    log_det = sum(_log_det(transforms[name], u[name], z[name]) for name in z)
    return u, jnp.asarray(log_det)


def decode_unconstrained(program: Program, u: Latents) -> tuple[Decoded, Array]:
    """Run the model once at z = t(u); return what it says of z, and log |dz/du| per row, (B,)."""
    at = _Constrain(u)
    with at:
        decoded = decode(program, u)
    return decoded._replace(z=at.z), jnp.asarray(at.log_det)


class _Constrain(Messenger):
    """Takes the values that the sites are given for unconstrained ones."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.names = names
        self.z: Latents = {}
        self.log_det: Any = 0.0

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and msg["name"] in self.names:
            transform, u = biject_to(msg["fn"].support), msg["value"]
            z = transform(u)
            self.z[msg["name"]] = msg["value"] = z
            self.log_det += _log_det(transform, u, z)


def _log_det(transform: Any, u: Array, z: Array) -> Array:
    log_det = transform.log_abs_det_jacobian(u, z)
    return log_det.reshape(log_det.shape[0], -1).sum(-1)
