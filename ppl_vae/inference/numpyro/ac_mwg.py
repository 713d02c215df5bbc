"""Adaptive collapsed Metropolis-within-Gibbs (AC-MWG).

Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated
approximate ancestral sampling, TMLR, section 4.1.  https://arxiv.org/abs/2308.09078
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, random

from ppl_vae.counts import check_at_least
from ppl_vae.inference.numpyro.history import History, offer, pick, start_history
from ppl_vae.inference.numpyro.likelihood import is_binary
from ppl_vae.inference.numpyro.mcmc import ProgramKernel
from ppl_vae.inference.numpyro.metropolis import accept_probability, accept_rows
from ppl_vae.inference.numpyro.mwg import Decoded, decode
from ppl_vae.inference.numpyro.program import Latents, Program
from ppl_vae.inference.numpyro.rows import select_rows
from ppl_vae.inference.numpyro.starting import starting_values, within_prior

__all__ = [
    "ACMWGInfo", "ACMWGKernel", "ACMWGState", "arrive", "log_mixture_proposal", "log_ratio",
    "move_latents", "step",
]  # fmt: skip


class ACMWGState(NamedTuple):
    """What the next step needs."""

    x: Array  # completed rows drawn from the current latents, (B, *event)
    current: Decoded
    history: History

    @property
    def z(self) -> Latents:
        """The current latents."""
        return self.current.z


class ACMWGInfo(NamedTuple):
    """Sample statistics of one step, per row."""

    lp: Array  # log p(x_o, z), (B,)
    acceptance_rate: Array  # min(1, ratio), (B,)
    accepted: Array  # bool, (B,)
    diverging: Array  # the ratio was NaN and the move refused, bool, (B,)
    from_prior: Array  # the proposal came from the prior, bool, (B,)
    history_length: Array  # iterations that the history stands for, (B,)


def log_mixture_proposal(log_q: Array, log_prior: Array, prior_probability: float) -> Array:
    """Return log[(1 - eps) q(z | x) + eps p(z)], shape (B,)."""
    eps = jnp.asarray(prior_probability, log_q.dtype)
    return jnp.logaddexp(jnp.log1p(-eps) + log_q, jnp.log(eps) + log_prior)


def log_ratio(
    program: Program, x: Array, proposed: Decoded, current: Decoded, prior_probability: float
) -> Array:
    """Return log [p(x_o, z') q_eps(z | x)] - log [p(x_o, z) q_eps(z' | x)], shape (B,).

    The likelihood is that of the observed entries alone; `x` is the entry of the history.
    """

    def log_weight(at: Decoded) -> Array:
        log_q = program.log_proposal(at.z, x)
        log_q_eps = log_mixture_proposal(log_q, at.log_prior, prior_probability)
        return at.log_prior + at.log_observed - log_q_eps

    return log_weight(proposed) - log_weight(current)


def move_latents(
    key: Array, program: Program, state: ACMWGState, *, prior_probability: float
) -> tuple[Decoded, ACMWGInfo]:
    """Propose from an entry of the history or from the prior, and accept it or keep z."""
    key_pick, key_q, key_prior, key_coin, key_accept = random.split(key, 5)
    num_rows = state.x.shape[0]

    # 1. Propose z' ~ (1 - eps) q(z | x~) + eps p(z), x~ uniform in the chain's usable history.
    x_past = pick(key_pick, state.history, program.x_obs, program.mask)
    from_prior = random.bernoulli(key_coin, prior_probability, (num_rows,))
    z_guide, z_prior = program.propose(key_q, x_past), program.propose_from_prior(key_prior)
    proposed = decode(program, select_rows(from_prior, z_prior, z_guide))

    # 2. Accept or keep z, the target being p(z | x_o).
    log_a = log_ratio(program, x_past, proposed, state.current, prior_probability)
    accepted = accept_rows(key_accept, log_a)
    current = select_rows(accepted, proposed, state.current)
    info = ACMWGInfo(
        lp=current.log_prior + current.log_observed,
        acceptance_rate=accept_probability(log_a),
        accepted=accepted,
        diverging=log_a != log_a,
        from_prior=from_prior,
        history_length=state.history.total,
    )
    return current, info


def arrive(
    key: Array, state: ACMWGState, current: Decoded, x: Array, info: ACMWGInfo
) -> tuple[ACMWGState, ACMWGInfo]:
    """Go on with z and x drawn from it; what was drawn from latents that were left is usable."""
    history = offer(key, state.history, state.x, info.accepted)
    return ACMWGState(x, current, history), info._replace(history_length=history.total)


def step(
    key: Array, program: Program, state: ACMWGState, *, prior_probability: float
) -> tuple[ACMWGState, ACMWGInfo]:
    """Move the latents, then draw x_m ~ p(x_m | x_o, z)."""
    key_z, key_x, key_offer = random.split(key, 3)
    current, info = move_latents(key_z, program, state, prior_probability=prior_probability)
    return arrive(key_offer, state, current, program.impute(key_x, current.likelihood), info)


class ACMWGKernel(ProgramKernel):
    """Metropolis-Hastings on z with observed-only likelihood, proposals from past imputations.

    The target is p(z | x_o): missing entries are integrated out, so that valleys of
    p(x_m | x_o) cost nothing; x_m ~ p(x_m | x_o, z) is drawn after each move. The proposal is

        q_eps(z | x~) = (1 - eps) q(z | x~) + eps p(z),

    x~ drawn uniformly from the chain's own past imputations.

    Why this is valid. For each x~ the move is an independence Metropolis-Hastings step that leaves
    p(z | x_o) invariant, as long as the choice of x~ ignores the current z. Therefore an imputation
    drawn from the current z stays out of the history until the chain has left that z. The history
    keeps a reservoir sample of all that became usable: it changes ever more rarely (diminishing
    adaptation), and the prior's share bounds p(z | x_o) / q_eps by p(x_o | z) / (eps p(x_o))
    (uniform ergodicity for bounded likelihoods), which together give convergence to p(z | x_o)
    (Roberts and Rosenthal, 2007, Coupling and ergodicity of adaptive MCMC, theorem 1).

    Where it departs from the paper: the history holds `history_size` entries instead of all, one
    for each z that was left, weighted by how long the chain stayed there; see `history.py`.

    The history starts with the completed rows that another run hands over: its last ones, or all
    draws of a warm-up, `init_params={"x": ...}` of shape (chains, draws, rows, *event), without the
    first axis for one chain; `history_size` of them are taken, evenly spaced.

    Args:
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: `guide(x, *args, **kwargs)`, sampling every latent site of the model.
        site: name of the data site.
        params: trained values of `numpyro.param` sites, if any (`svi_result.params`).
        prior_probability: eps, the prior's share of the proposals, in [0, 1]. 0 gives up the
            bound above and the modes that no past imputation leads to.
        history_size: entries of the history per chain and row, at least 1.

    Raises:
        ValueError: if `prior_probability` or `history_size` is out of range.

    Example:
        >>> from jax import random
        >>> from ppl_vae.numpyro import MCMC, ACMWGKernel, VAE, fit
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> data = digits(binary=True)
        >>> fitted = fit(random.key(0), VAE((64,), 4), data.x_train, num_steps=20)
        >>> mcmc = MCMC(ACMWGKernel(fitted.model, fitted.guide), num_warmup=5, num_samples=10)
        >>> mcmc.run(random.key(1), with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64)))
        >>> mcmc.get_samples()["z"].shape
        (10, 3, 4)
    """

    settings = ("prior_probability", "history_size")

    def __init__(
        self, model, guide, *, site="x", params=None, prior_probability=0.05, history_size=20
    ) -> None:
        super().__init__(model, guide, site=site, params=params)
        is_number = isinstance(prior_probability, int | float | np.number)
        if not (is_number and 0 <= prior_probability <= 1):
            raise ValueError(f"prior_probability must lie in [0, 1], got {prior_probability!r}.")
        check_at_least(1, history_size=history_size)
        self.prior_probability = float(prior_probability)
        self.history_size = int(history_size)

    def starting_values(
        self, key: Array, program: Program, handed: dict[str, Array] | None
    ) -> tuple[Array, None]:
        """Return all imputations that are handed over, or one, (P, B, *event).

        Latents handed over are not used: x was drawn from them, so that it could not be proposed
        from.
        """
        given = (handed or {}).get(self.site)
        if given is None or jnp.ndim(given) == program.x_obs.ndim:
            x, _ = starting_values(key, program, None, handed)
            return x[None], None
        return starting_values(key, program, len(given), handed)[0], None

    def start(self, key: Array, program: Program, x: Array, z: Latents | None) -> ACMWGState:
        """Start with completed rows x (P, B, *event) as history; the last of them proposes z."""
        key_z, key_prior, key_x = random.split(key, 3)
        z = within_prior(key_prior, program, program.propose(key_z, x[-1]))
        current = decode(program, z)
        history = start_history(x, self.history_size, binary=is_binary(current.likelihood))
        return ACMWGState(program.impute(key_x, current.likelihood), current, history)

    def step(self, key: Array, program: Program, state: ACMWGState) -> tuple[ACMWGState, ACMWGInfo]:
        """Advance one chain by one iteration."""
        return step(key, program, state, prior_probability=self.prior_probability)

    def move_latents(
        self, key: Array, program: Program, state: ACMWGState
    ) -> tuple[Decoded, ACMWGInfo]:
        """Return the latents of the next iteration; x_m and the history stay as they are."""
        return move_latents(key, program, state, prior_probability=self.prior_probability)

    def arrive(
        self, key: Array, state: ACMWGState, current: Decoded, x: Array, info: ACMWGInfo
    ) -> tuple[ACMWGState, ACMWGInfo]:
        """Return the next state, with x drawn from `current`."""
        return arrive(key, state, current, x, info)

    def redecode(self, program: Program, state: ACMWGState) -> ACMWGState:
        """Recompute what the model says of the current latents."""
        return state._replace(current=decode(program, state.current.z))
