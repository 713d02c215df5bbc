"""The objectives that `fit(objective=...)` knows by name."""

from ppl_vae.inference.pyro.analytic_elbo import AnalyticELBO
from ppl_vae.inference.pyro.forward_kl import ForwardKL
from ppl_vae.inference.pyro.importance_weighted import IWAE
from ppl_vae.inference.pyro.objectives import ELBO, STL, Objective

__all__ = ["OBJECTIVES", "find_objective"]

OBJECTIVES = {
    "analytic-elbo": AnalyticELBO,
    "elbo": ELBO,
    "forward-kl": ForwardKL,
    "iwae": IWAE,
    "stl": STL,
}
"""Each with its defaults."""


def find_objective(objective: str | Objective, site: str) -> Objective:
    """Return an objective by name, or the one given.

    Raises:
        ValueError: if no objective has this name.
        TypeError: if it is neither a name nor an objective of this library.
    """
    if isinstance(objective, Objective):
        return objective
    if not isinstance(objective, str):
        raise TypeError(
            f"objective must be a name of {sorted(OBJECTIVES)} or an objective of this library "
            f"such as ELBO(), got {objective!r}. The host's own run in its SVI."
        )
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {sorted(OBJECTIVES)}, got {objective!r}.")
    return OBJECTIVES[objective](site=site)
