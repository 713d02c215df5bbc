"""What a program must satisfy in training, and what its plates say of a batch.

`plate("rows", N, subsample_size=S)` scales the bound of each row by N / S, outside of every
logarithm.  x holds the S rows, or all N, of which S are then drawn.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from pyro.distributions import Independent, MaskedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch.utils._pytree import tree_flatten

from ppl_vae.inference.pyro.findings import findings, identity
from ppl_vae.inference.pyro.folding import learn_to_fold
from ppl_vae.inference.pyro.program import Program
from ppl_vae.inference.pyro.recorder import is_recorded_only
from ppl_vae.inference.pyro.rows import rows_of
from ppl_vae.inference.pyro.site_checks import check_one_value_a_row, check_same_latents

__all__ = ["take_batch"]


class Batch(NamedTuple):
    """What the plates of a program say."""

    size: int  # rows that they run over
    scale: float  # how much each of them counts


def take_batch(program: Program) -> tuple[Program, float]:
    """Return the program of the rows that its plates run over, and how much each row counts.

    The program is looked at once for each guide and number of rows, and again where an argument
    that is no array has changed.

    Raises:
        ValueError: sites without one value a row; latent sites that differ between model and guide;
            scales that differ between sites; masked latents; plates of another size than x.
    """
    num_rows = len(program.x_obs)
    known = findings(program.model).batches
    key = (identity(program.guide), num_rows)
    plain = _plain((program.args, program.kwargs))
    of_guide = findings(program.guide)  # new ones tell a new guide from one that had its identity
    seen = known.get(key)
    if seen is None or seen[0] is not of_guide or seen[1] != plain:
        with torch.random.fork_rng(), torch.no_grad():
            seen = known[key] = of_guide, plain, _examine(program)
    size, scale = seen[2]
    if size < num_rows:
        program = _cut(program, torch.randperm(num_rows, device=program.x_obs.device)[:size])
    return program, scale


def _plain(tree: Any) -> tuple[Any, ...]:
    """The arguments that plates may be sized by: numbers, strings and the like, no arrays."""
    leaves, _ = tree_flatten(tree)
    return tuple(x for x in leaves if isinstance(x, bool | int | float | str | None))


def _cut(program: Program, rows: torch.Tensor) -> Program:
    args, kwargs = rows_of((program.args, program.kwargs), rows, len(program.x_obs))
    x_obs, mask = program.x_obs[rows], program.mask[rows]
    return replace(program, x_obs=x_obs, mask=mask, args=args, kwargs=kwargs)


def _examine(program: Program) -> Batch:
    seen = _Watch(len(program.x_obs))
    with seen.of("model"):
        model_sites = program.trace_model()
    with seen.of("guide"):
        guide_sites = program.trace_guide(program.x_obs)
    num_rows, size = len(program.x_obs), seen.batch_size
    check_same_latents(program, model_sites, guide_sites)
    for role, sites in (("model", model_sites), ("guide", guide_sites)):
        for name, site in sites.items():
            check_one_value_a_row(role, name, site["fn"], size)
    scale = seen.common_scale()
    learn_to_fold(_cut(program, torch.arange(size)) if size < num_rows else program)
    return Batch(size, scale)


class _Watch(Messenger):
    """Keeps how many rows the plates run over, and the scales of sites."""

    def __init__(self, num_rows: int) -> None:
        super().__init__()
        self.num_rows = num_rows
        self.batch_size = num_rows  # or what the plates run over, if less
        self.role = ""
        self.scales: dict[str, float] = {}

    def of(self, role: str) -> "_Watch":
        """Watch the model or the guide."""
        self.role = role
        return self

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            self._keep_plate(msg["name"], msg["fn"].size, len(msg["value"]))
        elif not is_recorded_only(msg):
            self.scales[f"{msg['name']!r} of the {self.role}"] = float(msg["scale"])
            is_masked = _is_masked(msg["fn"]) or msg["mask"] is not None
            if not msg["is_observed"] and is_masked:
                raise ValueError(
                    f"The log density of the latent site {msg['name']!r} of the {self.role} is "
                    "masked. Leave out the mask around it; entries of x that are missing are NaN, "
                    "or False in `mask=`."
                )

    def _keep_plate(self, name: str, size: int, subsample_size: int) -> None:
        if subsample_size == size:
            return
        if self.num_rows not in (size, subsample_size):
            raise ValueError(
                f"The plate {name!r} runs over {subsample_size} of {size} rows, and x has "
                f"{self.num_rows}. Give it {subsample_size} rows, or all {size}."
            )
        self.batch_size = min(self.batch_size, subsample_size)

    def common_scale(self) -> float:
        """Return the scale of all sites."""
        if len({np.float32(scale) for scale in self.scales.values()}) > 1:
            told = ", ".join(f"{site} by {scale:g}" for site, scale in self.scales.items())
            raise ValueError(
                f"The sites of model and guide are scaled differently: {told}. All must have one "
                "scale, as rows in a subsampled plate; to weigh the KL term, give the objective "
                "`kl_weight=`."
            )
        return next(iter(self.scales.values()), 1.0)


def _is_masked(d: Any) -> bool:
    while isinstance(d, Independent | MaskedDistribution):
        if isinstance(d, MaskedDistribution):
            return d._mask is not True
        d = d.base_dist
    return False
