"""Pseudo-Gibbs kept within a range: for decoders that pseudo-Gibbs drives to infinity.

With normal decoders and many missing entries pseudo-Gibbs may run away: each imputation a little
farther out than the last. Simkus and Gutmann (2023) clip it to twice the range of the data.
https://arxiv.org/abs/2308.09078
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, random

from ppl_vae.entry_bounds import check_bounds, check_holds_integers, check_shape
from ppl_vae.inference.numpyro import pseudo_gibbs
from ppl_vae.inference.numpyro.mcmc import ProgramKernel
from ppl_vae.inference.numpyro.program import Latents, Program
from ppl_vae.inference.numpyro.pseudo_gibbs import PseudoGibbsState
from ppl_vae.inference.numpyro.starting import within_prior

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

    x: Array  # completed rows, (B, *event)
    z: Latents  # the latents they were drawn from, each (B, ...)
    low: Array  # lower bound of each entry, (*event)
    high: Array  # upper bound, (*event)


class ClippedPseudoGibbsInfo(NamedTuple):
    """Sample statistics of one step, per row."""

    lp: Array  # log p(x_o, z), (B,)
    clipped: Array  # share of the missing entries that were clipped, (B,)
    diverging: Array  # a draw was not finite and the entry stayed as it was, bool, (B,)


def doubled_range(x_obs: Array, mask: Array) -> tuple[Array, Array]:
    """Return bounds of each entry: the range observed in the rows, doubled about its middle.

    Entries of which the rows show no two different values are unbounded.
    """
    low = jnp.where(mask, x_obs, jnp.inf).min(0)
    high = jnp.where(mask, x_obs, -jnp.inf).max(0)
    reach, seen = (high - low) / 2, high > low
    return jnp.where(seen, low - reach, -jnp.inf), jnp.where(seen, high + reach, jnp.inf)


def clip(
    x: Array, before: Array, low: Array, high: Array, mask: Array
) -> tuple[Array, Array, Array]:
    """Clip the missing entries of x, keeping the former value where x is not finite.

    Returns:
        The rows, the share of missing entries clipped and whether one was not finite, per row.
    """
    per_row = (len(x), -1)
    not_finite = ~jnp.isfinite(x) & ~mask
    x = jnp.where(not_finite, before, x)
    outside = ((x < low) | (x > high)) & ~mask
    share = outside.reshape(per_row).sum(1) / (~mask).reshape(per_row).sum(1).clip(1)
    x = jnp.where(outside, jnp.clip(x.astype(low.dtype), low, high).astype(x.dtype), x)
    return x, share, not_finite.reshape(per_row).any(1)


def step(
    key: Array, program: Program, state: ClippedPseudoGibbsState
) -> tuple[ClippedPseudoGibbsState, ClippedPseudoGibbsInfo]:
    """Draw z ~ q(z | x) and x_m ~ p(x_m | x_o, z), and clip x_m."""
    (x, z), of_draw = pseudo_gibbs.step(key, program, PseudoGibbsState(state.x, state.z))
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
        params: trained values of `numpyro.param` sites, if any (`svi_result.params`).
        bounds: (low, high), numbers or arrays of one row's shape; by default the observed range.

    Raises:
        ValueError: if `bounds` is no pair with low <= high, or, when run, of another shape than a
            row's, or without an integer between them for discrete data.

    Example:
        >>> import numpy as np
        >>> from jax import random
        >>> from ppl_vae.masks import mcar_fraction, with_nan
        >>> from ppl_vae.numpyro import MCMC, ClippedPseudoGibbsKernel, VAE, fit
        >>> rng = np.random.default_rng(0)
        >>> vae = VAE((3,), 2, hidden=(8,), likelihood="normal")
        >>> fitted = fit(random.key(0), vae, rng.normal(size=(50, 3)), num_steps=5)
        >>> x = with_nan(rng.normal(size=(20, 3)), mcar_fraction(rng, (20, 3)))
        >>> kernel = ClippedPseudoGibbsKernel(fitted.model, fitted.guide)
        >>> mcmc = MCMC(kernel, num_warmup=5, num_samples=10)
        >>> mcmc.run(random.key(1), x)
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
        params: dict[str, Any] | None = None,
        bounds: tuple[Any, Any] | None = None,
    ) -> None:
        super().__init__(model, guide, site=site, params=params)
        if bounds is not None:
            check_bounds(bounds)
        self.bounds = bounds

    def start(
        self, key: Array, program: Program, x: Array, z: Latents | None
    ) -> ClippedPseudoGibbsState:
        """Start from completed rows, clipped."""
        key_z, key_prior = random.split(key)
        z = within_prior(key_prior, program, program.propose(key_z, x) if z is None else z)
        *_, likelihood = program.decode(z)
        support: Any = likelihood.support
        if self.bounds is None:
            low, high = doubled_range(program.x_obs, program.mask)
        else:
            check_shape(self.bounds, x.shape[1:])
            if support.is_discrete:
                check_holds_integers(self.bounds, program.site)
            bounds = (jnp.asarray(b, jnp.result_type(x, float)) for b in self.bounds)
            low, high = (jnp.broadcast_to(bound, x.shape[1:]) for bound in bounds)
        if support.is_discrete:
            low, high = jnp.ceil(low), jnp.floor(high)
        x, _, _ = clip(x, program.x_obs, low, high, program.mask)
        return ClippedPseudoGibbsState(x, z, low, high)

    def step(
        self, key: Array, program: Program, state: ClippedPseudoGibbsState
    ) -> tuple[ClippedPseudoGibbsState, ClippedPseudoGibbsInfo]:
        """Advance one chain by one iteration."""
        return step(key, program, state)
