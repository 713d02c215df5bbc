"""What a program must satisfy before it is sampled: checked once, with errors that say the remedy.

The samplers rely on rows being independent given the parameters: every site has one value a row,
and no row's values change another row's densities.
"""

from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro.distributions import Independent, MaskedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Distribution

from ppl_vae.incomplete_data import refuse_narrow
from ppl_vae.inference.pyro.data_checks import dtype_remedy, refuse_altered, refuse_unsupported
from ppl_vae.inference.pyro.folding import learn_to_fold
from ppl_vae.inference.pyro.likelihood import complete, find_rule, log_prob
from ppl_vae.inference.pyro.model_masks import hidden_entries, without_mask
from ppl_vae.inference.pyro.program import Latents, Program
from ppl_vae.inference.pyro.recorder import is_recorded_only
from ppl_vae.inference.pyro.site_checks import (
    check_data_site,
    check_one_value_a_row,
    check_same_latents,
)
from ppl_vae.inference.pyro.support import largest_value
from ppl_vae.refusals import COUPLED, DRAWS_ANEW, READS_MISSING

__all__ = ["check_program"]


def check_program(program: Program) -> None:
    """Raise unless `program` can be sampled row by row.

    Raises:
        ValueError: unknown data site; sites of model and guide that do not match; a site without
            one value a row; rows that influence each other; scaled densities; parameters without
            values; data of another shape than the model's, or outside its likelihood's support.
        TypeError: whole numbers as data of a continuous likelihood.
        NotImplementedError: no rule for partially observed rows of this likelihood.
    """
    model_sites = _run(program, "model")
    guide_sites = _run(program, "guide")
    check_data_site(program, model_sites)
    check_same_latents(program, model_sites, guide_sites)
    for role, sites in (("model", model_sites), ("guide", guide_sites)):
        for name, site in sites.items():
            check_one_value_a_row(role, name, site["fn"], program.x_obs.shape[0])
    hiding = model_sites[program.site]["fn"]
    _check_hidden_entries(program, hiding)
    likelihood = without_mask(hiding)
    _check_event_shape(program, likelihood)
    _check_dtype(program, likelihood)
    find_rule(likelihood)
    refuse_altered(program, model_sites[program.site])
    refuse_unsupported(program.x_obs, program.mask, likelihood, program.site)
    with pyro.validation_enabled(False):  # the guide may leave the prior's support
        _check_what_changes(program)
    learn_to_fold(program)


def _run(program: Program, role: str) -> dict[str, Any]:
    try:
        with _Refuse(role):
            if role == "model":
                return program.trace_model()
            return program.trace_guide(program.x_obs)
    except _Refused:
        raise
    except Exception as error:
        raise ValueError(
            f"The {role} could not be run on data of shape {tuple(program.x_obs.shape)}, "
            "(rows, *event): "
            f"{type(error).__name__}: {error}{dtype_remedy(error, program.x_obs)}"
        ) from error


class _Refused(ValueError):
    """An error that already says its remedy."""


class _Refuse(Messenger):
    """Stops a program at what no sampler could make right; nothing has been changed by then."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role

    def _pyro_param(self, msg: Any) -> None:
        is_weight = len(msg["args"]) > 1 and isinstance(msg["args"][1], torch.nn.Parameter)
        if msg["value"] is None and not is_weight and msg["name"] not in pyro.get_param_store():
            raise _Refused(
                f"The parameter {msg['name']!r} of the {self.role} has no trained value and would "
                "start afresh: train the program in this process, or load its values with "
                "`pyro.get_param_store().load(path)`."
            )

    def _pyro_sample(self, msg: Any) -> None:
        if is_recorded_only(msg):
            return
        if site_is_subsample(msg) and msg["fn"].subsample_size not in (None, msg["fn"].size):
            self._refuse_subsampled(msg["name"], msg["fn"].size, msg["fn"].subsample_size)
        for plate in () if site_is_subsample(msg) else msg["cond_indep_stack"]:
            if plate.full_size is not None and plate.full_size != plate.size:
                self._refuse_subsampled(plate.name, plate.full_size, plate.size)
        if not site_is_subsample(msg) and (torch.as_tensor(msg["scale"]) != 1).any():
            raise _Refused(
                f"The log density of site {msg['name']!r} of the {self.role} is scaled by "
                f"{msg['scale']}, so that the draws would follow another posterior than the "
                "model's. Scale it in training only: leave out `poutine.scale` when sampling."
            )
        hidden = msg["mask"] is not None and not torch.as_tensor(msg["mask"]).all()
        if not msg["is_observed"] and (hidden or _is_masked(msg["fn"])):
            self._refuse_masked(msg["name"])

    def _refuse_subsampled(self, name: str, size: int, subsample_size: int) -> None:
        raise _Refused(
            f"The plate {name!r} of the {self.role} is subsampled, {subsample_size} of "
            f"{size} rows, which scales the densities. Make it a plate over all rows of x, "
            f"`pyro.plate({name!r}, x.shape[0])`; rows left out need no sampling."
        )

    def _refuse_masked(self, name: str) -> None:
        raise _Refused(
            f"The log density of site {name!r} of the {self.role} is masked, so that it is no "
            "density of the latents. Leave out the mask around it."
        )


def _check_event_shape(program: Program, likelihood: Distribution) -> None:
    expected, came = tuple(likelihood.event_shape), tuple(program.x_obs.shape[1:])
    if expected != came:
        raise ValueError(
            f"Rows of x have shape {came}, but site {program.site!r} of the model has event "
            f"shape {expected}. Reshape x to (rows, {', '.join(map(str, expected))})."
        )


def _check_hidden_entries(program: Program, d: Distribution) -> None:
    wrong = hidden_entries(d, program.mask).nonzero()
    if len(wrong):
        raise ValueError(
            f"The model masks {len(wrong)} entries of site {program.site!r} that are "
            f"observed, the first in row {wrong[0][0]}. Hide the same entries from the "
            "sampler, with `mask=` of `mcmc.run` or NaN."
        )


def _is_masked(d: Any) -> bool:
    while isinstance(d, Independent | MaskedDistribution):
        if isinstance(d, MaskedDistribution):
            return d._mask is None or not torch.as_tensor(d._mask).all()
        d = d.base_dist
    return False


def _check_dtype(program: Program, likelihood: Distribution) -> None:
    support: Any = likelihood.support
    if program.x_obs.is_floating_point():
        return
    if support.is_discrete:
        dtype = str(program.x_obs.dtype).removeprefix("torch.")
        refuse_narrow(dtype, largest_value(support), program.site)
        return
    raise TypeError(
        f"x holds {program.x_obs.dtype}, but site {program.site!r} of the model is continuous: its "
        "draws would be cut to whole numbers. Pass x as floats, for example "
        "`x.astype('float32')`."
    )


def _check_what_changes(program: Program) -> None:
    """Change row 0, all rows but row 0, and what is missing: other densities must stay."""
    of_guide, of_model = (COUPLED.format(role=role) for role in ("guide", "model"))
    guide_again, model_again = (DRAWS_ANEW.format(role=role) for role in ("guide", "model"))
    *_, likelihood = program.decode(program.propose_from_prior(()))
    x = program.impute(likelihood)
    z = program.propose(x)
    x_new = complete(likelihood, program.x_obs, torch.zeros_like(program.mask))
    log_q = program.log_proposal(z, x)
    _refuse_if_changed(guide_again, log_q, program.log_proposal(z, x.clone()), slice(0, None))
    first_new, rest_new = torch.cat([x_new[:1], x[1:]]), torch.cat([x[:1], x_new[1:]])
    _refuse_if_changed(of_guide, log_q, program.log_proposal(z, first_new), slice(1, None))
    _refuse_if_changed(of_guide, log_q, program.log_proposal(z, rest_new), slice(0, 1))

    other = program.propose(x)
    joint = _joint(program, z, x)
    _refuse_if_changed(model_again, joint, _joint(program, z, x), slice(0, None))
    z_first_new = {name: torch.cat([other[name][:1], z[name][1:]]) for name in z}
    _refuse_if_changed(of_model, joint, _joint(program, z_first_new, x), slice(1, None))
    z_rest_new = {name: torch.cat([z[name][:1], other[name][1:]]) for name in z}
    _refuse_if_changed(of_model, joint, _joint(program, z_rest_new, x), slice(0, 1))
    filled = _joint(replace(program, x_obs=x), z, x)
    _refuse_if_changed(READS_MISSING, joint, filled, slice(0, None))


def _joint(program: Program, z: Latents, x: Tensor) -> Tensor:
    log_prior, log_others, likelihood = program.decode(z)
    return log_prior + log_others + log_prob(likelihood, x)


def _refuse_if_changed(message: str, before: Tensor, after: Tensor, unchanged: slice) -> None:
    difference = (before - after).abs()[unchanged]
    changed = difference > 1e-3 * (1 + before[unchanged].abs())
    if changed.any():
        at = int(changed.to(torch.int).argmax())
        told = {"row": at + unchanged.start, "difference": float(difference[at])}
        raise ValueError(message.format(**told))
