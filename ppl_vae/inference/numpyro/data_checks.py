"""What the data must satisfy that a program is given, be it sampled or trained."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from ppl_vae.incomplete_data import refuse_outside, take_data_site
from ppl_vae.inference.numpyro.model_masks import without_mask
from ppl_vae.inference.numpyro.program import Program

__all__ = ["altered", "check_observed", "entries_outside", "refuse_altered"]


def altered(program: Program, site: dict[str, Any]) -> Array:
    """Return where the data site observes something else than x, (B, *event)."""
    value = jnp.asarray(site["value"])
    if value.shape != program.x_obs.shape:
        return jnp.zeros_like(program.mask)  # its event shape is refused elsewhere
    return program.mask & (value.astype(program.x_obs.dtype) != program.x_obs)


def refuse_altered(program: Program, where: Array) -> None:
    """Raise a `ValueError` if the data site observes something else than x."""
    wrong = np.argwhere(np.asarray(where))
    if len(wrong):
        raise ValueError(
            f"Site {program.site!r} of the model does not observe x as it was given, first in row "
            f"{wrong[0][0]}. Write `obs=x` in the model, and transform or rescale the data before."
        )


def entries_outside(x: Array, mask: Array, likelihood: dist.Distribution) -> Array:
    """Return the observed entries outside the likelihood's support, (B, *event)."""
    inside = likelihood.support.check(x)
    if inside.shape != mask.shape:
        inside = _entry_support(likelihood.support).check(x)
    if inside.shape != mask.shape:  # the support couples entries: its rule decides
        return jnp.zeros_like(mask)
    return mask & ~inside


def check_observed(key: Array, program: Program, x: Array, mask: Array) -> None:
    """Raise a `ValueError` for rows that are not what the model observes, or outside its support.

    Args:
        key: of the latents at which the model is run.
        program: bound to a batch of the rows.
        x: all rows, or the batch where the support depends on the row, (rows, *event).
        mask: shape of x, True where it is observed.
    """
    site = take_data_site(program.trace_model(key=key), program.site)
    refuse_altered(program, altered(program, site))
    likelihood = without_mask(site["fn"])
    if tuple(likelihood.event_shape) != tuple(x.shape[1:]):
        return
    try:
        outside = entries_outside(x, mask, likelihood)
    except (TypeError, ValueError):  # the support has bounds for each row of the batch
        x, mask = program.x_obs, program.mask
        outside = entries_outside(x, mask, likelihood)
    refuse_outside(x, outside, program.site)


def _entry_support(support: Any) -> Any:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support
