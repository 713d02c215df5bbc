"""Opening a weight file as a trained program."""

import os

from ppl_vae.inference.numpyro.svi import Fitted
from ppl_vae.models.numpyro.vae import VAE, load_vae

__all__ = ["load"]


def load(path: str | os.PathLike[str], *, vae: VAE | None = None) -> Fitted:
    """Open what `Fitted.save` wrote, in this twin or in the other one.

    Args:
        path: a safetensors file.
        vae: the VAE that the weights belong to; needed only if it has nets of its own.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a damaged file, or weights of another architecture.

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
    vae, params = load_vae(path, vae=vae)
    return Fitted(vae, params)
