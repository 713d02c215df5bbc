"""What a program must satisfy before it is sampled: checked once, with errors that say the remedy.

The samplers rely on rows being independent given the parameters: every site has one value a row,
and no row's values change another row's densities.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, random
from numpyro.primitives import Messenger

from ppl_vae.inference.numpyro.likelihood import find_rule, log_prob
from ppl_vae.inference.numpyro.program import Latents, Program, without_mask

__all__ = ["check_program"]


def check_program(key: Array, program: Program) -> None:
    """Raise unless `program` can be sampled row by row.

    Raises:
        ValueError: unknown data site; sites of model and guide that do not match; a site without
            one value a row; rows that influence each other; parameters without values; data of
            another shape than the model's, or outside the support of its likelihood.
        NotImplementedError: no rule for partially observed rows of this likelihood.
    """
    key_model, key_guide, key_rows = random.split(key, 3)
    model_sites = _run(program, "model", key_model)
    guide_sites = _run(program, "guide", key_guide)
    _check_data_site(program, model_sites)
    _check_same_latents(program, model_sites, guide_sites)
    for role, sites in (("model", model_sites), ("guide", guide_sites)):
        for name, site in sites.items():
            _check_one_value_a_row(role, name, site["fn"], program.x_obs.shape[0])
    hiding = model_sites[program.site]["fn"]
    _check_hidden_entries(program, hiding)
    likelihood = without_mask(hiding)
    _check_event_shape(program, likelihood)
    find_rule(likelihood)
    _check_support(program, likelihood)
    if program.x_obs.shape[0] > 1:
        _check_rows_independent(program, key_rows)


def _run(program: Program, role: str, key: Array) -> dict[str, Any]:
    try:
        with _Refuse(role):
            if role == "model":
                return program.trace_model(key=key)
            return program.trace_guide(program.x_obs, key=key)
    except _Refused:
        raise
    except Exception as error:
        raise ValueError(
            f"The {role} could not be run on data of shape {program.x_obs.shape} (rows, *event): "
            f"{type(error).__name__}: {error}"
        ) from error


class _Refused(ValueError):
    """An error that already says its remedy."""


class _Refuse(Messenger):
    """Stops a program at what no sampler could make right; nothing has been changed by then."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] in ("param", "mutable") and msg["value"] is None:
            raise _Refused(
                f"The parameter {msg['name']!r} of the {self.role} has no trained value and would "
                "start afresh: pass params=... to the kernel (`svi_result.params`, or "
                "`fitted.params`), or give the kernel `fitted.model` and `fitted.guide`."
            )
        if msg["type"] == "plate" and msg["args"][1] not in (None, msg["args"][0]):
            size, subsample_size = msg["args"]
            raise _Refused(
                f"The plate {msg['name']!r} of the {self.role} is subsampled, {subsample_size} of "
                f"{size} rows, which scales the densities. Make it a plate over all rows of x, "
                f"`numpyro.plate({msg['name']!r}, x.shape[0])`; rows left out need no sampling."
            )


def _check_data_site(program: Program, sites: dict[str, Any]) -> None:
    observed = [name for name, site in sites.items() if site["is_observed"]]
    if program.site not in observed:
        raise ValueError(
            f"The model has no observed site {program.site!r}; its observed sites are {observed} "
            f"and its latent sites {sorted(set(sites) - set(observed))}. "
            "Name the data site with `site=...`, and give it `obs=x` in the model."
        )


def _check_same_latents(program: Program, model_sites: dict, guide_sites: dict) -> None:
    in_model = {name for name, site in model_sites.items() if not site["is_observed"]}
    in_guide = {name for name, site in guide_sites.items() if not site["is_observed"]}
    if in_model - in_guide:
        raise ValueError(
            f"Latent sites {sorted(in_model - in_guide)} of the model are not sampled by the "
            f"guide, which has {sorted(in_guide)}. Sample them in the guide too."
        )
    if in_guide - in_model:
        raise ValueError(
            f"Sites {sorted(in_guide - in_model)} of the guide are no latent sites of the model, "
            f"which has {sorted(in_model)}. Use the same names in both."
        )


def _check_one_value_a_row(role: str, name: str, d: dist.Distribution, num_rows: int) -> None:
    if tuple(d.batch_shape) == (num_rows,):
        return
    remedy = "Draw it inside `numpyro.plate('rows', x.shape[0])`"
    if tuple(d.batch_shape[:1]) == (num_rows,) and len(d.batch_shape) > 1:
        remedy = f"Declare its other dimensions with `.to_event({len(d.batch_shape) - 1})`"
    raise ValueError(
        f"Site {name!r} of the {role} must have one value a row, batch_shape ({num_rows},); "
        f"it has batch_shape {tuple(d.batch_shape)} and event_shape {tuple(d.event_shape)}. "
        f"{remedy}."
    )


def _check_event_shape(program: Program, likelihood: dist.Distribution) -> None:
    expected, came = tuple(likelihood.event_shape), tuple(program.x_obs.shape[1:])
    if expected != came:
        raise ValueError(
            f"Rows of x have shape {came}, but site {program.site!r} of the model has event "
            f"shape {expected}. Reshape x to (rows, {', '.join(map(str, expected))})."
        )


def _check_support(program: Program, likelihood: dist.Distribution) -> None:
    inside = np.asarray(likelihood.support.check(program.x_obs))
    mask = np.asarray(program.mask)
    if inside.shape != mask.shape:
        inside = np.asarray(_entry_support(likelihood.support).check(program.x_obs))
    if inside.shape != mask.shape:
        return  # a support that couples entries, such as the simplex: its rule decides
    outside = np.argwhere(mask & ~inside)
    if len(outside):
        row, *feature = (int(i) for i in outside[0])
        value = np.asarray(program.x_obs)[tuple(outside[0])]
        raise ValueError(
            f"x has {len(outside)} observed values outside the support of site "
            f"{program.site!r} ({_entry_support(likelihood.support)}); the first is {value} at "
            f"row {row}, feature {feature[0] if len(feature) == 1 else tuple(feature)}. "
            "Transform the data (binarise, rescale), or use a likelihood that fits it."
        )


def _check_hidden_entries(program: Program, d: dist.Distribution) -> None:
    """Refuse a `mask` handler or `d.mask(...)` that hides more than what is missing."""
    while isinstance(d, dist.Independent | dist.MaskedDistribution):
        if isinstance(d, dist.MaskedDistribution):
            shown = np.broadcast_to(np.asarray(d._mask), d.batch_shape)
            shown = shown.reshape(*shown.shape, *(1,) * (program.x_obs.ndim - shown.ndim))
            wrong = np.argwhere(np.asarray(program.mask) & ~shown)
            if len(wrong):
                raise ValueError(
                    f"The model masks {len(wrong)} entries of site {program.site!r} that are "
                    f"observed, the first in row {wrong[0][0]}. Hide the same entries from the "
                    "sampler, with `mask=` of `mcmc.run` or NaN."
                )
        d = d.base_dist


def _entry_support(support: Any) -> Any:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def _check_rows_independent(program: Program, key: Array) -> None:
    """Change row 0, then all rows but row 0: the densities of the unchanged must stay."""
    key_x, key_z, key_other = random.split(key, 3)
    _, likelihood = program.decode(program.propose_from_prior(key_x))
    x = program.impute(key_x, likelihood)
    z = program.propose(key_z, x)
    log_q = program.log_proposal(z, x)
    others_as_first, first_as_last = jnp.broadcast_to(x[:1], x.shape), x.at[0].set(x[-1])
    _refuse_if_changed("guide", log_q, program.log_proposal(z, first_as_last), slice(1, None))
    _refuse_if_changed("guide", log_q, program.log_proposal(z, others_as_first), slice(0, 1))

    other = program.propose(key_other, x)
    joint = _joint(program, z, x)
    first_new = jax.tree.map(lambda a, b: a.at[0].set(b[0]), z, other)
    _refuse_if_changed("model", joint, _joint(program, first_new, x), slice(1, None))
    others_new = jax.tree.map(lambda a, b: b.at[0].set(a[0]), z, other)
    _refuse_if_changed("model", joint, _joint(program, others_new, x), slice(0, 1))


def _joint(program: Program, z: Latents, x: Array) -> Array:
    log_prior, likelihood = program.decode(z)
    return log_prior + log_prob(likelihood, x)


def _refuse_if_changed(role: str, before: Array, after: Array, unchanged: slice) -> None:
    difference = jnp.abs(before - after)[unchanged]
    changed = difference > 1e-3 * (1 + jnp.abs(before[unchanged]))
    if bool(changed.any()):
        at = int(jnp.argmax(changed))
        raise ValueError(
            f"The rows of the {role} are not independent: changing other rows changed the log "
            f"density of row {at + unchanged.start} by {float(difference[at]):.3g}. Remove what "
            "couples rows, for example batch normalisation in training mode or a mean over the "
            "batch."
        )
