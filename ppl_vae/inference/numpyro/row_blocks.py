"""Work on the rows of a program, a block of them at a time, kept when it is interrupted.

Shapes: B rows of the data, R of one block.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array, random
from tqdm import tqdm

from ppl_vae.inference.numpyro.program import Program
from ppl_vae.inference.numpyro.rows import rows_of

__all__ = ["ROWS_PER_BLOCK", "at_once", "block_of", "over_blocks", "rows_per_block"]

ROWS_PER_BLOCK = 32  # results depend on the seed, and not on what fits into memory


def block_of(program: Program, rows: Array) -> Program:
    """Return the program bound to some of its rows."""
    data = (program.x_obs, program.mask, program.args, program.kwargs)
    x_obs, mask, args, kwargs = rows_of(data, rows, len(program.x_obs))
    return replace(program, x_obs=x_obs, mask=mask, args=args, kwargs=kwargs)


def at_once(chunk_size: int, program: Program) -> int:
    """Return how many particles of a block the decoder gets at a time."""
    return max(1, chunk_size // len(program.x_obs))


def rows_per_block(key: Array, program: Program) -> int:
    """Return R, or B if the program is written for B rows: a plate of fixed size, a closure."""
    num_rows = len(program.x_obs)
    if num_rows <= ROWS_PER_BLOCK:
        return num_rows
    block = block_of(program, jnp.arange(ROWS_PER_BLOCK))

    def run(key: Array) -> Array:
        z = block.propose(key, block.x_obs)
        log_prior, _, likelihood = block.decode(z)
        return block.log_proposal(z, block.x_obs) + log_prior + block.log_observed(likelihood)

    try:
        jax.eval_shape(run, key)
    except (TypeError, ValueError):  # shapes that do not go together; the B rows were checked
        return num_rows
    return ROWS_PER_BLOCK


def over_blocks(
    key: Array, program: Program, work: Callable[[Array, Array], xr.Dataset], progress_bar: bool
) -> xr.Dataset:
    """Return what `work(key, rows)` says of each row of the program, joined along `row`.

    Every block has as many rows, the last one filled up with the first rows, so that one program is
    compiled; its key depends on its number alone. Rows that were not reached hold NaN.
    """
    done: list[xr.Dataset] = []
    num_rows, size = len(program.x_obs), rows_per_block(key, program)
    with tqdm(total=num_rows, unit="row", disable=not progress_bar) as bar:
        try:
            for number, first in enumerate(range(0, num_rows, size)):
                rows = jnp.arange(first, first + size) % num_rows
                done.append(work(random.fold_in(key, number), rows))
                bar.update(min(size, num_rows - first))
        except KeyboardInterrupt:
            if not done:
                raise
            warnings.warn("Interrupted: rows that were not reached hold NaN.", stacklevel=4)
    joined = xr.concat(done, "row", data_vars="all").isel(row=slice(num_rows))
    missing = num_rows - joined.sizes["row"]
    return joined.pad(row=(0, missing), constant_values=np.nan) if missing else joined
