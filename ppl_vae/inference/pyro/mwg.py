"""Metropolis-within-Gibbs (MWG): pseudo-Gibbs with the guide's error corrected.

Mattei and Frellsen (2018), Leveraging the exact likelihood of deep latent variable models,
NeurIPS, section 4.  https://arxiv.org/abs/1802.04826
"""

from typing import NamedTuple

from torch import Tensor
from torch.distributions import Distribution

from ppl_vae.inference.pyro.likelihood import fixed_log_prob, varying_log_prob
from ppl_vae.inference.pyro.mcmc import ProgramKernel
from ppl_vae.inference.pyro.metropolis import accept_probability, accept_rows
from ppl_vae.inference.pyro.program import Latents, Program
from ppl_vae.inference.pyro.rows import select_rows
from ppl_vae.inference.pyro.starting import within_prior
from ppl_vae.inference.pyro.support import likelihood_within

__all__ = [
    "Decoded", "MWGInfo", "MWGKernel", "MWGState", "Scored", "decode", "log_joint", "log_ratio",
    "move_latents", "score", "step",
]  # fmt: skip


class Decoded(NamedTuple):
    """A latent and what the model says of it; one decoder pass."""

    z: Latents  # each (C, B, ...)
    log_prior: Tensor  # log p(z), (C, B)
    log_others: Tensor  # log p(y | z) of other observed sites, (C, B)
    log_observed: Tensor  # log p(x_o, y | z), (C, B)
    likelihood: Distribution  # p(x | z)


class Scored(NamedTuple):
    """A decoded latent, ready to score rows under."""

    z: Latents
    log_prior: Tensor
    log_others: Tensor
    log_observed: Tensor
    likelihood: Distribution
    log_fixed: Tensor  # the part of log p(x, y | z) that no x changes, (C, B)


class MWGState(NamedTuple):
    """What the next step needs."""

    x: Tensor  # completed rows, (C, B, *event)
    current: Scored

    @property
    def z(self) -> Latents:
        """The current latents."""
        return self.current.z


class MWGInfo(NamedTuple):
    """Sample statistics of one step, per row."""

    lp: Tensor  # log p(x_o, z), (C, B)
    acceptance_rate: Tensor  # min(1, ratio), (C, B)
    accepted: Tensor  # bool, (C, B)
    diverging: Tensor  # the ratio was NaN and the move refused, bool, (C, B)


def decode(program: Program, z: Latents) -> Decoded:
    """Run the model once at `z`."""
    log_prior, log_others, likelihood = program.decode(z)
    log_observed = log_others + program.log_observed(likelihood)
    log_observed = likelihood_within(log_prior, log_observed)
    return Decoded(z, log_prior, log_others, log_observed, likelihood)


def score(at: Decoded) -> Scored:
    """Compute once what log p(x, y | z) of all rows x shares."""
    return Scored(*at, at.log_others + fixed_log_prob(at.likelihood))


def log_joint(at: Scored, x: Tensor) -> Tensor:
    """Return log p(x, y, z) of completed rows, shape (C, B)."""
    log_likelihood = at.log_fixed + varying_log_prob(at.likelihood, x)
    return at.log_prior + likelihood_within(at.log_prior, log_likelihood)


def log_ratio(program: Program, x: Tensor, proposed: Scored, current: Scored) -> Tensor:
    """Return log [p(x, z') q(z | x)] - log [p(x, z) q(z' | x)], shape (C, B)."""
    log_target_new, log_target_old = log_joint(proposed, x), log_joint(current, x)
    log_q_new = program.log_proposal(proposed.z, x)
    log_q_old = program.log_proposal(current.z, x)
    return log_target_new - log_target_old + log_q_old - log_q_new


def move_latents(program: Program, x: Tensor, current: Scored) -> tuple[Scored, MWGInfo]:
    """Propose z' ~ q(z | x_o, x_m), and accept it or keep z."""
    proposed = score(decode(program, program.propose(x)))
    log_a = log_ratio(program, x, proposed, current)
    accepted = accept_rows(log_a)
    current = select_rows(accepted, proposed, current)
    info = MWGInfo(
        lp=current.log_prior + current.log_observed,
        acceptance_rate=accept_probability(log_a),
        accepted=accepted,
        diverging=log_a != log_a,
    )
    return current, info


def step(program: Program, state: MWGState) -> tuple[MWGState, MWGInfo]:
    """Move the latents, then draw x_m ~ p(x_m | x_o, z)."""
    current, info = move_latents(program, state.x, state.current)
    return MWGState(program.impute(current.likelihood), current), info


class MWGKernel(ProgramKernel):
    """Metropolis-Hastings on z with the guide as proposal, then a Gibbs draw of x_m.

    Leaves p(z, x_m | x_o) invariant for any guide of full support. A move z -> z' ~ q(z | x) is
    accepted with probability min(1, [p(x, z') q(z | x)] / [p(x, z) q(z' | x)]).

    The proposal sees the current imputation, so that a chain hardly leaves the mode it is in when
    the modes are far apart: look at R-hat over several chains, and see `ACMWGKernel`.

    Args:
        model: `model(x, *args, **kwargs)`, its data site observed.
        guide: `guide(x, *args, **kwargs)`, sampling every latent site of the model.
        site: name of the data site.

    Example:
        >>> import pyro
        >>> from ppl_vae.pyro import MCMC, MWGKernel, VAE, fit
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> pyro.set_rng_seed(0)
        >>> data = digits(binary=True)
        >>> fitted = fit(VAE((64,), 4), data.x_train, num_steps=20)
        >>> mcmc = MCMC(MWGKernel(fitted.model, fitted.guide), num_warmup=5, num_samples=10)
        >>> mcmc.run(with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64)))
        >>> mcmc.get_extra_fields()["info"].acceptance_rate.shape
        torch.Size([10, 3])
    """

    def start(self, program: Program, x: Tensor, z: Latents | None) -> MWGState:
        """Start from completed rows, and from `z` where another kernel hands it over."""
        z = program.propose(x) if z is None else z
        return MWGState(x, score(decode(program, within_prior(program, z))))

    def step(self, program: Program, state: MWGState) -> tuple[MWGState, MWGInfo]:
        """Advance the chains by one iteration."""
        return step(program, state)

    def move_latents(self, program: Program, state: MWGState) -> tuple[Scored, MWGInfo]:
        """Return the latents of the next iteration; x_m stays as it is."""
        return move_latents(program, state.x, state.current)

    def arrive(
        self, state: MWGState, current: Scored, x: Tensor, info: MWGInfo
    ) -> tuple[MWGState, MWGInfo]:
        """Return the next state, with x drawn from `current`."""
        del state  # nothing of it is kept
        return MWGState(x, current), info

    def redecode(self, program: Program, state: MWGState) -> MWGState:
        """Recompute what the model says of the current latents."""
        return MWGState(state.x, score(decode(program, state.current.z)))
