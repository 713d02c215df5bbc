"""What runs of a program have shown of it, so that it is not tried again at each step."""

import inspect
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["Findings", "accepts_mask", "findings", "identity"]


@dataclass
class Findings:
    """What is known of a model or a guide."""

    accepts_mask: bool | None = None  # whether it has a parameter of that name
    cannot_map: bool = False  # torch cannot map it over particles
    cannot_fold: bool = False  # it cannot be run on copies of the rows
    batches: dict[Any, Any] = field(default_factory=dict)  # by guide and number of rows


KNOWN: dict[tuple[int, Any], tuple[Any, Findings]] = {}
"""By identity, for not all that can be called has a hash, and as long as a program lives."""


def findings(fn: Callable[..., Any]) -> Findings:
    """Return what is known of a model or a guide, to be read and added to."""
    owner, key = getattr(fn, "__self__", fn), identity(fn)
    if key not in KNOWN:
        try:
            KNOWN[key] = weakref.ref(owner, lambda _: KNOWN.pop(key, None)), Findings()
        except TypeError:  # a class with slots, of which nothing can be remembered
            return Findings()
    return KNOWN[key][1]


def identity(fn: Callable[..., Any]) -> tuple[int, Any]:
    """Return what tells a function from others; a method is another object at each access."""
    return id(getattr(fn, "__self__", fn)), getattr(fn, "__func__", None)


def accepts_mask(fn: Callable[..., Any]) -> bool:
    """Whether `fn` has a parameter named `mask`."""
    known = findings(fn)
    if known.accepts_mask is None:
        called = fn.forward if isinstance(fn, torch.nn.Module) else fn
        known.accepts_mask = "mask" in inspect.signature(called).parameters
    return known.accepts_mask
