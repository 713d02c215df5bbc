"""What a program must satisfy before it is sampled: checked once, with errors that say the remedy.

The samplers rely on rows being independent given the parameters: every site has one value a row,
and no row's values change another row's densities.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, random
from numpyro.primitives import Messenger

from ppl_vae.incomplete_data import refuse_narrow, refuse_outside
from ppl_vae.inference.numpyro.data_checks import altered, entries_outside, refuse_altered
from ppl_vae.inference.numpyro.likelihood import complete, find_rule, log_prob
from ppl_vae.inference.numpyro.model_masks import hidden_entries, without_mask
from ppl_vae.inference.numpyro.network_state import run_again
from ppl_vae.inference.numpyro.program import Latents, Program
from ppl_vae.inference.numpyro.site_checks import (
    check_data_site,
    check_one_value_a_row,
    check_same_latents,
)
from ppl_vae.inference.numpyro.support import largest_value
from ppl_vae.refusals import COUPLED, DRAWS_ANEW, READS_MISSING

__all__ = ["check_program"]


def check_program(key: Array, program: Program) -> None:
    """Raise unless `program` can be sampled row by row.

    Raises:
        ValueError: unknown data site; sites of model and guide that do not match; a site without
            one value a row; rows that influence each other; scaled densities; parameters without
            values; data of another shape than the model's, or outside its likelihood's support.
        TypeError: whole numbers as data of a continuous likelihood.
        NotImplementedError: no rule for partially observed rows of this likelihood.
    """

    def trace(key: Array, x_obs: Array, mask: Array, params: dict[str, Any]) -> _Findings:
        return _trace(key, replace(program, x_obs=x_obs, mask=mask, params=params))

    found = jax.jit(trace)(key, program.x_obs, program.mask, program.params)
    _check_scales(found.scales)
    _check_hidden_latents(found.hidden_latents)
    _check_hidden_entries(program, found.hidden)
    refuse_altered(program, found.altered)
    refuse_outside(program.x_obs, found.outside, program.site)
    for message, changes in found.changes.items():
        for change in changes:
            _check_change(message, *change)


class _Findings(NamedTuple):
    """What depends on values; the rest is refused while the programs are traced."""

    scales: dict[str, Any]  # of sites, by role and name
    hidden_latents: dict[str, Array]  # whether a latent site's density is masked anywhere
    hidden: Array  # observed entries that the model masks, (B, *event)
    altered: Array  # observed entries that the model replaces by something else, (B, *event)
    outside: Array  # observed entries outside the likelihood's support, (B, *event)
    changes: dict[str, list[tuple[Array, Array]]]  # what must stay, by the message if not


def _trace(key: Array, program: Program) -> _Findings:
    key_model, key_guide, key_rows = random.split(key, 3)
    scales: dict[str, Any] = {}
    model_sites = _run(program, "model", key_model, scales)
    guide_sites = _run(program, "guide", key_guide, scales)
    check_data_site(program, model_sites)
    check_same_latents(program, model_sites, guide_sites)
    for role, sites in (("model", model_sites), ("guide", guide_sites)):
        for name, site in sites.items():
            check_one_value_a_row(role, name, site["fn"], program.x_obs.shape[0])
    likelihood = without_mask(model_sites[program.site]["fn"])
    _check_event_shape(program, likelihood)
    _check_dtype(program, likelihood)
    find_rule(likelihood)
    changes = _change_rows(program, key_rows)
    return _Findings(
        scales,
        {
            f"{name!r} of the {role}": hidden_entries(site["fn"], jnp.array(True)).any()
            for role, sites in (("model", model_sites), ("guide", guide_sites))
            for name, site in sites.items()
            if name != program.site and not site["is_observed"]
        },
        hidden_entries(model_sites[program.site]["fn"], program.mask),
        altered(program, model_sites[program.site]),
        entries_outside(program.x_obs, program.mask, likelihood),
        changes,
    )


def _run(program: Program, role: str, key: Array, scales: dict[str, Any]) -> dict[str, Any]:
    try:
        with _Refuse(role, scales):
            if role == "model":
                return program.trace_model(key=key)
            return program.trace_guide(program.x_obs, key=key)
    except _Refused:
        raise
    except Exception as error:
        raise ValueError(
            f"The {role} could not be run on data of shape {program.x_obs.shape} (rows, *event): "
            f"{type(error).__name__}: {error}{_remedy(error)}"
        ) from error


def _remedy(error: Exception) -> str:
    if "mutate" not in str(error):
        return ""
    return (
        "\nA program that is sampled must not change arrays of its own, as batch normalisation "
        "does in training mode: put its nets in evaluation mode."
    )


class _Refused(ValueError):
    """An error that already says its remedy."""


class _Refuse(Messenger):
    """Stops a program at what no sampler could make right; nothing has been changed by then."""

    def __init__(self, role: str, scales: dict[str, Any]) -> None:
        super().__init__()
        self.role = role
        self.scales = scales

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] in ("param", "mutable") and msg["value"] is None:
            is_state = msg["type"] == "mutable"
            kind = "state" if is_state else "parameter"
            more = "{**svi_result.params, **svi_result.state.mutable_state}"
            raise _Refused(
                f"The {kind} {msg['name']!r} of the {self.role} has no trained value and would "
                "start afresh: pass params=... to the kernel "
                f"(`{more if is_state else 'svi_result.params'}`, or "
                "`fitted.params`), or give the kernel `fitted.model` and `fitted.guide`."
            )
        if msg["type"] == "plate" and msg["args"][1] not in (None, msg["args"][0]):
            size, subsample_size = msg["args"]
            raise _Refused(
                f"The plate {msg['name']!r} of the {self.role} is subsampled, {subsample_size} of "
                f"{size} rows, which scales the densities. Make it a plate over all rows of x, "
                f"`numpyro.plate({msg['name']!r}, x.shape[0])`; rows left out need no sampling."
            )
        if msg["type"] == "sample" and msg["scale"] is not None:
            self.scales[f"{msg['name']!r} of the {self.role}"] = msg["scale"]


def _check_event_shape(program: Program, likelihood: dist.Distribution) -> None:
    expected, came = tuple(likelihood.event_shape), tuple(program.x_obs.shape[1:])
    if expected != came:
        raise ValueError(
            f"Rows of x have shape {came}, but site {program.site!r} of the model has event "
            f"shape {expected}. Reshape x to (rows, {', '.join(map(str, expected))})."
        )


def _check_hidden_latents(hidden: dict[str, Array]) -> None:
    for site, is_hidden in hidden.items():
        if is_hidden:
            raise ValueError(
                f"The log density of site {site} is masked, so that it is no density of the "
                "latents. Leave out the mask around it."
            )


def _check_hidden_entries(program: Program, hidden: Array) -> None:
    wrong = np.argwhere(np.asarray(hidden))
    if len(wrong):
        raise ValueError(
            f"The model masks {len(wrong)} entries of site {program.site!r} that are "
            f"observed, the first in row {wrong[0][0]}. Hide the same entries from the "
            "sampler, with `mask=` of `mcmc.run` or NaN."
        )


def _check_scales(scales: dict[str, Any]) -> None:
    for site, scale in scales.items():
        if np.any(np.asarray(scale) != 1):
            raise ValueError(
                f"The log density of site {site} is scaled by {np.asarray(scale)}, so that the "
                "draws would follow another posterior than the model's. Scale it in training "
                "only: leave out `handlers.scale` when sampling."
            )


def _check_dtype(program: Program, likelihood: dist.Distribution) -> None:
    support: Any = likelihood.support
    if jnp.issubdtype(program.x_obs.dtype, jnp.floating):
        return
    if support.is_discrete:
        dtype = str(program.x_obs.dtype)
        refuse_narrow(dtype, largest_value(support), program.site)
        return
    raise TypeError(
        f"x holds {program.x_obs.dtype}, but site {program.site!r} of the model is continuous: its "
        "draws would be cut to whole numbers. Pass x as floats, for example "
        "`x.astype('float32')`."
    )


def _change_rows(program: Program, key: Array) -> dict[str, list[tuple[Array, Array]]]:
    """Change row 0, all rows but row 0, and what is missing; return what must stay as it was."""
    key_prior, key_x, key_z, key_other, key_new, key_state = random.split(key, 6)
    *_, likelihood = program.decode(program.propose_from_prior(key_prior))
    x = program.impute(key_x, likelihood)
    x_new = complete(key_new, likelihood, program.x_obs, jnp.zeros_like(program.mask))
    z, other = program.propose(key_z, x), program.propose(key_other, x)

    def first_and_rest(first: Any, rest: Any) -> Any:
        return jax.tree.map(lambda a, b: b.at[0].set(a[0]), first, rest)

    def log_joint(z: Latents, program: Program = program) -> Array:
        log_prior, log_others, likelihood = program.decode(z)
        return log_prior + log_others + log_prob(likelihood, x)

    log_q, log_p = program.log_proposal(z, x), log_joint(z)
    first_new, rest_new = x.at[0].set(x_new[0]), x_new.at[0].set(x[0])
    again = run_again(key_state, program)
    return {
        DRAWS_ANEW.format(role="guide"): [(log_q, again.log_proposal(z, x))],
        DRAWS_ANEW.format(role="model"): [(log_p, log_joint(z, again))],
        READS_MISSING: [(log_p, log_joint(z, replace(program, x_obs=x)))],
        COUPLED.format(role="guide"): [
            (log_q.at[0].set(0), program.log_proposal(z, first_new).at[0].set(0)),
            (log_q[:1], program.log_proposal(z, rest_new)[:1]),
        ],
        COUPLED.format(role="model"): [
            (log_p.at[0].set(0), log_joint(first_and_rest(other, z)).at[0].set(0)),
            (log_p[:1], log_joint(first_and_rest(z, other))[:1]),
        ],
    }


def _check_change(message: str, before: Array, after: Array) -> None:
    with np.errstate(invalid="ignore"):  # data without density change nothing, -inf less -inf
        difference = np.abs(np.asarray(before) - np.asarray(after))
    changed = difference > 1e-3 * (1 + np.abs(np.asarray(before)))
    if changed.any():
        row = int(changed.argmax())
        raise ValueError(message.format(row=row, difference=float(difference[row])))
