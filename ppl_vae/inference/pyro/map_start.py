"""Starts at the latents that explain the observed entries best.

Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated
approximate ancestral sampling, TMLR, appendix (there by stochastic gradient ascent; here by Adam,
with the same cosine schedule).  https://arxiv.org/abs/2308.09078

Shapes: C chains, P particles, B rows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ppl_vae.counts import check_at_least
from ppl_vae.inference.pyro.estimators import checked_program
from ppl_vae.inference.pyro.program import Latents, Program
from ppl_vae.inference.pyro.rows import take_rows
from ppl_vae.inference.pyro.starting import HandOver
from ppl_vae.inference.pyro.unconstrained import (
    decode_unconstrained,
    require_continuous,
    to_unconstrained,
)

__all__ = ["map_start"]


def map_start(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Any,
    *args: Any,
    mask: Any = None,
    site: str = "x",
    num_chains: int = 1,
    num_particles: int = 5,
    num_steps: int = 120,
    learning_rate: float = 0.05,
    **kwargs: Any,
) -> HandOver:
    """Return starts for the chains of any kernel, at modes of p(z | x_o).

    Each chain's best of P latents drawn from the prior, after gradient ascent on log p(x_o, z), and
    a draw x_m ~ p(x_m | x_o, z). Chains may end in one mode together: compare several starts before
    R-hat is believed.

    Args:
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: as for the kernels; it is checked, and not used.
        x: data, shape (rows, *event), NaN where missing.
        *args: further arguments of the model.
        mask: bool, the shape of x, True = observed; by default what is not NaN.
        site: name of the data site.
        num_chains: C, as given to `MCMC`.
        num_particles: P, at least 1.
        num_steps: of Adam, at least 1.
        learning_rate: of Adam in unconstrained coordinates, falling to 0 by a cosine.
        **kwargs: further keyword arguments of the model.

    Returns:
        What `mcmc.run(..., init_params=...)` takes.

    Raises:
        ValueError: a latent site is discrete, a number is out of range, or bad data or programs.

    Example:
        >>> import pyro
        >>> from ppl_vae.pyro import MCMC, MWGKernel, VAE, fit, map_start
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> pyro.set_rng_seed(0)
        >>> data = digits(binary=True)
        >>> fitted = fit(VAE((64,), 4), data.x_train, num_steps=20)
        >>> x = with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64))
        >>> start = map_start(fitted.model, fitted.guide, x)
        >>> mcmc = MCMC(MWGKernel(fitted.model, fitted.guide), num_warmup=5, num_samples=10)
        >>> mcmc.run(x, init_params=start)
    """
    check_at_least(1, num_chains=num_chains, num_particles=num_particles, num_steps=num_steps)
    if not 0 < learning_rate < np.inf:
        raise ValueError(f"learning_rate must be above 0 and finite, got {learning_rate}.")
    program = checked_program(model, guide, x, args, mask, site, kwargs)
    require_continuous(program)

    z = program.propose_from_prior((num_chains, num_particles))
    u, _ = to_unconstrained(program, z)
    values = _best(program, _climb(program, u, num_steps, learning_rate))
    return HandOver(values, f"map_start, {num_steps} iterations")


def _climb(program: Program, u: Latents, num_steps: int, learning_rate: float) -> Latents:
    """Ascend log p(x_o, z(u)) from u, each (C, P, B, ...)."""
    u = {name: value.detach().clone().requires_grad_() for name, value in u.items()}
    adam = torch.optim.Adam(u.values(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, num_steps)
    for _ in range(num_steps):
        at, _ = decode_unconstrained(program, u)
        loss = -(at.log_prior + at.log_observed).sum()
        gradients = torch.autograd.grad(loss, list(u.values()))
        for value, gradient in zip(u.values(), gradients, strict=True):
            value.grad = gradient
        adam.step()
        schedule.step()
    return {name: value.detach() for name, value in u.items()}


@torch.no_grad()
def _best(program: Program, u: Latents) -> Latents:
    """The best particle of each chain and row, and a completion drawn from it."""
    at, _ = decode_unconstrained(program, u)
    lp = at.log_prior + at.log_observed
    best = torch.where(lp.isnan(), -torch.inf, lp).argmax(1, keepdim=True)
    z, likelihood = take_rows((at.z, at.likelihood), best)
    x = program.impute(likelihood)
    return {program.site: x[:, 0], **{name: value[:, 0] for name, value in z.items()}}
