"""A bounded history of imputations: a reservoir sample of all that became usable, per row.

Simkus and Gutmann (2023), section 4.1, keep every imputation.  Here, each time the chain leaves
its latents one imputation drawn from them is offered, with a weight: the number of iterations that
the chain stayed.  It replaces a uniformly chosen entry with probability
min(1, size * weight / total weight), so that a uniform pick from the history is (up to that
minimum) a uniform pick from all imputations made before the current latents were reached.

Shapes: C chains, H entries, B rows, *event.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.inference.pyro.masking import where
from ppl_vae.inference.pyro.rows import take_rows

__all__ = [
    "History",
    "offer",
    "pick",
    "pick_at_random",
    "pick_over_time",
    "start_history",
]


class History(NamedTuple):
    """Entries usable now, and the tally of those that are not yet."""

    x: Tensor  # (C, H, B, *event)
    time: Tensor  # `total` when the entry came in, (C, H, B)
    total: Tensor  # iterations that the entries stand for, (C, B)
    stay: Tensor  # iterations spent at the current latents, (C, B)


def start_history(x: Tensor, size: int, *, binary: bool) -> History:
    """Start with imputations x (C, P, B, *event), evenly spaced where P > `size`, else repeated.

    One byte a value is kept if all are 0 or 1.
    """
    num_chains, num_given, num_rows = x.shape[:3]
    index = torch.arange(size, device=x.device) * num_given // size
    entries = x[:, index].byte() if binary else x[:, index]
    one = torch.ones(num_chains, num_rows, device=x.device)
    return History(entries, (1 + index)[:, None] * one[:, None], num_given * one, one)


def pick(history: History, x_obs: Tensor, mask: Tensor) -> Tensor:
    """Return for each row a uniformly chosen entry as completed row, (C, B, *event)."""
    size = history.x.shape[1]
    index = torch.randint(size, history.total.shape, device=x_obs.device)
    past = history.x[_chains_and(index)]
    return where(mask, x_obs, past.to(x_obs.dtype))


def pick_at_random(history: History, num: int, x_obs: Tensor, mask: Tensor) -> Tensor:
    """Return `num` different entries, drawn at random, as completed rows (C, num, B, *event)."""
    num_chains, size = history.x.shape[:2]
    index = torch.rand(num_chains, size, device=x_obs.device).argsort(1)[:, :num]
    past = history.x[torch.arange(num_chains, device=x_obs.device)[:, None], index]
    return where(mask, x_obs, past.to(x_obs.dtype))


def pick_over_time(history: History, num: int, x_obs: Tensor, mask: Tensor) -> Tensor:
    """Return one entry of each of `num` stretches of time, as completed rows (C, num, B, *event).

    The stretches have equally many entries; every entry is as likely as with `pick_at_random`.

    Raises:
        ValueError: if `num` does not divide the size of the history.
    """
    num_chains, size, num_rows = history.x.shape[:3]
    length = _stretch(size, num)
    place = torch.randint(length, (num_chains, num, num_rows), device=x_obs.device)
    place = place + length * torch.arange(num, device=x_obs.device)[:, None]
    past = take_rows(history.x, history.time.argsort(1).gather(1, place))
    return where(mask, x_obs, past.to(x_obs.dtype))


def _stretch(size: int, num: int) -> int:
    """Return how many of `size` entries each of `num` stretches has."""
    if size % num:
        raise ValueError(f"num_past={num} must divide history_size={size} for pick_over_time.")
    return size // num


def offer(history: History, x: Tensor, left: Tensor) -> History:
    """Offer `x`, drawn from the latents that the rows marked in `left` (C, B) have just left.

    The entries are overwritten in place: a history belongs to one chain state.
    """
    size = history.x.shape[1]
    slot = torch.randint(size, left.shape, device=x.device)
    total = history.total + history.stay
    enters = left & (torch.rand_like(total) * total < size * history.stay)

    chain, slot, row = (index[enters] for index in _chains_and(slot))
    history.x[chain, slot, row] = x[chain, row].to(history.x.dtype)
    history.time[chain, slot, row] = total[chain, row]
    return History(
        history.x,
        history.time,
        torch.where(left, total, history.total),
        torch.where(left, 1.0, history.stay + 1),
    )


def _chains_and(index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Indices (C, B) of chain, entry and row."""
    num_chains, num_rows = index.shape
    chain = torch.arange(num_chains, device=index.device)[:, None].expand_as(index)
    row = torch.arange(num_rows, device=index.device).expand_as(index)
    return chain, index, row
