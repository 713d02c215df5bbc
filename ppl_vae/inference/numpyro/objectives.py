"""Training objectives with NumPyro's own ELBO interface, right for partially observed rows.

An objective is one equation, `bound(key, program)`: a lower bound on log p(x_o) per row, shape
(B,), in nats.  It runs in `numpyro.infer.SVI` and in `fit(objective=...)`.
"""

from collections.abc import Callable
from typing import Any

from jax import Array
from numpyro import infer

from ppl_vae.inference.numpyro.program import Program, split_data

__all__ = ["ELBO", "find_objective"]


class ELBO(infer.elbo.ELBO):
    """The evidence lower bound, by one draw of the latents a row.

        log p(x_o | z) + log p(z) - log q(z | x),  z ~ q(z | x)

    With missing entries it bounds log p(x_o); the guide then sees zeros where x is missing, and
    the mask if it has a parameter of that name. Every latent site of the guide must be
    reparameterised.

    Args:
        site: name of the data site.

    Raises:
        ValueError: when run, if a site of the guide cannot be reparameterised.

    Example:
        >>> import optax
        >>> from jax import numpy as jnp, random
        >>> from numpyro.infer import SVI
        >>> from ppl_vae.numpyro import ELBO, VAE
        >>> vae = VAE((4,), 2, hidden=(8,))
        >>> svi = SVI(vae.model, vae.guide, optax.adam(1e-3), ELBO())
        >>> state, loss = svi.update(svi.init(random.key(0), jnp.ones((3, 4))), jnp.ones((3, 4)))
    """

    def __init__(self, *, site: str = "x") -> None:
        super().__init__()
        self.site = site

    def bound(self, key: Array, program: Program) -> Array:
        """Return the bound of each row, shape (B,)."""
        x = program.x_obs
        z = program.propose_reparameterised(key, x)
        log_prior, likelihood = program.decode(z)
        return program.log_observed(likelihood) + log_prior - program.log_proposal(z, x)

    def loss_with_mutable_state(
        self,
        rng_key: Array,
        param_map: dict[str, Any],
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return minus the sum of the bound over rows, as NumPyro's SVI expects it."""
        x, args = args[0], args[1:]
        kwargs = dict(kwargs)
        x_obs, mask = split_data(x, kwargs.pop("mask", None))
        program = Program(model, guide, x_obs, mask, self.site, dict(param_map), args, kwargs)
        return {"loss": -self.bound(rng_key, program).sum(), "mutable_state": None}


OBJECTIVES = {"elbo": ELBO}


def find_objective(objective: str | ELBO, site: str) -> ELBO:
    """Return an objective by name, or the one given.

    Raises:
        ValueError: if no objective has this name.
    """
    if not isinstance(objective, str):
        return objective
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {sorted(OBJECTIVES)}, got {objective!r}.")
    return OBJECTIVES[objective](site=site)
