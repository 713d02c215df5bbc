"""Opening a weight file as a trained program."""

import os
from collections.abc import Mapping
from typing import Any

from ppl_vae.inference.numpyro.svi import Fitted
from ppl_vae.models.numpyro.conditional_vae import ConditionalVAE
from ppl_vae.models.numpyro.hierarchical import HierarchicalVAE
from ppl_vae.models.numpyro.vae import VAE
from ppl_vae.models.record import architecture_of, program_of
from ppl_vae.weights import read_weights

__all__ = ["load"]

Saved = VAE | HierarchicalVAE | ConditionalVAE

PROGRAMS: dict[str, Any] = {
    "VAE": VAE, "HierarchicalVAE": HierarchicalVAE, "ConditionalVAE": ConditionalVAE
}  # fmt: skip


def load(path: str | os.PathLike[str], *, vae: Saved | None = None) -> Fitted:
    """Open what `Fitted.save` wrote, in this twin or in the other one.

    Args:
        path: a safetensors file.
        vae: the program that the weights belong to, a `VAE`, `HierarchicalVAE` or
            `ConditionalVAE`; needed only if it has nets of its own.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a damaged file, one without an architecture, weights of another program or
            architecture, or own nets without `vae`.

    Example:
        >>> import tempfile
        >>> from ppl_vae.numpyro import Fitted, VAE, load
        >>> path = tempfile.mkdtemp() + "/vae.safetensors"
        >>> vae = VAE((64,), latent_dim=8)
        >>> from jax import random
        >>> Fitted(vae, vae.initial_params(random.key(0))).save(path)
        >>> load(path).program.latent_dim
        8
    """
    weights, header = read_weights(path)
    architecture = architecture_of(header, str(path))
    if vae is None:
        vae = _program(architecture, str(path))
    else:
        vae.record.require_same(architecture, str(path))
    return Fitted(vae, vae.from_weights(weights))


def _program(architecture: Mapping[str, Any], source: str) -> Any:
    name = program_of(architecture)
    if name not in PROGRAMS:
        raise ValueError(
            f"{source} holds weights of a {name}; this ppl_vae knows {', '.join(PROGRAMS)}. "
            "Upgrade ppl_vae."
        )
    return PROGRAMS[name].from_architecture(architecture)
