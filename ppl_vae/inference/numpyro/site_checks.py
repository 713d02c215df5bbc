"""What the sites of every program must satisfy, be it sampled or trained."""

from typing import Any

import numpyro.distributions as dist

from ppl_vae.inference.numpyro.program import Program

__all__ = ["check_data_site", "check_one_value_a_row", "check_same_latents"]


def check_data_site(program: Program, sites: dict[str, Any]) -> None:
    """Refuse a model that does not observe the data site."""
    observed = [name for name, site in sites.items() if site["is_observed"]]
    if program.site not in observed:
        raise ValueError(
            f"The model has no observed site {program.site!r}; its observed sites are {observed} "
            f"and its latent sites {sorted(set(sites) - set(observed))}. "
            "Name the data site with `site=...`, and give it `obs=x` in the model."
        )


def check_same_latents(program: Program, model_sites: dict, guide_sites: dict) -> None:
    """Refuse a guide that samples other latent sites than the model."""
    observed = sorted(name for name, site in guide_sites.items() if site["is_observed"])
    if observed:
        raise ValueError(
            f"Sites {observed} of the guide are observed, or factors: a guide draws latents and "
            "weighs nothing. Move them into the model."
        )
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


def check_one_value_a_row(role: str, name: str, d: dist.Distribution, num_rows: int) -> None:
    """Refuse a site that has not one value for each row."""
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
