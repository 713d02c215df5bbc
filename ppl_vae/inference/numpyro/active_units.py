"""Which latent units the data use.

Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR, section 5.2.
https://arxiv.org/abs/1509.00519

Shapes: K particles, B rows.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import xarray as xr
from jax import Array

from ppl_vae.counts import check_at_least
from ppl_vae.inference.numpyro.estimators import checked_program
from ppl_vae.inference.numpyro.program import Latents
from ppl_vae.inference.numpyro.row_blocks import block_of, over_blocks
from ppl_vae.inference.numpyro.weighted_draws import draw_latents
from ppl_vae.unit_activity import moments, summarise_units

__all__ = ["active_units"]


def active_units(
    key: Array,
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Any,
    *args: Any,
    mask: Any = None,
    site: str = "x",
    params: dict[str, Any] | None = None,
    num_particles: int = 100,
    threshold: float = 0.01,
    chunk_size: int = 2_048,
    progress_bar: bool = True,
    **kwargs: Any,
) -> xr.Dataset:
    """Measure how much the posterior mean of every latent unit varies over the data.

        A_u = Var_x (E_q(u | x) u),  estimated by  Var_n (m_n) - (1/N) sum_n s_n^2 / K

    with mean m_n and variance s_n^2 (of K - 1) of K draws of unit u in row n: the second term is
    what the Monte-Carlo error of the means adds, so that a dead unit has activity 0 on average and
    may come out below. In deeper layers the draws are of all layers before them as well.

    Args:
        key: random key.
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: `guide(x, *args, **kwargs)`, sampling every latent site of the model.
        x: data, shape (rows, *event), NaN where missing.
        *args: further arguments of model and guide.
        mask: bool, the shape of x, True = observed; by default what is not NaN.
        site: name of the data site.
        params: trained values of `numpyro.param` sites, if any (`svi_result.params`).
        num_particles: draws K a row, at least 2.
        threshold: activity above which a unit counts as active.
        chunk_size: rows given to the guide at a time, without effect on the result.
        progress_bar: show the rows done.
        **kwargs: further keyword arguments of model and guide.

    Returns:
        `activity`, its `standard_error` over rows and `active` (site, unit), NaN and False beyond
        the units of a site; `spectrum` (site, rank), the activities in descending order;
        `num_active` and `num_units` (site). Units of a site with several axes count in C order.
        When interrupted, of the rows that were reached.

    Raises:
        ValueError: bad data or programs, as for the kernels, fewer than two rows or particles.

    Example:
        >>> from jax import random
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.numpyro import VAE, active_units, fit
        >>> data = digits(binary=True)
        >>> fitted = fit(random.key(0), VAE((64,), 4), data.x_train, num_steps=20)
        >>> found = active_units(random.key(1), fitted.model, fitted.guide, data.x_test[:40])
        >>> found.activity.sel(site="z").shape
        (4,)
    """
    check_at_least(2, num_particles=num_particles)
    check_at_least(1, chunk_size=chunk_size)
    program = checked_program(key, model, guide, x, args, mask, site, params, kwargs)
    check_at_least(2, **{"the number of rows": len(program.x_obs)})

    @jax.jit
    def draw(key: Array, rows: Array) -> Latents:
        return draw_latents(key, block_of(program, rows), num_particles, chunk_size)

    def of_block(key: Array, rows: Array) -> xr.Dataset:
        return moments(jax.tree.map(np.asarray, draw(key, rows)))

    found = over_blocks(key, program, of_block, progress_bar)
    return summarise_units(found, num_particles, threshold)
