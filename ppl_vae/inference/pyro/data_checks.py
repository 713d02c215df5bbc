"""What the data must satisfy that a program is given, be it sampled or trained."""

from typing import Any

from torch import Tensor
from torch.distributions import Distribution

from ppl_vae.incomplete_data import refuse_outside, take_data_site
from ppl_vae.inference.pyro.model_masks import without_mask
from ppl_vae.inference.pyro.program import Program

__all__ = ["check_observed", "dtype_remedy", "refuse_altered", "refuse_unsupported"]


def refuse_altered(program: Program, site: dict[str, Any]) -> None:
    """Raise a `ValueError` if the data site observes something else than x."""
    value = site["value"]
    if value.shape != program.x_obs.shape:
        return  # its event shape is refused elsewhere
    wrong = (program.mask & (value.to(program.x_obs.dtype) != program.x_obs)).nonzero()
    if len(wrong):
        raise ValueError(
            f"Site {program.site!r} of the model does not observe x as it was given, first in row "
            f"{wrong[0][0]}. Write `obs=x` in the model, and transform or rescale the data before."
        )


def refuse_unsupported(x: Tensor, mask: Tensor, likelihood: Distribution, site: str) -> None:
    """Raise a `ValueError` if observed entries lie outside the likelihood's support."""
    support: Any = likelihood.support
    inside = support.check(x)
    if inside.shape != mask.shape:
        inside = _entry_support(support).check(x)
    if inside.shape != mask.shape:
        return  # a support that couples entries, such as the simplex: its rule decides
    refuse_outside(x.cpu(), (mask & ~inside).cpu(), site)


def check_observed(program: Program, x: Tensor, mask: Tensor) -> None:
    """Raise a `ValueError` for rows that are not what the model observes, or outside its support.

    Args:
        program: bound to a batch of the rows.
        x: all rows, or the batch where the support depends on the row, (rows, *event).
        mask: shape of x, True where it is observed.
    """
    site = take_data_site(program.trace_model(), program.site)
    refuse_altered(program, site)
    likelihood = without_mask(site["fn"])
    if likelihood.event_shape == x.shape[1:]:
        try:
            refuse_unsupported(x, mask, likelihood, program.site)
        except RuntimeError:  # the support has bounds for each row of the batch
            refuse_unsupported(program.x_obs, program.mask, likelihood, program.site)


def dtype_remedy(error: Exception, x: Tensor) -> str:
    """Return what to do about an error of torch's that tells of types, or an empty string."""
    if "dtype" not in str(error):
        return ""
    return f"\nx is {x.dtype}: pass it in the type of the program's weights, such as `x.float()`."


def _entry_support(support: Any) -> Any:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support
