"""What a program must satisfy before it is sampled: checked once, with errors that say the remedy.

The samplers rely on rows being independent given the parameters: every site has one value a row,
and no row's values change another row's densities.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ppl_vae.inference.pyro.likelihood import find_rule
from ppl_vae.inference.pyro.program import Latents, Program

__all__ = ["check_program"]


def check_program(program: Program) -> None:
    """Raise unless `program` can be sampled row by row.

    Raises:
        ValueError: unknown data site; sites of model and guide that do not match; a site without
            one value a row; rows that influence each other; parameters without values; data of
            another shape than the model's, or outside the support of its likelihood.
        NotImplementedError: no rule for partially observed rows of this likelihood.
    """
    model_sites = _run(program, "model")
    guide_sites = _run(program, "guide")
    _check_data_site(program, model_sites)
    _check_same_latents(program, model_sites, guide_sites)
    for role, sites in (("model", model_sites), ("guide", guide_sites)):
        for name, site in sites.items():
            _check_one_value_a_row(role, name, site["fn"], program.x_obs.shape[0])
    likelihood = model_sites[program.site]["fn"]
    _check_event_shape(program, likelihood)
    find_rule(likelihood)
    _check_support(program, likelihood)
    if program.x_obs.shape[0] > 1:
        _check_rows_independent(program)


def _run(program: Program, role: str) -> dict[str, Any]:
    try:
        if role == "model":
            return program.trace_model()
        return program.trace_guide(program.x_obs)
    except Exception as error:
        raise ValueError(
            f"The {role} could not be run on data of shape {tuple(program.x_obs.shape)}, "
            "(rows, *event): "
            f"{type(error).__name__}: {error}"
        ) from error


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


def _check_one_value_a_row(role: str, name: str, d: Distribution, num_rows: int) -> None:
    if tuple(d.batch_shape) == (num_rows,):
        return
    remedy = "Draw it inside `pyro.plate('rows', x.shape[0])`"
    if tuple(d.batch_shape[:1]) == (num_rows,) and len(d.batch_shape) > 1:
        remedy = f"Declare its other dimensions with `.to_event({len(d.batch_shape) - 1})`"
    raise ValueError(
        f"Site {name!r} of the {role} must have one value a row, batch_shape ({num_rows},); "
        f"it has batch_shape {tuple(d.batch_shape)} and event_shape {tuple(d.event_shape)}. "
        f"{remedy}."
    )


def _check_event_shape(program: Program, likelihood: Distribution) -> None:
    expected, came = tuple(likelihood.event_shape), tuple(program.x_obs.shape[1:])
    if expected != came:
        raise ValueError(
            f"Rows of x have shape {came}, but site {program.site!r} of the model has event "
            f"shape {expected}. Reshape x to (rows, {', '.join(map(str, expected))})."
        )


def _check_support(program: Program, likelihood: Distribution) -> None:
    x, mask = program.x_obs, program.mask
    support: Any = likelihood.support
    inside = support.check(x)
    if inside.shape != mask.shape:
        inside = _entry_support(support).check(x)
    if inside.shape != mask.shape:
        return  # a support that couples entries, such as the simplex: its rule decides
    outside = (mask & ~inside).nonzero()
    if len(outside):
        row, *feature = outside[0].tolist()
        raise ValueError(
            f"x has {len(outside)} observed values outside the support of site "
            f"{program.site!r} ({_entry_support(likelihood.support)}); the first is "
            f"{x[tuple(outside[0])].item()} at row {row}, feature "
            f"{feature[0] if len(feature) == 1 else tuple(feature)}. "
            "Transform the data (binarise, rescale), or use a likelihood that fits it."
        )


def _entry_support(support: Any) -> Any:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def _check_rows_independent(program: Program) -> None:
    """Give row 0 the data, then the latents, of the last row: no other density may change."""
    _, likelihood = program.decode(program.propose_from_prior(()))
    x = program.impute(likelihood)
    z = program.propose(x)
    swapped = x.clone()
    swapped[0] = x[-1]
    _refuse_if_changed("guide", program.log_proposal(z, x), program.log_proposal(z, swapped))

    other = program.propose(x)
    z_swapped = {name: torch.cat([other[name][:1], z[name][1:]]) for name in z}
    _refuse_if_changed("model", _joint(program, z, x), _joint(program, z_swapped, x))


def _joint(program: Program, z: Latents, x: Tensor) -> Tensor:
    log_prior, likelihood = program.decode(z)
    return log_prior + likelihood.log_prob(x)


def _refuse_if_changed(role: str, before: Tensor, after: Tensor) -> None:
    difference = (before[1:] - after[1:]).abs()
    changed = difference > 1e-3 * (1 + before[1:].abs())
    if changed.any():
        row = int(changed.to(torch.int).argmax()) + 1
        raise ValueError(
            f"The rows of the {role} are not independent: changing row 0 changed the log density "
            f"of row {row} by {float(difference[row - 1]):.3g}. Remove what couples rows, for "
            "example batch normalisation in training mode or a mean over the batch."
        )
