"""Fitting the guide alone to a model as it stands, by draws from the model."""

import pyro
import torch
from torch import Tensor

from ppl_vae.incomplete_data import take_data_site
from ppl_vae.inference.pyro.model_masks import without_mask
from ppl_vae.inference.pyro.objectives import Objective
from ppl_vae.inference.pyro.program import Program

__all__ = ["ForwardKL"]


class ForwardKL(Objective):
    """The guide's log density at draws from the model, which stays as it is.

        log q(z | x_o),  (z, x) ~ p(z, x),  x_o = the entries of x that the batch's mask shows

    Its maximum is the guide closest to p(z | x_o) in KL(p || q), on average over the model's own
    data: it covers all modes, and fits a guide to incomplete rows if it is trained with masks.
    Of the batch, it uses the number of rows, the masks and the further arguments (labels), and
    not the data. No gradient reaches the model. Latents may be discrete. This is the sleep phase
    of Hinton et al. (1995); Bornschein and Bengio (2015), Reweighted wake-sleep,
    https://arxiv.org/abs/1406.2751.

    Args:
        site: name of the data site.

    Example:
        >>> import pyro
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.pyro import VAE, fit
        >>> pyro.set_rng_seed(0)
        >>> x = digits(binary=True).x_train
        >>> fitted = fit(VAE((64,), 4), x, num_steps=20)
        >>> refitted = fit(fitted, x, objective="forward-kl", num_steps=20)
        >>> refitted.losses.shape
        (20,)
    """

    def value(self, program: Program) -> Tensor:
        """Return log q(z | x_o) at a draw for each row, shape (B,)."""
        z, x = draw_from_model(program)
        return program.log_proposal(z, torch.where(program.mask, x, torch.zeros_like(x)))


def draw_from_model(program: Program) -> tuple[dict[str, Tensor], Tensor]:
    """Draw (z, x) ~ p(z, x), one pair for each row of the batch, without gradient."""
    # Blocked, so that optimisers and checkpoints get the parameters of the guide alone.
    with torch.no_grad(), pyro.poutine.block():
        sites = program.trace_model()
        x = without_mask(take_data_site(sites, program.site)["fn"]).sample()
    z = {name: site["value"] for name, site in sites.items() if not site["is_observed"]}
    return z, x.to(program.x_obs.dtype)
