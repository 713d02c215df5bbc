"""Chains and particles as rows, and choosing per row between proposals.

A user's program knows rows only: leading axes are folded into rows before it runs, `(C, K, B, ...)`
to `(C K B, ...)`, and unfolded after it, in tensors and in the distributions that it returns.
A tensor of a distribution that does not start with the distribution's batch shape does not depend
on the row, so that it is the same in all that there is to choose from.
"""

import copy
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    MixtureSameFamily,
    MultivariateNormal,
    TransformedDistribution,
)
from torch.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    IndependentTransform,
    PowerTransform,
    Transform,
    _InverseTransform,
)

from ppl_vae.incomplete_data import is_column
from ppl_vae.inference.pyro.masking import holds_everywhere

__all__ = [
    "as_tensor",
    "fold_rows",
    "join",
    "map_tensors",
    "repeat_rows",
    "row_tensors",
    "rows_of",
    "select_rows",
    "take_rows",
    "unfold_rows",
]


def as_tensor(value: Any, device: Any = None) -> Tensor:
    """Return a tensor of what is one, or of what numpy can read: data frames, reversed views."""
    if not isinstance(value, Tensor):
        value = np.ascontiguousarray(value)
        value = value if value.flags.writeable else value.copy()
    return torch.as_tensor(value, device=device)


def fold_rows(tree: Any, lead: torch.Size) -> Any:
    """Merge the leading axes `lead` of every tensor, rows last among them, into one row axis."""
    num_lead = len(lead)

    def fold(t: Tensor) -> Tensor:  # with -1 for the rows a tensor without entries has no shape
        return t.reshape(prod(t.shape[:num_lead]), *t.shape[num_lead:])

    return map_tensors(fold, tree)


def unfold_rows(tree: Any, lead: torch.Size) -> Any:
    """Split the row axis of every tensor and distribution into the axes `lead`."""
    return map_tensors(lambda t: t.reshape(*lead, *t.shape[1:]), tree, lead=lead)


def repeat_rows(tree: Any, num_rows: int, times: int) -> Any:
    """Repeat what has one entry a row, for `times` copies of the rows; leave the rest as it is."""
    if times == 1:
        return tree
    return _map_row_data(lambda t: t.repeat(times, *[1] * (t.ndim - 1)), tree, num_rows)


def rows_of(tree: Any, rows: Tensor, num_rows: int) -> Any:
    """Cut from all that has one entry a row those of `rows`; leave the rest as it is."""
    return _map_row_data(lambda t: t[rows.to(t.device)], tree, num_rows)


def row_tensors(tree: Any, like: Tensor) -> Any:
    """Make arrays, lists and columns with one entry a row of `like` tensors; leave the rest."""
    return _map_row_data(lambda t: t, tree, len(like), like.device)


def _map_row_data(
    fn: Callable[[Tensor], Tensor], tree: Any, num_rows: int, device: Any = None
) -> Any:
    """Map over the tensors and numpy arrays of lists, tuples and dicts with one entry a row."""
    if is_column(tree, num_rows):
        tree = np.asarray(tree)
    if isinstance(tree, Tensor | np.ndarray) and tree.ndim and tree.shape[0] == num_rows:
        return fn(as_tensor(tree, device))
    if isinstance(tree, list | tuple):
        parts = [_map_row_data(fn, part, num_rows, device) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if isinstance(tree, dict):
        return {name: _map_row_data(fn, part, num_rows, device) for name, part in tree.items()}
    return tree


def select_rows(choose_new: Tensor, new: Any, old: Any) -> Any:
    """Per row, take `new` where `choose_new` (..., B) is True, else `old`."""

    def pick(new_leaf: Tensor, old_leaf: Tensor) -> Tensor:
        ones = [1] * (new_leaf.ndim - choose_new.ndim)
        return torch.where(choose_new.reshape(*choose_new.shape, *ones), new_leaf, old_leaf)

    return old if holds_everywhere(~choose_new) else map_tensors(pick, new, old)


def take_rows(stack: Any, index: Tensor) -> Any:
    """Per chain c and row b, take entry `index[c, k, b]` of every (C, P, B, ...) tensor."""
    chains = torch.arange(index.shape[0], device=index.device)[:, None, None]
    rows = torch.arange(index.shape[2], device=index.device)
    return map_tensors(lambda t: t[chains, index, rows], stack, lead=index.shape)


def join(trees: Sequence[Any], lead: torch.Size) -> Any:
    """Join equal trees along the first axis of every tensor, distributions to batches `lead`."""
    return map_tensors(lambda *parts: torch.cat(parts), *trees, lead=lead)


def map_tensors(fn: Callable[..., Tensor], *trees: Any, lead: torch.Size | None = None) -> Any:
    """Map over the tensors of equal trees: dicts, named tuples, tensors and distributions.

    `lead` is the batch shape of the distributions that come out, where `fn` changes it.
    """
    first = trees[0]
    if isinstance(first, Tensor):
        return fn(*trees)
    if isinstance(first, dict):
        return {name: map_tensors(fn, *(t[name] for t in trees), lead=lead) for name in first}
    if isinstance(first, tuple):
        mapped = (map_tensors(fn, *parts, lead=lead) for parts in zip(*trees, strict=True))
        return type(first)(*mapped) if hasattr(first, "_fields") else tuple(mapped)
    old = first.batch_shape
    return _map_distribution(fn, trees, old, old if lead is None else lead)


def _map_distribution(
    fn: Callable[..., Tensor], ds: tuple[Any, ...], old: torch.Size, new: torch.Size
) -> Any:
    ds = tuple(_with_full_batch(d) for d in ds)
    batch = ds[0].batch_shape
    if batch[: len(old)] != old:
        return ds[0]
    out = copy.copy(ds[0])
    mapped: dict[int, Tensor] = {}
    for name, part in ds[0].__dict__.items():
        if not all(name in d.__dict__ for d in ds):
            del out.__dict__[name]  # a cached property that only some of them have
        elif isinstance(part, Tensor) and part.shape[: len(batch)] == batch:
            if id(part) not in mapped:
                mapped[id(part)] = fn(*(d.__dict__[name] for d in ds))
            out.__dict__[name] = mapped[id(part)]
        elif isinstance(part, Distribution):
            parts = tuple(d.__dict__[name] for d in ds)
            out.__dict__[name] = _map_distribution(fn, parts, old, new)
    if isinstance(ds[0], TransformedDistribution):
        each = zip(*(d.transforms for d in ds), strict=True)
        out.__dict__["transforms"] = [_map_transform(fn, ts) for ts in each]
    out.__dict__["_batch_shape"] = torch.Size((*new, *batch[len(old) :]))
    return out


def _with_full_batch(d: Any) -> Any:
    """Give every tensor of `d` that has a batch the whole one; most distributions do already."""
    if isinstance(d, MultivariateNormal) and d._unbroadcasted_scale_tril.ndim < d.scale_tril.ndim:
        return type(d)(d.loc, scale_tril=d.scale_tril)
    if isinstance(d, MixtureSameFamily):
        return d.expand(d.batch_shape)
    if isinstance(d, TransformedDistribution) and any(map(_holds_tensors, d.transforms)):
        shape = d.base_dist.batch_shape + d.base_dist.event_shape
        out = copy.copy(d)
        out.transforms = _all_with_full_shape(d.transforms, shape, type(d).__name__)
        return out
    return d


# --- transforms -----------------------------------------------------------------------------


def _holds_tensors(t: Any) -> bool:
    return any(isinstance(part, Tensor) or _holds_tensors(part) for part in _parts_of(t).values())


def _parts_of(t: Any) -> dict[Any, Any]:
    """What a transform is made of, but its inverse, which it may know and which knows it."""
    if isinstance(t, list | tuple):
        return dict(enumerate(t))
    if not isinstance(t, Transform):
        return {}
    unlike = {"_cached_x_y"} if isinstance(t, _InverseTransform) else {"_cached_x_y", "_inv"}
    return {name: part for name, part in vars(t).items() if name not in unlike}


def _map_transform(fn: Callable[..., Tensor], ts: tuple[Any, ...]) -> Any:
    """Map over the tensors of equal transforms, each of the full shape of what it is applied to."""
    first = ts[0]
    if not _holds_tensors(first):
        return first
    if isinstance(first, _InverseTransform):
        return _map_transform(fn, tuple(t.inv for t in ts)).inv
    out = _without_cache(first)
    for name, part in vars(out).items():
        if isinstance(part, Tensor):
            vars(out)[name] = fn(*(vars(t)[name] for t in ts))
        elif isinstance(part, Transform):
            vars(out)[name] = _map_transform(fn, tuple(vars(t)[name] for t in ts))
    if isinstance(first, ComposeTransform):
        each = zip(*(t.parts for t in ts), strict=True)
        out.parts = [_map_transform(fn, parts) for parts in each]
    return out


def _all_with_full_shape(ts: Sequence[Any], shape: torch.Size, owner: str) -> list[Any]:
    out = []
    for t in ts:
        out.append(_with_full_shape(t, shape, owner))
        shape = t.forward_shape(shape)
    return out


def _with_full_shape(t: Any, shape: torch.Size, owner: str) -> Any:
    """Give every tensor of a transform the shape of what the transform is applied to."""
    if not _holds_tensors(t):
        return t
    if isinstance(t, _InverseTransform):
        return _with_full_shape(t.inv, t.forward_shape(shape), owner).inv
    out = _without_cache(t)
    if isinstance(t, ComposeTransform):
        out.parts = _all_with_full_shape(t.parts, shape, owner)
    elif isinstance(t, IndependentTransform):
        out.base_transform = _with_full_shape(t.base_transform, shape, owner)
    elif isinstance(t, AffineTransform | PowerTransform):
        for name, part in vars(out).items():
            vars(out)[name] = part.expand(shape) if isinstance(part, Tensor) else part
    else:
        raise NotImplementedError(
            f"Rows cannot be chosen in a {owner} with a {type(t).__name__}, whose tensors need not "
            "have one entry a row; use AffineTransform and PowerTransform, or the distribution of "
            "the transformed variable itself, for example a Normal with loc and scale."
        )
    return out


def _without_cache(t: Any) -> Any:
    out = copy.copy(t)
    out._inv, out._cached_x_y = None, (None, None)
    vars(out).pop("sign", None)  # kept by a PowerTransform
    return out
