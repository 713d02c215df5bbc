"""What a program must satisfy in training, and what its plates say of a batch.

`plate("rows", N, subsample_size=S)` scales the bound of each row by N / S, outside of every
logarithm.  x holds the S rows, or all N, of which S are then drawn.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import numpyro.distributions as dist
from jax import Array, random
from numpyro.primitives import Messenger

from ppl_vae.inference.numpyro.program import Program
from ppl_vae.inference.numpyro.rows import rows_of
from ppl_vae.inference.numpyro.site_checks import check_one_value_a_row, check_same_latents

__all__ = ["take_batch"]


def take_batch(key: Array, program: Program) -> tuple[Program, float]:
    """Return the program of the rows that its plates run over, and how much each row counts.

    Raises:
        ValueError: sites without one value a row; latent sites that differ between model and guide;
            scales that differ between sites; masked latents; plates of another size than x.
    """
    key_run, key_rows = random.split(key)
    seen = _Watch(len(program.x_obs))
    with seen.of("model"):
        model_sites = program.trace_model(key=key_run)
    with seen.of("guide"):
        guide_sites = program.trace_guide(program.x_obs, key=key_run)
    num_rows, size = len(program.x_obs), seen.batch_size
    check_same_latents(program, model_sites, guide_sites)
    for role, sites in (("model", model_sites), ("guide", guide_sites)):
        for name, site in sites.items():
            check_one_value_a_row(role, name, site["fn"], size)
    if size < num_rows:
        index = random.choice(key_rows, num_rows, (size,), replace=False)
        x_obs, mask = program.x_obs[index], program.mask[index]
        args, kwargs = rows_of((program.args, program.kwargs), index, num_rows)
        program = replace(program, x_obs=x_obs, mask=mask, args=args, kwargs=kwargs)
    return program, seen.common_scale()


class _Watch(Messenger):
    """Keeps how many rows the plates run over, and the scales of sites."""

    def __init__(self, num_rows: int) -> None:
        super().__init__()
        self.num_rows = num_rows
        self.batch_size = num_rows  # or what the plates run over, if less
        self.role = ""
        self.scales: dict[str, Any] = {}

    def of(self, role: str) -> "_Watch":
        """Watch the model or the guide."""
        self.role = role
        return self

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "plate":
            size, subsample_size = msg["args"]
            self._keep_plate(msg["name"], size, subsample_size or size)
        if msg["type"] == "sample":
            self.scales[f"{msg['name']!r} of the {self.role}"] = msg["scale"]
            if not msg["is_observed"] and _is_masked(msg["fn"]):
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
        try:
            scales = {site: float(1 if s is None else s) for site, s in self.scales.items()}
        except TypeError:  # a traced value
            told = "scaled by what is known only when they run"
            raise ValueError(_ONE_SCALE.format(told)) from None
        if len({np.float32(scale) for scale in scales.values()}) > 1:
            told = ", ".join(f"{site} by {scale:g}" for site, scale in scales.items())
            raise ValueError(_ONE_SCALE.format(f"scaled differently: {told}"))
        return next(iter(scales.values()), 1.0)


_ONE_SCALE = (
    "The sites of model and guide are {}. All must have one scale, as rows in a subsampled plate; "
    "to weigh the KL term, give the objective `kl_weight=`."
)


def _is_masked(d: Any) -> bool:
    while isinstance(d, dist.Independent | dist.MaskedDistribution | dist.ExpandedDistribution):
        if isinstance(d, dist.MaskedDistribution):
            return d._mask is not True
        d = d.base_dist
    return False
