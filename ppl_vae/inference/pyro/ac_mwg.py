"""Adaptive collapsed Metropolis-within-Gibbs (AC-MWG).

Simkus and Gutmann (2023), Conditional sampling of variational autoencoders via iterated
approximate ancestral sampling, TMLR, section 4.1.  https://arxiv.org/abs/2308.09078
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppl_vae.counts import check_at_least
from ppl_vae.inference.pyro.history import History, offer, pick, start_history
from ppl_vae.inference.pyro.likelihood import is_binary
from ppl_vae.inference.pyro.mcmc import ProgramKernel
from ppl_vae.inference.pyro.metropolis import accept_probability, accept_rows
from ppl_vae.inference.pyro.mwg import Decoded, decode
from ppl_vae.inference.pyro.program import Latents, Program
from ppl_vae.inference.pyro.rows import select_rows
from ppl_vae.inference.pyro.starting import starting_values, within_prior

__all__ = [
    "ACMWGInfo", "ACMWGKernel", "ACMWGState", "arrive", "log_mixture_proposal", "log_ratio",
    "move_latents", "step",
]  # fmt: skip


class ACMWGState(NamedTuple):
    """What the next step needs."""

    x: Tensor  # completed rows drawn from the current latents, (C, B, *event)
    current: Decoded
    history: History

    @property
    def z(self) -> Latents:
        """The current latents."""
        return self.current.z


class ACMWGInfo(NamedTuple):
    """Sample statistics of one step, per row."""

    lp: Tensor  # log p(x_o, z), (C, B)
    acceptance_rate: Tensor  # min(1, ratio), (C, B)
    accepted: Tensor  # bool, (C, B)
    diverging: Tensor  # the ratio was NaN and the move refused, bool, (C, B)
    from_prior: Tensor  # the proposal came from the prior, bool, (C, B)
    history_length: Tensor  # iterations that the history stands for, (C, B)


def log_mixture_proposal(log_q: Tensor, log_prior: Tensor, prior_probability: float) -> Tensor:
    """Return log[(1 - eps) q(z | x) + eps p(z)], shape (C, B)."""
    eps = log_q.new_tensor(prior_probability)
    return torch.logaddexp(torch.log1p(-eps) + log_q, torch.log(eps) + log_prior)


def log_ratio(
    program: Program, x: Tensor, proposed: Decoded, current: Decoded, prior_probability: float
) -> Tensor:
    """Return log [p(x_o, z') q_eps(z | x)] - log [p(x_o, z) q_eps(z' | x)], shape (C, B).

    The likelihood is that of the observed entries alone; `x` is the entry of the history.
    """

    def log_weight(at: Decoded) -> Tensor:
        log_q = program.log_proposal(at.z, x)
        log_q_eps = log_mixture_proposal(log_q, at.log_prior, prior_probability)
        return at.log_prior + at.log_observed - log_q_eps

    return log_weight(proposed) - log_weight(current)


def move_latents(
    program: Program, state: ACMWGState, *, prior_probability: float
) -> tuple[Decoded, ACMWGInfo]:
    """Propose from an entry of the history or from the prior, and accept it or keep z."""
    num_chains, num_rows = state.x.shape[:2]

    # 1. Propose z' ~ (1 - eps) q(z | x~) + eps p(z), x~ uniform in the chain's usable history.
    x_past = pick(state.history, program.x_obs, program.mask)
    from_prior = torch.rand(num_chains, num_rows, device=state.x.device) < prior_probability
    z_guide, z_prior = program.propose(x_past), program.propose_from_prior((num_chains,))
    proposed = decode(program, select_rows(from_prior, z_prior, z_guide))

    # 2. Accept or keep z, the target being p(z | x_o).
    log_a = log_ratio(program, x_past, proposed, state.current, prior_probability)
    accepted = accept_rows(log_a)
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
    state: ACMWGState, current: Decoded, x: Tensor, info: ACMWGInfo
) -> tuple[ACMWGState, ACMWGInfo]:
    """Go on with z and x drawn from it; what was drawn from latents that were left is usable.

    The last thing of an iteration: one that is interrupted earlier leaves the history as it was.
    """
    history = offer(state.history, state.x, info.accepted)
    return ACMWGState(x, current, history), info._replace(history_length=history.total)


def step(
    program: Program, state: ACMWGState, *, prior_probability: float
) -> tuple[ACMWGState, ACMWGInfo]:
    """Move the latents, then draw x_m ~ p(x_m | x_o, z)."""
    current, info = move_latents(program, state, prior_probability=prior_probability)
    return arrive(state, current, program.impute(current.likelihood), info)


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
    draws of a warm-up, `init_params={"x": ...}` of shape (chains, draws, rows, *event);
    `history_size` of them are taken, evenly spaced.

    Args:
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: `guide(x, *args, **kwargs)`, sampling every latent site of the model.
        site: name of the data site.
        prior_probability: eps, the prior's share of the proposals, in [0, 1]. 0 gives up the
            bound above and the modes that no past imputation leads to.
        history_size: entries of the history per chain and row, at least 1.

    Raises:
        ValueError: if `prior_probability` or `history_size` is out of range.

    Example:
        >>> import pyro
        >>> from ppl_vae.pyro import MCMC, ACMWGKernel, VAE, fit
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> pyro.set_rng_seed(0)
        >>> data = digits(binary=True)
        >>> fitted = fit(VAE((64,), 4), data.x_train, num_steps=20)
        >>> mcmc = MCMC(ACMWGKernel(fitted.model, fitted.guide), num_warmup=5, num_samples=10)
        >>> mcmc.run(with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64)))
        >>> mcmc.get_samples()["z"].shape
        torch.Size([10, 3, 4])
    """

    settings = ("prior_probability", "history_size")

    def __init__(self, model, guide, *, site="x", prior_probability=0.05, history_size=20) -> None:
        super().__init__(model, guide, site=site)
        is_number = isinstance(prior_probability, int | float | np.number)
        if not (is_number and 0 <= prior_probability <= 1):
            raise ValueError(f"prior_probability must lie in [0, 1], got {prior_probability!r}.")
        check_at_least(1, history_size=history_size)
        self.prior_probability = float(prior_probability)
        self.history_size = int(history_size)

    def starting_values(
        self, program: Program, num_chains: int, handed: dict[str, Tensor] | None
    ) -> tuple[Tensor, None]:
        """Return all imputations that are handed over, or one, (C, P, B, *event).

        Latents handed over are not used: x was drawn from them, so that it could not be proposed
        from.
        """
        given = (handed or {}).get(self.site)
        if given is None or given.ndim == program.x_obs.ndim + 1:
            x, _ = starting_values(program, num_chains, None, handed)
            return x.unsqueeze(1), None
        return starting_values(program, num_chains, given.shape[1], handed)[0], None

    def start(self, program: Program, x: Tensor, z: Latents | None) -> ACMWGState:
        """Start with completed rows x (C, P, B, *event) as history; the last proposes z."""
        current = decode(program, within_prior(program, program.propose(x[:, -1])))
        history = start_history(x, self.history_size, binary=is_binary(current.likelihood))
        return ACMWGState(program.impute(current.likelihood), current, history)

    def step(self, program: Program, state: ACMWGState) -> tuple[ACMWGState, ACMWGInfo]:
        """Advance the chains by one iteration."""
        return step(program, state, prior_probability=self.prior_probability)

    def move_latents(self, program: Program, state: ACMWGState) -> tuple[Decoded, ACMWGInfo]:
        """Return the latents of the next iteration; x_m and the history stay as they are."""
        return move_latents(program, state, prior_probability=self.prior_probability)

    def arrive(
        self, state: ACMWGState, current: Decoded, x: Tensor, info: ACMWGInfo
    ) -> tuple[ACMWGState, ACMWGInfo]:
        """Return the next state, with x drawn from `current`."""
        return arrive(state, current, x, info)

    def redecode(self, program: Program, state: ACMWGState) -> ACMWGState:
        """Recompute what the model says of the current latents."""
        return state._replace(current=decode(program, state.current.z))
