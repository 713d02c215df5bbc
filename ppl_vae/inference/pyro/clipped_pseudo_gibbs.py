"""Pseudo-Gibbs kept within a range: for decoders that pseudo-Gibbs drives to infinity.

With normal decoders and many missing entries pseudo-Gibbs may run away: each imputation a little
farther out than the last. Simkus and Gutmann (2023) clip it to twice the range of the data.
https://arxiv.org/abs/2308.09078
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppl_vae.entry_bounds import check_bounds, check_holds_integers, check_shape
from ppl_vae.inference.pyro import pseudo_gibbs
from ppl_vae.inference.pyro.mcmc import ProgramKernel
from ppl_vae.inference.pyro.program import Latents, Program
from ppl_vae.inference.pyro.pseudo_gibbs import PseudoGibbsState
from ppl_vae.inference.pyro.starting import within_prior

__all__ = [
    "ClippedPseudoGibbsInfo",
    "ClippedPseudoGibbsKernel",
    "ClippedPseudoGibbsState",
    "clip",
    "doubled_range",
    "step",
]


class ClippedPseudoGibbsState(NamedTuple):
    """What the next step needs."""

    x: Tensor  # completed rows, (C, B, *event)
    z: Latents  # the latents they were drawn from, each (C, B, ...)
    low: Tensor  # lower bound of each entry, (*event)
    high: Tensor  # upper bound, (*event)


class ClippedPseudoGibbsInfo(NamedTuple):
    """Sample statistics of one step, per row."""

    lp: Tensor  # log p(x_o, z), (C, B)
    clipped: Tensor  # share of the missing entries that were clipped, (C, B)
    diverging: Tensor  # a draw was not finite and the entry stayed as it was, bool, (C, B)


def doubled_range(x_obs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return bounds of each entry: the range observed in the rows, doubled about its middle.

    Entries of which the rows show no two different values are unbounded.
    """
    low = torch.where(mask, x_obs, torch.inf).amin(0)
    high = torch.where(mask, x_obs, -torch.inf).amax(0)
    reach, seen = (high - low) / 2, high > low
    return torch.where(seen, low - reach, -torch.inf), torch.where(seen, high + reach, torch.inf)


def clip(
    x: Tensor, before: Tensor, low: Tensor, high: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Clip the missing entries of x, keeping the former value where x is not finite.

    Returns:
        The rows, the share of missing entries clipped and whether one was not finite, per row.
    """
    per_row = (*x.shape[:2], -1)
    missing = ~mask.expand(x.shape)
    not_finite = ~x.isfinite() & missing
    x = torch.where(not_finite, before, x)
    outside = ((x < low) | (x > high)) & missing
    share = outside.reshape(per_row).sum(2) / missing.reshape(per_row).sum(2).clamp(min=1)
    x = torch.where(outside, x.to(low).clamp(low, high).to(x), x)
    return x, share, not_finite.reshape(per_row).any(2)


def step(
    program: Program, state: ClippedPseudoGibbsState
) -> tuple[ClippedPseudoGibbsState, ClippedPseudoGibbsInfo]:
    """Draw z ~ q(z | x) and x_m ~ p(x_m | x_o, z), and clip x_m."""
    (x, z), of_draw = pseudo_gibbs.step(program, PseudoGibbsState(state.x, state.z))
    x, clipped, diverging = clip(x, state.x, state.low, state.high, program.mask)
    info = ClippedPseudoGibbsInfo(of_draw.lp, clipped, diverging)
    return ClippedPseudoGibbsState(x, z, state.low, state.high), info


class ClippedPseudoGibbsKernel(ProgramKernel):
    """Pseudo-Gibbs with missing entries clipped to the observed range, doubled about its middle.

    Biased as `PseudoGibbsKernel` is, and by the clipping. The statistic `clipped` says how often it
    happened; take another kernel for anything but a start. Without `bounds` the range is that of
    the rows of the run, so that a row's draws depend on its company. Discrete data are clipped to
    the integers within.

    Args:
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: `guide(x, *args, **kwargs)`, sampling every latent site of the model.
        site: name of the data site.
        bounds: (low, high), numbers or arrays of one row's shape; by default the observed range.

    Raises:
        ValueError: if `bounds` is no pair with low <= high, or, when run, of another shape than a
            row's, or without an integer between them for discrete data.

    Example:
        >>> import numpy as np
        >>> import pyro, torch
        >>> from ppl_vae.masks import mcar_fraction, with_nan
        >>> from ppl_vae.pyro import MCMC, ClippedPseudoGibbsKernel, VAE, fit
        >>> pyro.set_rng_seed(0)
        >>> vae = VAE((3,), 2, hidden=(8,), likelihood="normal")
        >>> rng = np.random.default_rng(0)
        >>> fitted = fit(vae, torch.as_tensor(rng.normal(size=(50, 3))).float(), num_steps=5)
        >>> x = with_nan(rng.normal(size=(20, 3)), mcar_fraction(rng, (20, 3)))
        >>> kernel = ClippedPseudoGibbsKernel(fitted.model, fitted.guide)
        >>> mcmc = MCMC(kernel, num_warmup=5, num_samples=10)
        >>> mcmc.run(torch.as_tensor(x, dtype=torch.float32))
        >>> bool(abs(mcmc.get_samples()["x"]).max() < 2 * (np.nanmax(x) - np.nanmin(x)))
        True
    """

    settings = ("bounds",)

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *,
        site: str = "x",
        bounds: tuple[Any, Any] | None = None,
    ) -> None:
        super().__init__(model, guide, site=site)
        if bounds is not None:
            check_bounds(bounds)
        self.bounds = bounds

    def start(self, program: Program, x: Tensor, z: Latents | None) -> ClippedPseudoGibbsState:
        """Start from completed rows, clipped."""
        z = within_prior(program, program.propose(x) if z is None else z)
        *_, likelihood = program.decode(z)
        support: Any = likelihood.support
        if self.bounds is None:
            low, high = doubled_range(program.x_obs, program.mask)
        else:
            check_shape(self.bounds, tuple(x.shape[2:]))
            if support.is_discrete:
                check_holds_integers(self.bounds, program.site)
            dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
            bounds = (torch.as_tensor(b, dtype=dtype, device=x.device) for b in self.bounds)
            low, high = (bound.expand(x.shape[2:]) for bound in bounds)
        if support.is_discrete:
            low, high = low.ceil(), high.floor()
        x, _, _ = clip(x, program.x_obs, low, high, program.mask)
        return ClippedPseudoGibbsState(x, z, low, high)

    def step(
        self, program: Program, state: ClippedPseudoGibbsState
    ) -> tuple[ClippedPseudoGibbsState, ClippedPseudoGibbsInfo]:
        """Advance the chains by one iteration."""
        return step(program, state)
