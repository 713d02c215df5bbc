"""Training objectives with Pyro's own ELBO interface, right for partially observed rows.

An objective is one equation, `bound(program)`: a lower bound on log p(x_o) per row, shape (B,), in
nats.  It runs in `pyro.infer.SVI` and in `fit(objective=...)`.
"""

from collections.abc import Callable
from typing import Any

from pyro import infer
from torch import Tensor

from ppl_vae.inference.pyro.mcmc import take_data
from ppl_vae.inference.pyro.program import Program, split_data

__all__ = ["ELBO", "find_objective"]


class ELBO(infer.ELBO):
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
        >>> import pyro, torch
        >>> from pyro.infer import SVI
        >>> from ppl_vae.pyro import ELBO, VAE
        >>> vae = VAE((4,), 2, hidden=(8,))
        >>> svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), ELBO())
        >>> loss = svi.step(torch.ones(3, 4))
    """

    def __init__(self, *, site: str = "x") -> None:
        super().__init__()
        self.site = site

    def bound(self, program: Program) -> Tensor:
        """Return the bound of each row, shape (B,)."""
        x = program.x_obs
        z = program.propose_reparameterised(x)
        log_prior, likelihood = program.decode(z)
        return program.log_observed(likelihood) + log_prior - program.log_proposal(z, x)

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return minus the sum of the bound over rows, as a tensor with gradients."""
        x, args, mask, kwargs = take_data(args, kwargs)
        x_obs, mask = split_data(x, mask)
        return -self.bound(Program(model, guide, x_obs, mask, self.site, args, kwargs)).sum()

    def loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> float:
        """Return minus the sum of the bound over rows."""
        return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> float:
        """Return the loss, and add its gradients to the parameters'."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return loss.item()

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError("This objective runs the program by itself.")


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
