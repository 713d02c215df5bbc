"""Guides made wider: proposals that reach further than the encoder that was trained.

MWG, AC-MWG and LAIR stay exact with any guide of full support, so that a wider one changes their
speed and never their law: `LAIRKernel(model, tempered(guide, 1.5))`. Simkus and Gutmann (2023) use
both as variants.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.primitives import Messenger

from ppl_vae.inference.numpyro.program import accepts_mask

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
        >>> from numpyro import handlers
        >>> from ppl_vae.numpyro import VAE, tempered
        >>> vae = VAE((4,), 2, hidden=(8,))
        >>> guide = handlers.seed(tempered(vae.guide, 2.0), 0)
        >>> guide(jnp.ones((3, 4))).shape
        (3, 2)
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}.")

    def wider(d: dist.Distribution, mask: Array) -> dist.Distribution:
        del mask
        if isinstance(_entry_of(d), dist.Beta):
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
        >>> from numpyro import handlers
        >>> from ppl_vae.numpyro import VAE, annealed
        >>> vae = VAE((4,), 2, hidden=(8,))
        >>> guide = handlers.seed(annealed(vae.guide), 0)
        >>> guide(jnp.ones((3, 4)), mask=jnp.arange(4) < jnp.arange(3)[:, None]).shape
        (3, 2)
    """

    if not end_scale > 0:
        raise ValueError(f"end_scale must be positive, got {end_scale}.")

    def towards_prior(d: dist.Distribution, mask: Array) -> dist.Distribution:
        missing = 1 - mask.reshape(len(mask), -1).mean(1, dtype=jnp.result_type(float))
        f = missing.reshape(-1, *(1,) * d.event_dim)
        if isinstance(_entry_of(d), dist.Beta):
            return _moved_beta(d, lambda concentration: (1 - f) * concentration + f * end_scale)
        return _moved(d, lambda loc, scale: ((1 - f) * loc, (1 - f) * scale + f * end_scale))

    return _with_sites(guide, towards_prior)


class _Sites(Messenger):
    """Replaces the distributions of latent sites."""

    def __init__(self, change: Callable[[Any, Array], Any], mask: Array) -> None:
        super().__init__()
        self.change = change
        self.mask = mask

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and not msg["is_observed"]:
            msg["fn"] = self.change(msg["fn"], self.mask)


def _with_sites(guide: Callable[..., Any], change: Callable[..., Any]) -> Callable[..., Any]:
    def run(x: Array, *args: Any, mask: Array | None = None, **kwargs: Any) -> Any:
        mask = jnp.ones(jnp.shape(x), bool) if mask is None else mask
        if accepts_mask(guide):
            kwargs = {**kwargs, "mask": mask}
        with _Sites(change, mask):
            return guide(x, *args, **kwargs)

    return run


def _entry_of(d: Any) -> Any:
    """The distribution of single entries."""
    while isinstance(d, dist.Independent | dist.ExpandedDistribution):
        d = d.base_dist
    return d


def _moved(d: Any, move: Callable[[Array, Array], tuple[Array, Array]]) -> dist.Distribution:
    """A normal or Student-t distribution with another location and scale."""
    entry = _entry_of(d)
    if not isinstance(entry, dist.Normal | dist.StudentT):
        raise NotImplementedError(
            f"A {type(entry).__name__} cannot be widened: normal, Student-t and Beta sites of "
            "a guide can."
        )
    loc, scale = move(*(jnp.broadcast_to(a, d.shape()) for a in (entry.loc, entry.scale)))
    if isinstance(entry, dist.StudentT):
        return dist.StudentT(jnp.broadcast_to(entry.df, d.shape()), loc, scale).to_event(
            d.event_dim
        )
    return dist.Normal(loc, scale).to_event(d.event_dim)


def _moved_beta(d: Any, move: Callable[[Array], Array]) -> dist.Distribution:
    """A Beta distribution with other concentrations."""
    entry = _entry_of(d)
    each = (entry.concentration1, entry.concentration0)
    a, b = (move(jnp.broadcast_to(c, d.shape())) for c in each)
    return dist.Beta(a, b).to_event(d.event_dim)
