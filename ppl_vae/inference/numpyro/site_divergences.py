"""Where the bound goes: KL(q || p) of every latent site, layer by layer of a hierarchy.

Shapes: S particles, B rows.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import xarray as xr
from jax import Array

from ppl_vae.counts import check_at_least
from ppl_vae.importance_results import divergences
from ppl_vae.inference.numpyro.estimators import checked_program, described
from ppl_vae.inference.numpyro.program import Latents
from ppl_vae.inference.numpyro.row_blocks import block_of, over_blocks
from ppl_vae.inference.numpyro.weighted_draws import draw_weighted
from ppl_vae.inference_data import make_estimates

__all__ = ["kl_per_site"]


def kl_per_site(
    key: Array,
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Any,
    *args: Any,
    mask: Any = None,
    site: str = "x",
    params: dict[str, Any] | None = None,
    num_particles: int = 100,
    chunk_size: int = 2_048,
    progress_bar: bool = True,
    coords: Any = None,
    **kwargs: Any,
) -> Any:
    """Estimate KL(q || p) of every latent site, for every row.

        KL_l = E_q [log q(z_l | parents in the guide) - log p(z_l | parents in the model)],
        ELBO = E_q log p(x_o | z) - sum_l KL_l

    by S draws of the guide, the same for all terms, so that the sum is exact. KL_l is a divergence,
    and not negative, where the parents of z_l are the same in guide and model, or it has none.

    Args:
        key: random key.
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: `guide(x, *args, **kwargs)`, sampling every latent site of the model.
        x: data, shape (rows, *event), NaN where missing.
        *args: further arguments of model and guide.
        mask: bool, the shape of x, True = observed; by default what is not NaN.
        site: name of the data site.
        params: trained values of `numpyro.param` sites, if any (`svi_result.params`).
        num_particles: draws S a row.
        chunk_size: rows given to the decoder at a time, without effect on the result.
        progress_bar: show the rows done.
        coords: labels as in `to_inference_data`.
        **kwargs: further keyword arguments of model and guide.

    Returns:
        The container of `to_inference_data` with a group `estimates`, in nats: `kl` (site, row),
        `expected_log_likelihood`, of other observed sites too, and `elbo` (row), each with its
        `_standard_error`, inf of a single draw. When interrupted, rows that were not reached hold
        NaN.

    Raises:
        ValueError: bad data or programs, as for the kernels, or a number below 1.

    Example:
        >>> from jax import random
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.numpyro import VAE, fit, kl_per_site
        >>> data = digits(binary=True)
        >>> fitted = fit(random.key(0), VAE((64,), 4), data.x_train, num_steps=20)
        >>> found = kl_per_site(random.key(1), fitted.model, fitted.guide, data.x_test[:3])
        >>> dict(found["estimates"]["kl"].sizes)
        {'site': 1, 'row': 3}
    """
    check_at_least(1, num_particles=num_particles, chunk_size=chunk_size)
    program = checked_program(key, model, guide, x, args, mask, site, params, kwargs)
    began = time.perf_counter()

    @jax.jit
    def terms(key: Array, rows: Array) -> tuple[Latents, Array]:
        draws = draw_weighted(key, block_of(program, rows), num_particles, chunk_size)
        log_ratios = {name: draws.log_q[name] - draws.log_prior[name] for name in draws.z}
        return log_ratios, draws.log_observed

    def of_block(key: Array, rows: Array) -> xr.Dataset:
        return divergences(*jax.tree.map(np.asarray, terms(key, rows)))

    found = over_blocks(key, program, of_block, progress_bar)
    run = described(key, program, num_particles, began)
    return make_estimates(found, **run, coords=coords)
