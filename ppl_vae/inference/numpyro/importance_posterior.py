"""The posterior by importance sampling: draws, means and errors from one pool of weights a row.

Rubin (1988), Using the SIR algorithm to simulate posterior distributions; Burda, Grosse and
Salakhutdinov (2016), https://arxiv.org/abs/1509.00519.

Shapes: S particles, T draws, B rows.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array, random

from ppl_vae.counts import check_at_least
from ppl_vae.importance import transformed
from ppl_vae.importance_results import arrange, tabulate
from ppl_vae.inference.numpyro.estimators import (
    checked_program,
    described,
    rows_without_data,
)
from ppl_vae.inference.numpyro.pooling import impute_each
from ppl_vae.inference.numpyro.program import Latents, Program
from ppl_vae.inference.numpyro.resampling import multinomial
from ppl_vae.inference.numpyro.row_blocks import at_once, block_of, over_blocks
from ppl_vae.inference.numpyro.rows import take_rows
from ppl_vae.inference.numpyro.weighted_draws import WeightedDraws, draw_weighted

__all__ = ["importance_posterior"]


def importance_posterior(
    key: Array,
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Any,
    *args: Any,
    mask: Any = None,
    site: str = "x",
    params: dict[str, Any] | None = None,
    num_particles: int = 1_000,
    num_samples: int = 100,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
    chunk_size: int = 2_048,
    progress_bar: bool = True,
    coords: Any = None,
    **kwargs: Any,
) -> Any:
    """Draw latents and missing entries from their posterior by importance resampling.

        w_s = p(x_o, z_s) / q(z_s | x),  z_s ~ q(z | x),  S particles of a row,
        E[z | x_o] ~ sum_s w_s z_s / sum_s w_s

    The draws are sampled from the z_s with replacement, with probabilities in proportion to w_s,
    and x_m from p(x_m | x_o, z): draws of p(x_m, z | x_o) as S grows. All sites are resampled
    together, layers of a hierarchy too. Where `khat` is above 0.7 the particles have not seen what
    carries the posterior; where `ess` is below `num_samples` draws repeat each other.

    Args:
        key: random key.
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: `guide(x, *args, **kwargs)`, sampling every latent site of the model.
        x: data, shape (rows, *event), NaN where missing.
        *args: further arguments of model and guide.
        mask: bool, the shape of x, True = observed; by default what is not NaN.
        site: name of the data site.
        params: trained values of `numpyro.param` sites, if any (`svi_result.params`).
        num_particles: weights S a row.
        num_samples: draws T a row, as many as are wanted.
        transform: of the log-weights of each row before they are used, as numpy array
            (row, particle), such as `ppl_vae.importance.pareto_smooth` or `weighting.temper(0.5)`.
        chunk_size: rows given to the decoder at a time, without effect on the result.
        progress_bar: show the rows done.
        coords: labels as in `to_inference_data`.
        **kwargs: further keyword arguments of model and guide.

    Returns:
        The container of `to_inference_data`, of one chain. `sample_stats`: `lp`, log p(x_o, z),
        and `log_weight` of each draw, as it was before the transform. A group `estimates`:
        `<site>_mean` and `<site>_sd` of every latent site, from all weights (row, ...);
        `log_likelihood`, `standard_error`, `ess` and `khat` as of `log_likelihood`, of the weights
        as they were. When interrupted, rows that were not reached hold NaN.

    Raises:
        ValueError: bad data or programs, as for the kernels; a number below 1; a transform that
            returns another shape or NaN.

    Example:
        >>> from jax import random
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.numpyro import VAE, fit, importance_posterior
        >>> data = digits(binary=True)
        >>> fitted = fit(random.key(0), VAE((64,), 4), data.x_train, num_steps=20)
        >>> x = data.x_test[:3]
        >>> found = importance_posterior(random.key(1), fitted.model, fitted.guide, x)
        >>> found["posterior"]["z"].shape, found["estimates"]["z_mean"].shape
        ((1, 100, 3, 4), (3, 4))
    """
    check_at_least(1, num_particles=num_particles, num_samples=num_samples, chunk_size=chunk_size)
    program = checked_program(key, model, guide, x, args, mask, site, params, kwargs)
    began = time.perf_counter()
    draw, resample = _steps(program, num_particles, num_samples, chunk_size)

    def of_block(key: Array, rows: Array) -> xr.Dataset:
        key_draw, key_resample = random.split(key)
        pool = draw(key_draw, rows)
        log_weights = np.asarray(pool.log_weight, float)
        used = transformed(transform, log_weights.T, "(row, particle)").T
        drawn = resample(key_resample, rows, pool, jnp.asarray(used))
        return tabulate(log_weights, used, *jax.tree.map(np.asarray, (pool.z, *drawn)))

    found = over_blocks(key, program, of_block, progress_bar)
    run = described(key, program, num_particles, began)
    return arrange(found, **run, nothing_seen=rows_without_data(program), coords=coords)


def _steps(program: Program, num_particles: int, num_samples: int, chunk_size: int) -> Any:
    """Return the compiled functions that draw and weigh a block's particles, and resample them."""
    missing = not bool(program.mask.all())

    @jax.jit
    def draw(key: Array, rows: Array) -> WeightedDraws:
        return draw_weighted(key, block_of(program, rows), num_particles, chunk_size)

    @jax.jit
    def resample(
        key: Array, rows: Array, pool: WeightedDraws, used: Array
    ) -> tuple[Latents, dict[str, Array], Array | None]:
        key_ancestor, key_x = random.split(key)
        ancestor = multinomial(key_ancestor, used, num_samples)
        scores = {"lp": pool.log_joint, "log_weight": pool.log_weight}
        z, stats = take_rows((pool.z, scores), ancestor)
        if not missing:
            return z, stats, None
        block = block_of(program, rows)
        x, _, _ = impute_each(key_x, block, z, at_once(chunk_size, block))
        return z, stats, x

    return draw, resample
