"""Programs without the units that the data do not use.

Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR, section 5.2, cut
inactive units out of the nets. https://arxiv.org/abs/1509.00519

Shapes: B rows, U units of a site, V of them kept.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from pyro.distributions import Independent, TransformedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ppl_vae.inference.pyro.findings import accepts_mask
from ppl_vae.unit_activity import check_sites, dead_units, kept_units

__all__ = ["prune"]


def prune(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    units: Mapping[str, ArrayLike] | xr.Dataset,
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return model and guide with some latent units fixed at 0.

        p'(x, z_V) = p(z_V) p(x | z_V, 0),  q'(z_V | x)

    The units that are cut count neither in log p nor in log q, and the nets of both programs get
    0 for them: what cutting rows and columns out of the weight matrices does. A pruned site has
    shape (B, V). The entries of such a site must be independent of each other, given the sites
    before it.

    Args:
        model: `model(x, *args, **kwargs)`.
        guide: `guide(x, *args, **kwargs)`.
        units: the units to cut, by site, such as `{"z": [3, 7]}` or a flag a unit, True = cut;
            sites with several axes count in C order. Or what `active_units` returned: all that are
            not active are cut.

    Raises:
        TypeError: `units` of another kind.
        ValueError: a unit is named twice; when run, an unknown site or unit.
        NotImplementedError: when run, for a site whose entries depend on each other, or of a family
            that cannot be cut.

    Example:
        >>> from pyro import poutine
        >>> from ppl_vae.pyro import VAE, prune
        >>> vae = VAE((4,), 3, hidden=(8,))
        >>> model, guide = prune(vae.model, vae.guide, {"z": [0]})
        >>> trace = poutine.trace(guide).get_trace(torch.ones(5, 4))
        >>> trace.nodes["z"]["value"].shape
        torch.Size([5, 2])
    """
    dead = dead_units(units)
    return _with_cut("model", model, dead), _with_cut("guide", guide, dead)


def _with_cut(role: str, fn: Callable[..., Any], dead: dict[str, NDArray]) -> Callable[..., Any]:
    def run(*args: Any, mask: Tensor | None = None, **kwargs: Any) -> Any:
        if accepts_mask(fn):
            kwargs = {**kwargs, "mask": mask}
        cut = _Cut(dead)
        with cut:
            result = fn(*args, **kwargs)
        check_sites(dead, cut.seen, role)
        return result

    return run


class _Cut(Messenger):
    """Draws the units that stay, and lets the program see zeros for the others."""

    def __init__(self, dead: dict[str, NDArray]) -> None:
        super().__init__()
        self.dead = dead
        self.seen: list[str] = []
        self.kept: dict[str, tuple[NDArray, tuple[int, ...]]] = {}

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if msg["is_observed"] or site_is_subsample(msg):
            return
        self.seen.append(name)
        if name in self.dead:
            event_shape = msg["fn"].event_shape
            kept = kept_units(name, self.dead[name], prod(event_shape))
            if len(kept) < prod(event_shape):
                msg["fn"] = _cut(name, msg["fn"], kept)
                self.kept[name] = kept, event_shape

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] in self.kept:
            kept, event_shape = self.kept[msg["name"]]
            value = msg["value"]
            place = np.full(prod(event_shape), len(kept))  # of a zero behind the units that stay
            place[kept] = np.arange(len(kept))
            padded = torch.cat([value, value.new_zeros(*value.shape[:-1], 1)], -1)
            msg["value"] = padded[..., place].reshape(*value.shape[:-1], *event_shape)


def _cut(site: str, d: Any, kept: NDArray) -> Any:
    """The distribution of some of the entries of a site, as a vector."""
    shape, flat = d.shape(), (*d.batch_shape, prod(d.event_shape))

    def take(parameter: Tensor) -> Tensor:
        return torch.broadcast_to(parameter, shape).reshape(flat)[..., kept]

    return _rebuilt(site, d, take).to_event(1)


def _rebuilt(site: str, d: Any, take: Callable[[Tensor], Tensor]) -> Any:
    """The distribution of single entries with some of its parameters."""
    while isinstance(d, Independent):
        d = d.base_dist
    names = list(d.arg_constraints)
    if {"probs", "logits"} <= set(names):  # two names of one parameter
        names.remove("probs" if "logits" in vars(d) else "logits")
    if any(constraint.event_dim for constraint in d.arg_constraints.values()) or d.event_shape:
        raise NotImplementedError(_refusal(site, d, "its entries depend on each other"))
    if not names and type(d) is TransformedDistribution and _by_entry(d.transforms):
        return TransformedDistribution(_rebuilt(site, d.base_dist, take), d.transforms)
    try:
        return type(d)(**{name: take(getattr(d, name)) for name in names})
    except (AttributeError, TypeError) as error:
        reason = "its parameters are not known entry by entry"
        raise NotImplementedError(_refusal(site, d, reason)) from error


def _by_entry(transforms: Any) -> bool:
    """Whether transforms are the same for all entries, each by itself."""
    parts = [part for t in transforms for part in vars(t).values()]
    has_tensors = any(isinstance(part, Tensor) and part.ndim for part in parts)
    return not has_tensors and all(t.domain.event_dim == 0 for t in transforms)


def _refusal(site: str, d: Any, reason: str) -> str:
    return (
        f"Units of site {site!r}, a {type(d).__name__}, cannot be cut: {reason}. Sample them from "
        "an elementwise distribution such as Normal(loc, scale).to_event(1)."
    )
