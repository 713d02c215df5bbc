"""The objectives that `fit(objective=...)` knows by name."""

from ppl_vae.inference.pyro.analytic_elbo import AnalyticELBO
from ppl_vae.inference.pyro.doubly_reparameterised import DReG
from ppl_vae.inference.pyro.forward_kl import ForwardKL
from ppl_vae.inference.pyro.generalised_dreg import GDReG
from ppl_vae.inference.pyro.importance_weighted import IWAE, IWAESTL, NormalisedIWAE
from ppl_vae.inference.pyro.interpolated_bounds import CIWAE, Renyi
from ppl_vae.inference.pyro.jackknife import JVI
from ppl_vae.inference.pyro.objectives import ELBO, STL, Objective
from ppl_vae.inference.pyro.reweighted_wake_sleep import RWS, RWSDReG

__all__ = ["OBJECTIVES", "find_objective"]

OBJECTIVES = {
    "analytic-elbo": AnalyticELBO,
    "ciwae": CIWAE,
    "dreg": DReG,
    "elbo": ELBO,
    "forward-kl": ForwardKL,
    "gdreg": GDReG,
    "iwae": IWAE,
    "iwae-stl": IWAESTL,
    "jvi": JVI,
    "normalised-iwae": NormalisedIWAE,
    "renyi": Renyi,
    "rws": RWS,
    "rws-dreg": RWSDReG,
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
