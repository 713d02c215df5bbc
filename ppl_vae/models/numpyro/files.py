"""Opening a weight file as a trained program."""

import os

from ppl_vae.inference.numpyro.svi import Fitted
from ppl_vae.models.architecture import Architecture
from ppl_vae.models.numpyro.vae import VAE
from ppl_vae.weights import read_weights

__all__ = ["load"]


def load(path: str | os.PathLike[str], *, vae: VAE | None = None) -> Fitted:
    """Open what `Fitted.save` wrote, in this twin or in the other one.

    Args:
        path: a safetensors file.
        vae: the VAE that the weights belong to; needed only if it has nets of its own.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a damaged file, weights of another architecture, or own nets without `vae`.

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
    if vae is None:
        vae = VAE.from_architecture(header["architecture"])
    else:
        Architecture.from_dict(vae.architecture()).require_same(header["architecture"], str(path))
    return Fitted(vae, vae.from_weights(weights))
