"""Probabilistic programming with variational autoencoders, in NumPyro and in Pyro.

`import ppl_vae` loads no backend; take the public names from a twin:
`from ppl_vae.numpyro import ...` or `from ppl_vae.pyro import ...`.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
