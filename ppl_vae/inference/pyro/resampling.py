"""Resampling of weighted proposals.

A scheme is a function `resample(log_weight, num_draws)`. By `multinomial`, `systematic`,
`stratified` and `residual` proposal p of a row is drawn K w_p / sum(w) times on average. As the
order of the draws is random, each of them is p with probability w_p / sum(w): any part of them may
be kept.

Shapes: C chains, P proposals, K draws, B rows. Source: Douc, Cappe and Moulines (2005), Comparison
of resampling schemes for particle filtering. https://arxiv.org/abs/cs/0507025
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["independent", "local", "multinomial", "residual", "stratified", "systematic"]


def multinomial(log_weight: Tensor, num_draws: int) -> Tensor:
    """Draw ancestors with replacement, proportionally to the weights of each row.

    Args:
        log_weight: unnormalised log-weights, shape (C, P, B); -inf and NaN are never drawn where
            there is another; of a row with inf these are drawn alone, equally often.
        num_draws: draws K per row.

    Returns:
        Indices in [0, P), shape (C, K, B); 0 where a row has no weight.
    """
    return _search(_cumulative(log_weight), _uniform(log_weight, num_draws)).movedim(2, 1)


def systematic(log_weight: Tensor, num_draws: int) -> Tensor:
    """Draw ancestors at (k + u) / K of the cumulated weights, one u ~ U(0, 1) a row.

    The number of draws of a proposal is K w rounded up or down. Arguments as in `multinomial`.
    """
    slot = torch.arange(num_draws, device=log_weight.device)
    at = (slot + _uniform(log_weight, 1)) / num_draws
    return _shuffle(_search(_cumulative(log_weight), at)).movedim(2, 1)


def stratified(log_weight: Tensor, num_draws: int) -> Tensor:
    """Draw ancestors at (k + u_k) / K of the cumulated weights, u_k ~ U(0, 1) independent.

    Arguments as in `multinomial`.
    """
    slot = torch.arange(num_draws, device=log_weight.device)
    at = (slot + _uniform(log_weight, num_draws)) / num_draws
    return _shuffle(_search(_cumulative(log_weight), at)).movedim(2, 1)


def residual(log_weight: Tensor, num_draws: int) -> Tensor:
    """Take floor(K w) copies of each proposal, and draw the rest from what the floors left over.

    Arguments as in `multinomial`.
    """
    weight = _weight(log_weight).movedim(1, 2)
    expected = num_draws * weight / weight.sum(2, keepdim=True).clamp_min(1e-30)
    copies = expected.floor()
    rest = _search((expected - copies).cumsum(2), _uniform(log_weight, num_draws))
    slot = torch.arange(num_draws, dtype=copies.dtype, device=copies.device).expand(rest.shape)
    taken = copies.cumsum(2)
    whole = torch.searchsorted(taken, slot.contiguous(), right=True)
    return _shuffle(torch.where(slot < taken[..., -1:], whole, rest)).movedim(2, 1)


def independent(log_weight: Tensor, num_draws: int) -> Tensor:
    """Deal the proposals into K groups at random, and draw one from each: no common ancestors.

    Not self-normalised over all proposals, so that its bias is that of P / K proposals: below 2 K
    of them some groups are of one, which is drawn whatever its weight. Give a kernel more
    proposals (`num_prior`, `num_draws`). A group without weights draws from the whole row, and may
    then share an ancestor. Arguments as in `multinomial`.

    Raises:
        ValueError: there are fewer proposals than draws.
    """
    num_chains, num_proposals, num_rows = log_weight.shape
    if num_proposals < num_draws:
        raise ValueError(
            f"{num_proposals} proposals cannot be dealt into {num_draws} groups: give the kernel "
            "more of them (num_prior or num_draws)."
        )
    log_weight = _usable(log_weight)
    group = torch.arange(num_proposals, device=log_weight.device) % num_draws
    group = _shuffle(group.expand(num_chains, num_rows, num_proposals)).movedim(2, 1)
    own = group[:, None] == torch.arange(num_draws, device=group.device)[:, None, None]
    weighted = (log_weight > -torch.inf)[:, None]  # (C, 1, P, B)
    anywhere = weighted.any(2, keepdim=True)
    empty = ~(own & weighted).any(2, keepdim=True) & anywhere  # (C, K, 1, B)
    log_weight = torch.where(anywhere, log_weight[:, None], 0.0)
    masked = torch.where(own | empty, log_weight, -torch.inf)
    gumbel = -torch.empty_like(masked).exponential_().log()
    drawn = (masked + gumbel).argmax(2)
    return _shuffle(drawn.movedim(1, 2)).movedim(2, 1)  # the larger groups fall to any draw


def local(num_draws: int) -> Callable[..., Tensor]:
    """Return the scheme by which each particle draws among its own `num_draws` proposals alone.

    For `MultiDrawLAIRKernel`: its proposals come particle by particle, those of the prior last,
    which are not drawn. A particle none of whose own has a weight draws from the whole row. Its
    bias is that of `num_draws` proposals. Source: Elvira et al. (2017), Improving population Monte
    Carlo, local resampling.

    Args:
        num_draws: I, the kernel's.

    Raises:
        ValueError: if it is below 1; when run, if there are fewer proposals than K I.
    """
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}.")

    def resample(log_weight: Tensor, num_particles: int) -> Tensor:
        own = _own_proposals(log_weight, num_particles, num_draws)  # (C, K, I, B)
        first = num_draws * torch.arange(num_particles, device=log_weight.device)[:, None]
        each = multinomial(own.flatten(0, 1), 1)
        drawn = first + each.reshape(len(log_weight), num_particles, -1)
        anywhere = (log_weight > -torch.inf).any(1, keepdim=True)  # NaN counts as no weight
        empty = ~(own > -torch.inf).any(2) & anywhere  # (C, K, B)
        return torch.where(empty, multinomial(log_weight, num_particles), drawn)

    resample.__name__ = f"local({num_draws})"
    vars(resample)["num_draws"] = num_draws
    return resample


def _own_proposals(log_weight: Tensor, num_particles: int, num_draws: int) -> Tensor:
    """The weights of each particle's own proposals, (C, P, B) to (C, K, I, B)."""
    num_chains, num_proposals, num_rows = log_weight.shape
    if num_proposals < num_particles * num_draws:
        raise ValueError(
            f"{num_particles} particles with {num_draws} proposals each need more than the "
            f"{num_proposals} that there are: give the kernel num_draws={num_draws}."
        )
    own = log_weight[:, : num_particles * num_draws]
    return own.reshape(num_chains, num_particles, num_draws, num_rows)


def _usable(log_weight: Tensor) -> Tensor:
    """Let NaN count as no weight, and infinite weights of a row equally, and alone."""
    infinite = log_weight == torch.inf
    finite = torch.where(log_weight.isnan(), -torch.inf, log_weight)
    alone = torch.where(infinite, 0.0, -torch.inf).to(log_weight)
    return torch.where(infinite.any(1, keepdim=True), alone, finite)


def _weight(log_weight: Tensor) -> Tensor:
    log_weight = _usable(log_weight)
    highest = log_weight.amax(1, keepdim=True)
    return (log_weight - torch.where(highest.isfinite(), highest, 0.0)).exp()


def _cumulative(log_weight: Tensor) -> Tensor:
    return _weight(log_weight).movedim(1, 2).contiguous().cumsum(2)


def _uniform(like: Tensor, num_draws: int) -> Tensor:
    return torch.rand(len(like), like.shape[2], num_draws, dtype=like.dtype, device=like.device)


def _search(cumulative: Tensor, at: Tensor) -> Tensor:
    """Index of the proposal at the given shares of the total, (C, B, P) and (C, B, K)."""
    total = cumulative[..., -1:]
    index = torch.searchsorted(cumulative, total * at, right=True)
    last_positive = (cumulative < total).sum(-1, keepdim=True)
    return torch.minimum(index, last_positive)


def _shuffle(index: Tensor) -> Tensor:
    """Put every row's draws in random order, (C, B, K)."""
    order = torch.rand(index.shape, device=index.device).argsort(-1)
    return index.gather(-1, order)
