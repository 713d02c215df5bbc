"""The posterior by importance sampling: draws, means and errors from one pool of weights a row.

Rubin (1988), Using the SIR algorithm to simulate posterior distributions; Burda, Grosse and
Salakhutdinov (2016), https://arxiv.org/abs/1509.00519.

Shapes: S particles, T draws, B rows.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ppl_vae.counts import check_at_least
from ppl_vae.importance import transformed
from ppl_vae.importance_results import arrange, tabulate
from ppl_vae.inference.pyro.estimators import (
    checked_program,
    described,
    rows_without_data,
)
from ppl_vae.inference.pyro.mcmc import as_numpy
from ppl_vae.inference.pyro.pooling import impute_each
from ppl_vae.inference.pyro.program import Latents
from ppl_vae.inference.pyro.resampling import multinomial
from ppl_vae.inference.pyro.row_blocks import at_once, block_of, over_blocks
from ppl_vae.inference.pyro.rows import take_rows
from ppl_vae.inference.pyro.weighted_draws import WeightedDraws, draw_weighted

__all__ = ["importance_posterior"]


@torch.no_grad()
def importance_posterior(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Any,
    *args: Any,
    mask: Any = None,
    site: str = "x",
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
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: `guide(x, *args, **kwargs)`, sampling every latent site of the model.
        x: data, shape (rows, *event), NaN where missing.
        *args: further arguments of model and guide.
        mask: bool, the shape of x, True = observed; by default what is not NaN.
        site: name of the data site.
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
        >>> import pyro
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.pyro import VAE, fit, importance_posterior
        >>> pyro.set_rng_seed(0)
        >>> data = digits(binary=True)
        >>> fitted = fit(VAE((64,), 4), data.x_train, num_steps=20)
        >>> x = data.x_test[:3]
        >>> found = importance_posterior(fitted.model, fitted.guide, x)
        >>> found["posterior"]["z"].shape, found["estimates"]["z_mean"].shape
        ((1, 100, 3, 4), (3, 4))
    """
    check_at_least(1, num_particles=num_particles, num_samples=num_samples, chunk_size=chunk_size)
    program = checked_program(model, guide, x, args, mask, site, kwargs)
    began, missing = time.perf_counter(), not bool(program.mask.all())

    def of_block(rows: Tensor) -> xr.Dataset:
        block = block_of(program, rows)
        pool = draw_weighted(block, num_particles, chunk_size)
        log_weights = as_numpy(pool.log_weight).astype(float)
        used = transformed(transform, log_weights.T, "(row, particle)").T
        z, stats = _resample(pool, used, num_samples)
        completed = None
        if missing:
            x, _ = impute_each(block, z, at_once(chunk_size, block))
            completed = as_numpy(x[0])
        return tabulate(
            log_weights,
            used,
            {name: as_numpy(value) for name, value in pool.z.items()},
            {name: as_numpy(value[0]) for name, value in z.items()},
            {name: as_numpy(value[0]) for name, value in stats.items()},
            completed,
        )

    found = over_blocks(program, of_block, progress_bar)
    run = described(program, num_particles, began)
    return arrange(found, **run, nothing_seen=rows_without_data(program), coords=coords)


def _resample(pool: WeightedDraws, used: np.ndarray, num_samples: int) -> tuple[Latents, Latents]:
    """Return z and its log densities at ancestors drawn by the weights, (1, T, B, ...)."""
    log_weight = pool.log_weight
    ancestor = multinomial(torch.as_tensor(used).to(log_weight)[None], num_samples)
    scores = {"lp": pool.log_joint, "log_weight": log_weight}
    pairs = ({n: value[None] for n, value in part.items()} for part in (pool.z, scores))
    z, stats = take_rows(tuple(pairs), ancestor)
    return z, stats
