"""How likely the data is: importance-weighted estimates of log p(x_o), with their errors.

Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR, section 5; with
missing entries Mattei and Frellsen (2019).  https://arxiv.org/abs/1509.00519

Shapes: S particles, B rows.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array, random

from ppl_vae.counts import check_at_least
from ppl_vae.importance import summarise_weights
from ppl_vae.importance_results import particle_numbers
from ppl_vae.inference.numpyro.contract import check_program
from ppl_vae.inference.numpyro.program import Program, split_data
from ppl_vae.inference.numpyro.random_keys import check_key
from ppl_vae.inference.numpyro.row_blocks import block_of, over_blocks
from ppl_vae.inference.numpyro.rows import row_arrays
from ppl_vae.inference.numpyro.weighted_draws import draw_weighted
from ppl_vae.inference_data import make_estimates
from ppl_vae.masks import check_data

__all__ = [
    "checked_program", "conditional_log_likelihood", "described",
    "log_likelihood", "rows_without_data",
]  # fmt: skip


def log_likelihood(
    key: Array,
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Any,
    *args: Any,
    mask: Any = None,
    site: str = "x",
    params: dict[str, Any] | None = None,
    num_particles: int | Sequence[int] = (1, 5, 50, 5_000),
    chunk_size: int = 2_048,
    progress_bar: bool = True,
    coords: Any = None,
    **kwargs: Any,
) -> Any:
    """Estimate log p(x_o) of every row by importance sampling from the guide.

        L_k = E log (1/k) sum_s p(x_o, z_s) / q(z_s | x),  z_s ~ q(z | x)

    All k share one pool of S = max k weights a row. L_1 is the ELBO; L_k grows to log p(x_o).
    Where `khat` is above 0.7 the pool has not seen what carries the mean, and L_k is too low. A row
    of which nothing is observed, nor any other site of the model, has log p = 0, and so L_k for
    every k, L_1 too.

    Args:
        key: random key.
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: `guide(x, *args, **kwargs)`, sampling every latent site of the model.
        x: data, shape (rows, *event), NaN where missing.
        *args: further arguments of model and guide.
        mask: bool, the shape of x, True = observed; by default what is not NaN.
        site: name of the data site.
        params: trained values of `numpyro.param` sites, if any (`svi_result.params`).
        num_particles: the numbers k, or one.
        chunk_size: rows given to the decoder at a time; what memory allows, without effect on
            the result.
        progress_bar: show the rows done.
        coords: labels as in `to_inference_data`.
        **kwargs: further keyword arguments of model and guide.

    Returns:
        The container of `to_inference_data` with a group `estimates`: `log_likelihood` and
        `standard_error` in nats ([num_particles,] row), `ess` and `khat` (row). When interrupted,
        rows that were not reached hold NaN.

    Raises:
        ValueError: bad data or programs, as for the kernels, or a number below 1.

    Example:
        >>> from jax import random
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.numpyro import VAE, fit, log_likelihood
        >>> data = digits(binary=True)
        >>> fitted = fit(random.key(0), VAE((64,), 4), data.x_train, num_steps=20)
        >>> x = data.x_test[:3]
        >>> result = log_likelihood(random.key(1), fitted.model, fitted.guide, x, num_particles=9)
        >>> result["estimates"]["log_likelihood"].shape
        (3,)
    """
    numbers = _check_numbers(num_particles, chunk_size)
    program = checked_program(key, model, guide, x, args, mask, site, params, kwargs)
    began = time.perf_counter()
    estimates = _estimate(key, program, numbers, chunk_size, progress_bar)
    if isinstance(num_particles, int | np.integer):
        estimates = estimates.isel(num_particles=0, drop=True)
    run = described(key, program, max(numbers), began)
    return make_estimates(estimates, **run, coords=coords)


def conditional_log_likelihood(
    key: Array,
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Any,
    given: Any,
    *args: Any,
    mask: Any = None,
    site: str = "x",
    params: dict[str, Any] | None = None,
    num_particles: int = 5_000,
    chunk_size: int = 2_048,
    progress_bar: bool = True,
    coords: Any = None,
    **kwargs: Any,
) -> Any:
    """Estimate log p(x_u | x_o) = log p(x_u, x_o) - log p(x_o) of every row.

    Each term is an importance-weighted estimate, from proposals of its own, and bounds its part
    from below: the difference is no bound. The guide sees x_o alone in the second term.

    Args:
        key: random key.
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: `guide(x, *args, **kwargs)`, sampling every latent site of the model.
        x: data, shape (rows, *event), NaN where missing.
        given: bool, the shape of x, True for the entries o; all other observed entries are u.
        *args: further arguments of model and guide.
        mask: bool, the shape of x, True = observed; by default what is not NaN.
        site: name of the data site.
        params: trained values of `numpyro.param` sites, if any (`svi_result.params`).
        num_particles: weights S a row and term.
        chunk_size: as in `log_likelihood`.
        progress_bar: show the rows done.
        coords: labels as in `to_inference_data`.
        **kwargs: further keyword arguments of model and guide.

    Returns:
        As `log_likelihood`; `estimates` also has the terms `joint` and `given`, the smaller `ess`
        and the larger `khat` of the two.

    Raises:
        ValueError: as `log_likelihood`; an entry of `given` that is not observed.

    Example:
        >>> from jax import random
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half
        >>> from ppl_vae.numpyro import VAE, conditional_log_likelihood, fit
        >>> data = digits(binary=True)
        >>> fitted = fit(random.key(0), VAE((64,), 4), data.x_train, num_steps=20)
        >>> x, given = data.x_test[:3], half((3, 8, 8)).reshape(3, 64)
        >>> result = conditional_log_likelihood(
        ...     random.key(1), fitted.model, fitted.guide, x, given, num_particles=9
        ... )
        >>> sorted(result["estimates"].data_vars)
        ['ess', 'given', 'joint', 'khat', 'log_likelihood', 'standard_error']
    """
    numbers = _check_numbers(num_particles, chunk_size)
    program = checked_program(key, model, guide, x, args, mask, site, params, kwargs)
    began, given = time.perf_counter(), jnp.asarray(given)
    fits = given.dtype == bool and given.shape == program.mask.shape
    if not fits or (given & ~program.mask).any():
        raise ValueError(
            f"given must be a bool mask of shape {tuple(program.mask.shape)} that marks observed "
            f"entries alone, got {given.dtype} of shape {tuple(given.shape)}; use "
            "`given & mask`."
        )
    key_joint, key_given = random.split(key)
    kept = replace(program, x_obs=jnp.where(given, program.x_obs, 0), mask=given)
    joint = _estimate(key_joint, program, numbers, chunk_size, progress_bar)
    alone = _estimate(key_given, kept, numbers, chunk_size, progress_bar)
    left = xr.DataArray(
        np.asarray((given != program.mask).reshape(len(given), -1).any(1)), dims="row"
    )
    alone = alone.where(left, joint)  # log p of no entry is 0, given whatever
    errors = np.hypot(joint.standard_error, alone.standard_error)
    estimates = xr.Dataset(
        {
            "log_likelihood": joint.log_likelihood - alone.log_likelihood,
            "standard_error": errors.where(left, 0.0),
            "joint": joint.log_likelihood,
            "given": alone.log_likelihood,
            "ess": np.minimum(joint.ess, alone.ess),
            "khat": np.maximum(joint.khat, alone.khat),
        }
    ).isel(num_particles=0, drop=True)
    run = described(key, program, max(numbers), began)
    return make_estimates(estimates, **run, coords=coords)


def checked_program(
    key: Array,
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Any,
    args: tuple[Any, ...],
    mask: Any,
    site: str,
    params: dict[str, Any] | None,
    kwargs: dict[str, Any],
) -> Program:
    """Return the program bound to data that was checked, as the kernels do."""
    check_key(key)
    check_data(x, mask, site=site)
    x_obs, mask = split_data(x, mask)
    args, kwargs = row_arrays((args, kwargs), len(x_obs))
    program = Program(model, guide, x_obs, mask, site, dict(params or {}), args, kwargs)
    check_program(key, program)
    return program


def _estimate(
    key: Array, program: Program, numbers: Sequence[int], chunk_size: int, progress_bar: bool
) -> xr.Dataset:
    """Summaries of every row's weights, a block of rows at a time."""
    nothing_seen = rows_without_data(program)

    @jax.jit
    def weigh(key: Array, rows: Array) -> Array:
        block = block_of(program, rows)
        return draw_weighted(key, block, max(numbers), chunk_size).log_weight

    def summarise(key: Array, rows: Array) -> xr.Dataset:
        weights = np.array(weigh(key, rows))
        weights[:, nothing_seen[rows]] = 0  # log p of no entry at all
        return summarise_weights(weights, numbers)

    return over_blocks(key, program, summarise, progress_bar)


def rows_without_data(program: Program) -> np.ndarray:
    """Return whether nothing at all is observed of a row, so that log p is 0; shape (B,), bool."""
    sites = program.trace_model(key=random.key(0))  # for their names alone
    has_others = any(site["is_observed"] for name, site in sites.items() if name != program.site)
    nothing_seen = ~np.asarray(program.mask).reshape(len(program.mask), -1).any(1)
    return np.zeros(len(program.mask), bool) if has_others else np.asarray(nothing_seen)


def described(key: Array, program: Program, num_particles: int, began: float) -> dict[str, Any]:
    """Return the data and settings of a run of estimates, as `make_estimates` takes them."""
    return {
        "site": program.site,
        "x": np.asarray(program.x_obs),
        "mask": np.asarray(program.mask),
        "constants": {**{f"arg_{i}": v for i, v in enumerate(program.args)}, **program.kwargs},
        "attrs": {
            "num_particles": num_particles,
            "seed": str(np.asarray(random.key_data(key)).tolist()),
            "wall_time": time.perf_counter() - began,
        },
    }


def _check_numbers(num_particles: int | Sequence[int], chunk_size: int) -> list[int]:
    check_at_least(1, chunk_size=chunk_size)
    return particle_numbers(num_particles)
