"""Importance-weighted bounds: many particles a row, combined before the rows are summed.

Shapes: K particles, B rows.
"""

from math import log

from jax import Array
from jax.scipy.special import logsumexp

from ppl_vae.inference.numpyro.objectives import ELBO
from ppl_vae.inference.numpyro.program import Program
from ppl_vae.schedules import Schedule

__all__ = ["IWAE"]


class IWAE(ELBO):
    """The importance-weighted bound, with missing entries that of MIWAE.

        log (1/K) sum_k p(x_o | z_k) p(z_k) / q(z_k | x),  z_k ~ q(z | x)

    It grows with K, from the ELBO at K = 1 to log p(x_o). The mean over particles is taken for
    each row, so that the sum over a mini-batch is unbiased for the sum over all rows. The guide
    is run once, the model K times in one batch. Burda, Grosse and Salakhutdinov (2016), eq. 8,
    https://arxiv.org/abs/1509.00519; Mattei and Frellsen (2019), MIWAE, eq. 4,
    https://arxiv.org/abs/1812.02633.

    Args:
        num_particles: draws a row, K.
        kl_weight: at least 0, or a schedule; multiplies log p(z) - log q(z | x) in each weight,
            and with another value than 1 this is no bound.
        site: name of the data site.

    Raises:
        ValueError: if `num_particles` is below 1 or `kl_weight` negative; when run, if a site of
            the guide cannot be reparameterised, or the step of a schedule is not known.

    Example:
        >>> from jax import random
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.numpyro import IWAE, VAE, fit
        >>> x, objective = digits(binary=True).x_train, IWAE(num_particles=5)
        >>> fit(random.key(0), VAE((64,), 4), x, objective=objective, num_steps=20).losses.shape
        (20,)
    """

    def __init__(
        self, *, num_particles: int = 50, kl_weight: float | Schedule = 1.0, site: str = "x"
    ) -> None:
        super().__init__(num_particles=num_particles, kl_weight=kl_weight, site=site)

    def value(self, key: Array, program: Program) -> Array:
        """Return the bound of each row, shape (B,)."""
        return logsumexp(self.log_weight(key, program), axis=0) - log(self.num_particles)
