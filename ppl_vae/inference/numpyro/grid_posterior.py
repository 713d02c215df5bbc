"""The posterior of one or two latents by quadrature: an exact answer to hold samplers against.

Shapes: N points along each latent, B rows.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array

from ppl_vae.counts import check_at_least
from ppl_vae.entry_bounds import check_finite
from ppl_vae.grids import Grid, summarise_grid
from ppl_vae.inference.numpyro.estimators import checked_program
from ppl_vae.inference.numpyro.mwg import decode
from ppl_vae.inference.numpyro.program import Latents
from ppl_vae.inference.numpyro.unconstrained import require_continuous

__all__ = ["grid_posterior"]


def grid_posterior(
    key: Array,
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Any,
    *args: Any,
    mask: Any = None,
    site: str = "x",
    params: dict[str, Any] | None = None,
    bounds: tuple[float, float] = (-5.0, 5.0),
    num_points: int = 201,
    chunk_size: int = 4_096,
    **kwargs: Any,
) -> xr.Dataset:
    """Return p(z | x_o) on a grid, log p(x_o), and how far the guide is from it.

        log p(x_o) = log sum_i p(x_o, z_i) dz,  KL(q || p) = sum_i q_i log(q_i / p_i) dz

    by the midpoint rule; for programs whose latents are one or two real numbers a row.

    Args:
        key: random key, for the check of the program.
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: `guide(x, *args, **kwargs)`, sampling every latent site of the model.
        x: data, shape (rows, *event), NaN where missing.
        *args: further arguments of model and guide.
        mask: bool, the shape of x, True = observed; by default what is not NaN.
        site: name of the data site.
        params: trained values of `numpyro.param` sites, if any (`svi_result.params`).
        bounds: the grid's ends along each latent; what lies outside is not counted.
        num_points: cells N along each latent.
        chunk_size: rows given to the decoder at a time, without effect on the result.
        **kwargs: further keyword arguments of model and guide.

    Returns:
        `log_posterior` and `log_guide`, the log densities (row, z_0[, z_1]); `log_evidence` (row);
        `posterior_mean` (row, latent); `kl_guide` (row), all in nats; coordinates z_0, z_1.

    Warns:
        UserWarning: the posterior or the guide of a row does not lie on the grid.

    Raises:
        ValueError: there are more latents than two or discrete ones, or bad data or programs.

    Example:
        >>> from jax import random
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.numpyro import VAE, fit, grid_posterior
        >>> data = digits(binary=True)
        >>> fitted = fit(random.key(0), VAE((64,), 1), data.x_train, num_steps=20)
        >>> found = grid_posterior(random.key(1), fitted.model, fitted.guide, data.x_test[:3])
        >>> dict(found.log_posterior.sizes)
        {'row': 3, 'z_0': 201}
    """
    program = checked_program(key, model, guide, x, args, mask, site, params, kwargs)
    require_continuous(key, program)
    first = program.propose_from_prior(key)
    num_latents = sum(int(np.prod(value.shape[1:])) for value in first.values())
    if num_latents > 2:
        raise ValueError(f"A grid takes one or two latents a row, the model has {num_latents}.")
    check_at_least(1, num_points=num_points, chunk_size=chunk_size)
    grid = Grid(check_finite(bounds), num_points, num_latents)
    points = jnp.asarray(grid.points, jnp.result_type(float))

    def at(point: Array) -> tuple[Array, Array]:
        z = _latents(point, first)
        decoded = decode(program, z)
        log_joint = decoded.log_prior + decoded.log_observed
        return log_joint, program.log_proposal(z, program.x_obs)

    at_once = max(1, chunk_size // len(program.x_obs))
    log_joint, log_q = jax.jit(lambda p: jax.lax.map(at, p, batch_size=at_once))(points)
    return summarise_grid(grid, np.asarray(log_joint), np.asarray(log_q))


def _latents(point: Array, like: Latents) -> Latents:
    """The latents of every row at one point (L,)."""
    z, start = {}, 0
    for name, value in like.items():
        size = int(np.prod(value.shape[1:]))
        one = point[start : start + size].reshape(value.shape[1:])
        z[name] = jnp.broadcast_to(one, value.shape).astype(value.dtype)
        start += size
    return z
