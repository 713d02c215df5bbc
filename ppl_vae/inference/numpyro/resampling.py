"""Resampling of weighted proposals.

A scheme is a function `resample(key, log_weight, num_draws)`. By `multinomial`, `systematic`,
`stratified` and `residual` proposal p of a row is drawn K w_p / sum(w) times on average. As the
order of the draws is random, each of them is p with probability w_p / sum(w): any part of them may
be kept.

Shapes: P proposals, K draws, B rows. Source: Douc, Cappe and Moulines (2005), Comparison of
resampling schemes for particle filtering. https://arxiv.org/abs/cs/0507025
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, random

__all__ = ["independent", "local", "multinomial", "residual", "stratified", "systematic"]


def multinomial(key: Array, log_weight: Array, num_draws: int) -> Array:
    """Draw ancestors with replacement, proportionally to the weights of each row.

    Args:
        key: random key.
        log_weight: unnormalised log-weights, shape (P, B); -inf and NaN are never drawn where
            there is another; of a row with inf these are drawn alone, equally often.
        num_draws: draws K per row.

    Returns:
        Indices in [0, P), shape (K, B); 0 where a row has no weight.
    """
    uniform = random.uniform(key, (log_weight.shape[1], num_draws), log_weight.dtype)
    return _search(_cumulative(log_weight), uniform).T


def systematic(key: Array, log_weight: Array, num_draws: int) -> Array:
    """Draw ancestors at (k + u) / K of the cumulated weights, one u ~ U(0, 1) a row.

    The number of draws of a proposal is K w rounded up or down. Arguments as in `multinomial`.
    """
    key_u, key_order = random.split(key)
    uniform = random.uniform(key_u, (log_weight.shape[1], 1), log_weight.dtype)
    at = (jnp.arange(num_draws) + uniform) / num_draws
    return _shuffle(key_order, _search(_cumulative(log_weight), at)).T


def stratified(key: Array, log_weight: Array, num_draws: int) -> Array:
    """Draw ancestors at (k + u_k) / K of the cumulated weights, u_k ~ U(0, 1) independent.

    Arguments as in `multinomial`.
    """
    key_u, key_order = random.split(key)
    uniform = random.uniform(key_u, (log_weight.shape[1], num_draws), log_weight.dtype)
    at = (jnp.arange(num_draws) + uniform) / num_draws
    return _shuffle(key_order, _search(_cumulative(log_weight), at)).T


def residual(key: Array, log_weight: Array, num_draws: int) -> Array:
    """Take floor(K w) copies of each proposal, and draw the rest from what the floors left over.

    Arguments as in `multinomial`.
    """
    key_u, key_order = random.split(key)
    weight = _weight(log_weight).T
    expected = num_draws * weight / jnp.maximum(weight.sum(1, keepdims=True), 1e-30)
    copies = jnp.floor(expected)
    uniform = random.uniform(key_u, (len(weight), num_draws), weight.dtype)
    rest = _search(jnp.cumsum(expected - copies, 1), uniform)
    slot = jnp.broadcast_to(jnp.arange(num_draws), uniform.shape)
    taken = jnp.cumsum(copies, 1)
    whole = jax.vmap(partial(jnp.searchsorted, side="right"))(taken, slot.astype(taken.dtype))
    ancestor = jnp.where(slot < taken[:, -1:], whole, rest)
    return _shuffle(key_order, ancestor).T


def independent(key: Array, log_weight: Array, num_draws: int) -> Array:
    """Deal the proposals into K groups at random, and draw one from each: no common ancestors.

    Not self-normalised over all proposals, so that its bias is that of P / K proposals: below 2 K
    of them some groups are of one, which is drawn whatever its weight. Give a kernel more
    proposals (`num_prior`, `num_draws`). A group without weights draws from the whole row, and may
    then share an ancestor. Arguments as in `multinomial`.

    Raises:
        ValueError: there are fewer proposals than draws.
    """
    num_proposals = len(log_weight)
    if num_proposals < num_draws:
        raise ValueError(
            f"{num_proposals} proposals cannot be dealt into {num_draws} groups: give the kernel "
            "more of them (num_prior or num_draws)."
        )
    key_deal, key_draw, key_order = random.split(key, 3)
    log_weight = _usable(log_weight)
    group = jnp.arange(num_proposals) % num_draws
    group = _shuffle(key_deal, jnp.broadcast_to(group, log_weight.T.shape)).T  # (P, B)
    own = group == jnp.arange(num_draws)[:, None, None]
    weighted = log_weight > -jnp.inf
    anywhere = weighted.any(0)
    empty = ~(own & weighted).any(1, keepdims=True) & anywhere  # (K, 1, B)
    log_weight = jnp.where(anywhere, log_weight, 0.0)
    drawn = random.categorical(key_draw, jnp.where(own | empty, log_weight, -jnp.inf), axis=1)
    return _shuffle(key_order, drawn.T).T  # the larger groups fall to any of the draws


def local(num_draws: int) -> Callable[..., Array]:
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

    def resample(key: Array, log_weight: Array, num_particles: int) -> Array:
        key_own, key_row = random.split(key)
        own = _own_proposals(log_weight, num_particles, num_draws)
        first = num_draws * jnp.arange(num_particles)[:, None]
        drawn = first + jax.vmap(lambda key, w: multinomial(key, w, 1)[0])(
            random.split(key_own, num_particles), own
        )
        empty = ~(own > -jnp.inf).any(1) & (log_weight > -jnp.inf).any(0)  # (K, B); NaN: empty
        return jnp.where(empty, multinomial(key_row, log_weight, num_particles), drawn)

    resample.__name__ = f"local({num_draws})"
    vars(resample)["num_draws"] = num_draws
    return resample


def _own_proposals(log_weight: Array, num_particles: int, num_draws: int) -> Array:
    """The weights of each particle's own proposals, (P, B) to (K, I, B)."""
    if len(log_weight) < num_particles * num_draws:
        raise ValueError(
            f"{num_particles} particles with {num_draws} proposals each need more than the "
            f"{len(log_weight)} that there are: give the kernel num_draws={num_draws}."
        )
    own = log_weight[: num_particles * num_draws]
    return own.reshape(num_particles, num_draws, -1)


def _usable(log_weight: Array) -> Array:
    """Let NaN count as no weight, and infinite weights of a row equally, and alone."""
    infinite = log_weight == jnp.inf
    finite = jnp.where(jnp.isnan(log_weight), -jnp.inf, log_weight)
    return jnp.where(infinite.any(0), jnp.where(infinite, 0.0, -jnp.inf), finite)


def _weight(log_weight: Array) -> Array:
    log_weight = _usable(log_weight)
    highest = log_weight.max(0)
    return jnp.exp(log_weight - jnp.where(jnp.isfinite(highest), highest, 0.0))


def _cumulative(log_weight: Array) -> Array:
    return jnp.cumsum(_weight(log_weight), 0).T


def _search(cumulative: Array, at: Array) -> Array:
    """Index of the proposal at the given shares of the total, (B, P) and (B, K) to (B, K)."""
    total = cumulative[:, -1:]
    method = "compare_all" if cumulative.shape[1] <= 128 else "scan"  # few: faster than bisection
    search = partial(jnp.searchsorted, side="right", method=method)
    index = jax.vmap(search)(cumulative, total * at)
    last_positive = (cumulative < total).sum(1, keepdims=True)
    return jnp.minimum(index, last_positive)


def _shuffle(key: Array, index: Array) -> Array:
    """Put every row's draws in random order, (B, K)."""
    return random.permutation(key, index, axis=1, independent=True)
