"""The public names of the NumPyro twin, gathered."""

try:
    import jax  # noqa: F401
    import numpyro  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"ppl_vae.numpyro needs {error.name}, which is not installed: pip install 'ppl-vae[numpyro]'"
    ) from error

from numpyro.infer import MCMC

from ppl_vae.inference.numpyro.ac_mwg import ACMWGKernel
from ppl_vae.inference.numpyro.lair import LAIRKernel
from ppl_vae.inference.numpyro.likelihood import register_rule
from ppl_vae.inference.numpyro.mwg import MWGKernel
from ppl_vae.inference.numpyro.pseudo_gibbs import PseudoGibbsKernel

__all__ = [
    "MCMC",
    "ACMWGKernel",
    "LAIRKernel",
    "MWGKernel",
    "PseudoGibbsKernel",
    "register_rule",
]
