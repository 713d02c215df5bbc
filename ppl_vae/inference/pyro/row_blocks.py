"""Work on the rows of a program, a block of them at a time, kept when it is interrupted.

Shapes: B rows of the data, R of one block.
"""

import warnings
from collections.abc import Callable

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm import tqdm

from ppl_vae.inference.pyro.program import Program
from ppl_vae.inference.pyro.rows import rows_of

__all__ = ["ROWS_PER_BLOCK", "at_once", "block_of", "over_blocks", "rows_per_block"]

ROWS_PER_BLOCK = 32  # results depend on the seed, and not on what fits into memory


def block_of(program: Program, rows: Tensor) -> Program:
    """Return the program bound to some of its rows."""
    data = (program.x_obs, program.mask, program.args, program.kwargs)
    x_obs, mask, args, kwargs = rows_of(data, rows, len(program.x_obs))
    return Program(program.model, program.guide, x_obs, mask, program.site, args, kwargs)


def at_once(chunk_size: int, program: Program) -> int:
    """Return how many particles of a block the decoder gets at a time."""
    return max(1, chunk_size // len(program.x_obs))


def rows_per_block(program: Program) -> int:
    """Return R, or B if the program is written for B rows: a plate of fixed size, a closure."""
    num_rows = len(program.x_obs)
    if num_rows <= ROWS_PER_BLOCK:
        return num_rows
    block = block_of(program, torch.arange(ROWS_PER_BLOCK))
    try:
        with torch.random.fork_rng():
            z = block.propose(block.x_obs)
            log_prior, _, likelihood = block.decode(z)
            _ = block.log_proposal(z, block.x_obs) + log_prior + block.log_observed(likelihood)
    except (RuntimeError, ValueError):  # shapes that do not go together; the B rows were checked
        return num_rows
    return ROWS_PER_BLOCK


def over_blocks(
    program: Program, work: Callable[[Tensor], xr.Dataset], progress_bar: bool
) -> xr.Dataset:
    """Return what `work(rows)` says of each row of the program, joined along `row`.

    A block has R rows, the last one what is left. Rows that were not reached hold NaN.
    """
    num_rows, size = len(program.x_obs), rows_per_block(program)
    done: list[xr.Dataset] = []
    with tqdm(total=num_rows, unit="row", disable=not progress_bar) as bar:
        try:
            for first in range(0, num_rows, size):
                rows = torch.arange(first, min(first + size, num_rows))
                done.append(work(rows))
                bar.update(len(rows))
        except KeyboardInterrupt:
            if not done:
                raise
            warnings.warn("Interrupted: rows that were not reached hold NaN.", stacklevel=4)
    joined = xr.concat(done, "row", data_vars="all")
    missing = num_rows - joined.sizes["row"]
    return joined.pad(row=(0, missing), constant_values=np.nan) if missing else joined
