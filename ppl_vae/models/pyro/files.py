"""Opening a weight file as a trained program."""

import os

from ppl_vae.inference.pyro.svi import Fitted
from ppl_vae.models.architecture import Architecture
from ppl_vae.models.pyro.vae import VAE
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
        >>> from ppl_vae.pyro import Fitted, VAE, load
        >>> path = tempfile.mkdtemp() + "/vae.safetensors"
        >>> vae = VAE((64,), latent_dim=8)
        >>> Fitted(vae).save(path)
        >>> load(path).program.latent_dim
        8
    """
    weights, header = read_weights(path)
    if vae is None:
        vae = VAE.from_architecture(header["architecture"])
    else:
        Architecture.from_dict(vae.architecture()).require_same(header["architecture"], str(path))
    vae.load_weights(weights)
    return Fitted(vae)
