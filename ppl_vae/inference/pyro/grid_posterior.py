"""The posterior of one or two latents by quadrature: an exact answer to hold samplers against.

Shapes: N points along each latent, B rows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import torch
import xarray as xr
from torch import Tensor

from ppl_vae.counts import check_at_least
from ppl_vae.entry_bounds import check_finite
from ppl_vae.grids import Grid, summarise_grid
from ppl_vae.inference.pyro.estimators import checked_program
from ppl_vae.inference.pyro.mcmc import as_numpy
from ppl_vae.inference.pyro.mwg import decode
from ppl_vae.inference.pyro.program import Latents
from ppl_vae.inference.pyro.unconstrained import require_continuous

__all__ = ["grid_posterior"]


@torch.no_grad()
def grid_posterior(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Any,
    *args: Any,
    mask: Any = None,
    site: str = "x",
    bounds: tuple[float, float] = (-5.0, 5.0),
    num_points: int = 201,
    chunk_size: int = 4_096,
    **kwargs: Any,
) -> xr.Dataset:
    """Return p(z | x_o) on a grid, log p(x_o), and how far the guide is from it.

        log p(x_o) = log sum_i p(x_o, z_i) dz,  KL(q || p) = sum_i q_i log(q_i / p_i) dz

    by the midpoint rule; for programs whose latents are one or two real numbers a row.

    Args:
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: `guide(x, *args, **kwargs)`, sampling every latent site of the model.
        x: data, shape (rows, *event), NaN where missing.
        *args: further arguments of model and guide.
        mask: bool, the shape of x, True = observed; by default what is not NaN.
        site: name of the data site.
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
        >>> import pyro
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.pyro import VAE, fit, grid_posterior
        >>> pyro.set_rng_seed(0)
        >>> data = digits(binary=True)
        >>> fitted = fit(VAE((64,), 1), data.x_train, num_steps=20)
        >>> found = grid_posterior(fitted.model, fitted.guide, data.x_test[:3])
        >>> dict(found.log_posterior.sizes)
        {'row': 3, 'z_0': 201}
    """
    program = checked_program(model, guide, x, args, mask, site, kwargs)
    require_continuous(program)
    with torch.random.fork_rng():
        first = program.propose_from_prior(())
    num_latents = sum(int(np.prod(value.shape[1:])) for value in first.values())
    if num_latents > 2:
        raise ValueError(f"A grid takes one or two latents a row, the model has {num_latents}.")
    check_at_least(1, num_points=num_points, chunk_size=chunk_size)
    grid = Grid(check_finite(bounds), num_points, num_latents)
    points = torch.as_tensor(grid.points).to(next(iter(first.values())))

    parts = []
    with pyro.validation_enabled(False):  # cells may lie outside of the prior's support
        for some in points.split(max(1, chunk_size // len(program.x_obs))):
            z = _latents(some, first)
            decoded = decode(program, z)
            x_each = program.x_obs.expand(len(some), *program.x_obs.shape)
            log_joint = decoded.log_prior + decoded.log_observed
            parts.append((log_joint, program.log_proposal(z, x_each)))
    log_joint, log_q = (torch.cat(part) for part in zip(*parts, strict=True))
    return summarise_grid(grid, as_numpy(log_joint), as_numpy(log_q))


def _latents(points: Tensor, like: Latents) -> Latents:
    """The latents of every row at each of some points (N, L)."""
    z, start = {}, 0
    for name, value in like.items():
        size = int(np.prod(value.shape[1:]))
        each = points[:, start : start + size].reshape(-1, 1, *value.shape[1:])
        z[name] = each.expand(-1, *value.shape).to(value)
        start += size
    return z
