"""What `fit(transform=...)` does to the rows of every mini-batch before the program sees them.

A transform is a function `transform(key, x)` of rows x, (B, *event), NaN where missing, that
returns rows of the same shape.  It is called with a key of its own at every step.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, core, random

__all__ = ["Transform", "dynamic_binarisation"]

Transform = Callable[[Array, Array], Array]


def dynamic_binarisation(key: Array, x: Array) -> Array:
    """Draw black and white pixels anew, with the grey values as probabilities.

        x_d ~ Bernoulli(grey_d), independently; what is missing stays missing

    Burda et al. (2016), section 5, https://arxiv.org/abs/1509.00519; Salakhutdinov and Murray
    (2008). For one draw that stays use `ppl_vae.datasets.binarise_stochastic`.

    Args:
        key: random key.
        x: grey values in [0, 1], any shape, NaN where missing.

    Raises:
        ValueError: if a grey value lies outside [0, 1]; inside a compiled function, which cannot
            raise, it becomes NaN.

    Example:
        >>> grey = jnp.array([[0.0, 1.0, jnp.nan]])
        >>> dynamic_binarisation(random.key(0), grey)
        Array([[ 0.,  1., nan]], dtype=float32)
    """
    x = jnp.asarray(x, jnp.result_type(x, float))
    is_grey = (x >= 0) & (x <= 1)
    if not isinstance(x, core.Tracer) and not bool((is_grey | jnp.isnan(x)).all()):
        raise ValueError(
            f"dynamic_binarisation takes grey values in [0, 1], got {float(jnp.nanmin(x)):g} to "
            f"{float(jnp.nanmax(x)):g}; divide bytes by 255."
        )
    pixels = random.bernoulli(key, jnp.where(is_grey, x, 0.0)).astype(x.dtype)
    return jnp.where(is_grey, pixels, jnp.nan)
