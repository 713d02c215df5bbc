"""Importance-weighted bounds: many particles a row, combined before the rows are summed.

Shapes: K particles, B rows.
"""

from jax import Array

from ppl_vae.inference.numpyro.objectives import ELBO, STL
from ppl_vae.inference.numpyro.particles import log_mean_exp, shares, times
from ppl_vae.inference.numpyro.program import Program
from ppl_vae.schedules import Schedule

__all__ = ["IWAE", "IWAESTL", "NormalisedIWAE"]


class IWAE(ELBO):
    """The importance-weighted bound, with missing entries that of MIWAE.

        log (1/K) sum_k p(x_o | z_k) p(z_k) / q(z_k | x),  z_k ~ q(z | x)

    It grows with K, from the ELBO at K = 1 to log p(x_o). The mean over particles is taken for
    each row, so that the sum over a mini-batch is unbiased for the sum over all rows. The guide
    is run once, the model K times in one batch. Burda, Grosse and Salakhutdinov (2016), eq. 8,
    https://arxiv.org/abs/1509.00519; Mattei and Frellsen (2019), MIWAE,
    https://arxiv.org/abs/1812.02633.

    Args:
        num_particles: draws a row, K.
        kl_weight: at least 0, or a schedule; multiplies log p(z) - log q(z | x) in each weight,
            and with another value than 1 this is no bound.
        chunk_size: particles to decode at a time, the decoder run again for the gradient, so that
            memory is that of one chunk; None: on a CPU some 2000 rows at a time, elsewhere all.
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
        self,
        *,
        num_particles: int = 50,
        kl_weight: float | Schedule = 1.0,
        chunk_size: int | None = None,
        site: str = "x",
    ) -> None:
        super().__init__(
            num_particles=num_particles, kl_weight=kl_weight, chunk_size=chunk_size, site=site
        )

    def value(self, key: Array, program: Program) -> Array:
        """Return the bound of each row, shape (B,)."""
        return log_mean_exp(self.log_weight(key, program))


class NormalisedIWAE(IWAE):
    """The log weights in proportion to the weights: the gradient of `IWAE`, and another value.

        sum_k s_k log w_k,  s_k = w_k / sum_j w_j without gradient

    Burda, Grosse and Salakhutdinov (2016), eq. 14, https://arxiv.org/abs/1509.00519.

    Args:
        num_particles: draws a row, K.
        kl_weight, chunk_size: as in `IWAE`.
        site: name of the data site.

    Raises:
        ValueError: as `IWAE`.

    Example:
        >>> from jax import random
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.numpyro import NormalisedIWAE, VAE, fit
        >>> x, objective = digits(binary=True).x_train, NormalisedIWAE(num_particles=5)
        >>> fit(random.key(0), VAE((64,), 4), x, objective=objective, num_steps=20).losses.shape
        (20,)
    """

    def value(self, key: Array, program: Program) -> Array:
        """Return the weighted mean of the log weights of each row, shape (B,)."""
        log_weight = self.log_weight(key, program)
        return times(shares(log_weight), log_weight).sum(0)


class IWAESTL(STL, IWAE):
    """The importance-weighted bound with the guide's parameters held fixed inside log q.

        sum_k s_k  d log w_k / d z_k  d z_k / d phi,  s_k = w_k / sum_j w_j

    The value is that of `IWAE`. The guide's gradient is that of `STL` with one particle; with more
    it is biased, by that of reweighted wake-sleep (`RWS`), as Tucker et al. (2019) show,
    https://arxiv.org/abs/1810.04152; `DReG` is not. Roeder, Wu and Duvenaud (2017),
    https://arxiv.org/abs/1703.09194.

    Args:
        num_particles: draws a row, K.
        kl_weight, chunk_size: as in `IWAE`.
        site: name of the data site.

    Raises:
        ValueError: as `IWAE`.

    Example:
        >>> from jax import random
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.numpyro import IWAESTL, VAE, fit
        >>> x, objective = digits(binary=True).x_train, IWAESTL(num_particles=5)
        >>> fit(random.key(0), VAE((64,), 4), x, objective=objective, num_steps=20).losses.shape
        (20,)
    """
