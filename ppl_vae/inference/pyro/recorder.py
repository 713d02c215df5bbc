"""A run of a program at given values, and its sample sites."""

from typing import Any

import torch
from pyro.distributions import Delta, MaskedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ppl_vae.inference.pyro.support import moved_inside

__all__ = ["Recorder", "Stop", "is_recorded_only"]


class Stop(Exception):
    """Raised within a program when all that is asked of it has been drawn."""


class Recorder(Messenger):
    """Runs a program at given values of some sites, and keeps its sample sites by name.

    Plates take the first rows, for x holds no others, and one that runs over all `num_rows` rows of
    the data runs over their `total` copies.
    """

    def __init__(
        self, values: dict[str, Tensor], until: frozenset[str], num_rows: int, total: int
    ) -> None:
        super().__init__()
        self.num_rows = num_rows
        self.total = total
        self.values = values
        self.until = until
        self.sites: dict[str, dict[str, Any]] = {}
        self.sizes: set[int] = set()  # of plates over a part of the rows

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            msg["value"] = torch.arange(self._length(msg), device=msg["fn"].device)
            msg["done"] = True
            if msg["fn"].subsample_size not in (None, msg["fn"].size):
                self.sizes.add(msg["fn"].subsample_size)
        elif msg["name"] in self.values:
            msg["value"] = self.values[msg["name"]]
            msg["done"] = True

    def _pyro_post_subsample(self, msg: Any) -> None:
        event_dim = msg["kwargs"].get("event_dim")
        if event_dim is not None:
            rows = msg["value"].shape[: -event_dim or None]
            if rows and rows[-1] in self.sizes:  # x is such a part already
                msg["kwargs"]["event_dim"] = None

    def _length(self, msg: Any) -> int:
        if msg["fn"].subsample_size is not None:
            return msg["fn"].subsample_size
        length = msg["fn"].size if msg["value"] is None else len(msg["value"])
        return self.total if length == self.num_rows else length

    def _pyro_post_sample(self, msg: Any) -> None:
        if not (site_is_subsample(msg) or is_recorded_only(msg)):
            self.sites[msg["name"]] = {k: msg[k] for k in ("fn", "value", "is_observed")}
            if msg["mask"] is not None:
                self.sites[msg["name"]]["fn"] = msg["fn"].mask(msg["mask"])
            if msg["name"] in self.values:  # the program goes on inside of the support
                msg["value"] = moved_inside(msg["fn"], msg["value"])
            if self.until and self.until <= self.sites.keys():
                raise Stop


def is_recorded_only(msg: Any) -> bool:
    """Whether a sample site has a value and no density.

    A `pyro.deterministic`, or what `poutine.reparam` leaves of a site: a masked, observed Delta.
    """
    d = msg["fn"]
    left = (
        msg["is_observed"] and isinstance(d, MaskedDistribution) and isinstance(d.base_dist, Delta)
    )
    return "_deterministic" in msg["infer"] or (left and d._mask is False)
