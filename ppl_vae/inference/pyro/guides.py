"""Guides made wider: proposals that reach further than the encoder that was trained.

MWG, AC-MWG and LAIR stay exact with any guide of full support, so that a wider one changes their
speed and never their law: `LAIRKernel(model, tempered(guide, 1.5))`. Simkus and Gutmann (2023) use
both as variants.
"""

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import Beta, Independent, Normal, StudentT
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Distribution

from ppl_vae.inference.pyro.findings import accepts_mask

__all__ = ["annealed", "tempered"]


def tempered(guide: Callable[..., Any], temperature: float) -> Callable[..., Any]:
    """Return the guide with the scales of its latent sites multiplied by a temperature t.

    A Beta(a, b) site becomes Beta(a / t^2, b / t^2), of the same mean and about t times the scale.

    Args:
        guide: its latent sites normal, Student-t or Beta, of any shape.
        temperature: above 0; 1 changes nothing.

    Raises:
        ValueError: if `temperature` is not positive.
        NotImplementedError: when run, for a site of another family.

    Example:
        >>> from ppl_vae.pyro import VAE, tempered
        >>> vae = VAE((4,), 2, hidden=(8,))
        >>> guide = tempered(vae.guide, 2.0)
        >>> guide(torch.ones(3, 4)).shape
        torch.Size([3, 2])
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}.")

    def wider(d: Any, mask: Tensor) -> Distribution:
        del mask
        if isinstance(_entry_of(d), Beta):
            return _moved_beta(d, lambda concentration: concentration / temperature**2)
        return _moved(d, lambda loc, scale: (loc, temperature * scale))

    return _with_sites(guide, wider)


def annealed(guide: Callable[..., Any], *, end_scale: float = 1.0) -> Callable[..., Any]:
    """Return the guide drawn towards the prior by the share f of a row that is missing.

        N(loc, scale):  loc' = (1 - f) loc,  scale' = (1 - f) scale + f c,  prior N(0, 1)
        Beta(a, b):     a' = (1 - f) a + f c,  b' = (1 - f) b + f c,        prior U(0, 1)

    Args:
        guide: its latent sites normal, Student-t or Beta, of any shape.
        end_scale: c, above 0, where nothing is observed; at 1 that is the prior itself. The
            paper's code calls c = 1 `linear` and c = 0.25 `linear_0.25`.

    Raises:
        ValueError: if `end_scale` is not positive.
        NotImplementedError: when run, for a site of another family.

    Example:
        >>> from ppl_vae.pyro import VAE, annealed
        >>> vae = VAE((4,), 2, hidden=(8,))
        >>> guide = annealed(vae.guide)
        >>> guide(torch.ones(3, 4), mask=torch.arange(4) < torch.arange(3)[:, None]).shape
        torch.Size([3, 2])
    """

    if not end_scale > 0:
        raise ValueError(f"end_scale must be positive, got {end_scale}.")

    def towards_prior(d: Distribution, mask: Tensor) -> Distribution:
        def towards(value: Tensor, end: float) -> Tensor:
            missing = 1 - mask.unsqueeze(-1).flatten(1).to(value.dtype).mean(1)
            f = missing.reshape(-1, *[1] * len(d.event_shape))
            return (1 - f) * value + f * end

        if isinstance(_entry_of(d), Beta):
            return _moved_beta(d, lambda concentration: towards(concentration, end_scale))
        return _moved(d, lambda loc, scale: (towards(loc, 0.0), towards(scale, end_scale)))

    return _with_sites(guide, towards_prior)


class _Sites(Messenger):
    """Replaces the distributions of latent sites."""

    def __init__(self, change: Callable[[Any, Tensor], Any], mask: Tensor) -> None:
        super().__init__()
        self.change = change
        self.mask = mask

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and not site_is_subsample(msg):
            msg["fn"] = self.change(msg["fn"], self.mask)


def _with_sites(guide: Callable[..., Any], change: Callable[..., Any]) -> Callable[..., Any]:
    def run(x: Tensor, *args: Any, mask: Tensor | None = None, **kwargs: Any) -> Any:
        mask = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
        if accepts_mask(guide):
            kwargs = {**kwargs, "mask": mask}
        with _Sites(change, mask):
            return guide(x, *args, **kwargs)

    return run


def _entry_of(d: Any) -> Any:
    """The distribution of single entries."""
    while isinstance(d, Independent):
        d = d.base_dist
    return d


def _moved(d: Any, move: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Distribution:
    """A normal or Student-t distribution with another location and scale."""
    entry = _entry_of(d)
    if not isinstance(entry, Normal | StudentT):
        raise NotImplementedError(
            f"A {type(entry).__name__} cannot be widened: normal, Student-t and Beta sites of "
            "a guide can."
        )
    loc, scale = move(*(a.expand(d.shape()) for a in (entry.loc, entry.scale)))
    if isinstance(entry, StudentT):
        return StudentT(entry.df.expand(d.shape()), loc, scale).to_event(len(d.event_shape))
    return Normal(loc, scale).to_event(len(d.event_shape))


def _moved_beta(d: Any, move: Callable[[Tensor], Tensor]) -> Distribution:
    """A Beta distribution with other concentrations."""
    entry = _entry_of(d)
    a, b = (move(c.expand(d.shape())) for c in (entry.concentration1, entry.concentration0))
    return Beta(a, b).to_event(len(d.event_shape))
