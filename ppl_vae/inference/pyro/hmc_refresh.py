"""A guide-proposed move alternated with a Hamiltonian Monte Carlo (HMC) move of the latents.

Neal (2011), MCMC using Hamiltonian dynamics, Handbook of Markov chain Monte Carlo, section 5.3.
https://arxiv.org/abs/1206.1901
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from torch import Tensor

from ppl_vae.counts import check_at_least
from ppl_vae.inference.pyro.ac_mwg import ACMWGKernel, ACMWGState
from ppl_vae.inference.pyro.mcmc import ProgramKernel
from ppl_vae.inference.pyro.metropolis import accept_probability, accept_rows
from ppl_vae.inference.pyro.mwg import Decoded, MWGKernel, MWGState, Scored, score
from ppl_vae.inference.pyro.program import Latents, Program
from ppl_vae.inference.pyro.rows import select_rows
from ppl_vae.inference.pyro.unconstrained import (
    decode_unconstrained,
    require_continuous,
    to_unconstrained,
)
from ppl_vae.inference_data import Run

__all__ = [
    "ACMWGRefreshInfo",
    "HMCRefreshKernel",
    "MWGRefreshInfo",
    "kinetic_energy",
    "leapfrog",
    "log_density",
    "log_density_gradient",
    "refresh",
]

LARGEST_ENERGY_ERROR = 1000.0  # as in the hosts' HMC; nats


class MWGRefreshInfo(NamedTuple):
    """Sample statistics of one step over `MWGKernel`, per row."""

    lp: Tensor  # log p(x_o, z), (C, B)
    acceptance_rate: Tensor  # of the guide's move, (C, B)
    accepted: Tensor  # of the guide's move, bool, (C, B)
    diverging: Tensor  # of the guide's move, bool, (C, B)
    hmc_acceptance_rate: Tensor  # (C, B)
    hmc_diverging: Tensor  # the energy error was NaN or above 1000 nats, bool, (C, B)


class ACMWGRefreshInfo(NamedTuple):
    """Sample statistics of one step over `ACMWGKernel`, per row."""

    lp: Tensor  # log p(x_o, z), (C, B)
    acceptance_rate: Tensor  # of the guide's move, (C, B)
    accepted: Tensor  # of the guide's move, bool, (C, B)
    diverging: Tensor  # of the guide's move, bool, (C, B)
    from_prior: Tensor  # the proposal came from the prior, bool, (C, B)
    history_length: Tensor  # iterations that the history stands for, (C, B)
    hmc_acceptance_rate: Tensor  # (C, B)
    hmc_diverging: Tensor  # the energy error was NaN or above 1000 nats, bool, (C, B)


# Subclasses may have another target than p(z | x_o), so that only the classes themselves count.
INFOS: dict[type, Any] = {MWGKernel: MWGRefreshInfo, ACMWGKernel: ACMWGRefreshInfo}


def log_density(program: Program, u: Latents) -> Tensor:
    """Return log p(x_o, z) + log |dz/du| at z = t(u), shape (C, B)."""
    at, log_det = decode_unconstrained(program, u)
    return at.log_prior + at.log_observed + log_det


def log_density_gradient(program: Program, u: Latents) -> Latents:
    """Return the gradient of `log_density`, row by row, each of the shape of u."""
    with torch.enable_grad():
        u = {name: value.detach().requires_grad_() for name, value in u.items()}
        total = log_density(program, u).sum()
    return dict(zip(u, torch.autograd.grad(total, list(u.values())), strict=True))


def kinetic_energy(momentum: Latents) -> Tensor:
    """Return |p|^2 / 2 per row, shape (C, B)."""
    each = [(p.reshape(*p.shape[:2], -1) ** 2).sum(-1) for p in momentum.values()]
    return 0.5 * torch.stack(each).sum(0)


def leapfrog(
    gradient: Callable[[Latents], Latents],
    u: Latents,
    momentum: Latents,
    *,
    step_size: float,
    num_steps: int,
) -> tuple[Latents, Latents]:
    """Follow du/dt = p, dp/dt = gradient(u) for `num_steps` steps; reversible, volume 1.

    Args:
        gradient: of the log density with respect to u.
        u: positions by site, each (C, B, ...).
        momentum: p by site, of the shapes of u.
        step_size: time of one step.
        num_steps: number of steps, at least 1.
    """

    def move(a: Latents, size: float, b: Latents) -> Latents:
        return {name: a[name] + size * b[name] for name in a}

    slope = gradient(u)
    for _ in range(num_steps):
        momentum = move(momentum, step_size / 2, slope)
        u = move(u, step_size, momentum)
        slope = gradient(u)
        momentum = move(momentum, step_size / 2, slope)
    return u, momentum


def refresh(
    program: Program, current: Decoded | Scored, *, step_size: float, num_steps: int
) -> tuple[Decoded | Scored, Tensor, Tensor]:
    """Move the latents of every row by HMC; return them, the acceptance rate and divergence."""
    # 1. Draw a momentum, and follow the dynamics, which may well diverge.
    u, log_det = to_unconstrained(program, current.z)
    momentum = {name: torch.randn_like(value) for name, value in u.items()}
    gradient = partial(log_density_gradient, program)
    with pyro.validation_enabled(False):
        u_new, momentum_new = leapfrog(
            gradient, u, momentum, step_size=step_size, num_steps=num_steps
        )
        at, log_det_new = decode_unconstrained(program, u_new)
    proposed = score(at) if isinstance(current, Scored) else at

    # 2. Accept or keep z; rows are independent, so that each decides for itself.
    log_target = current.log_prior + current.log_observed + log_det
    log_target_new = proposed.log_prior + proposed.log_observed + log_det_new
    log_a = log_target_new - log_target + kinetic_energy(momentum) - kinetic_energy(momentum_new)
    accepted = accept_rows(log_a)
    diverging = ~(log_a > -LARGEST_ENERGY_ERROR)
    return select_rows(accepted, proposed, current), accept_probability(log_a), diverging


class HMCRefreshKernel(ProgramKernel):
    """A guide-proposed move, then one HMC move of the latents, then x_m ~ p(x_m | x_o, z).

    The guide's move jumps between modes; the HMC move follows the gradient of

        log p(x_o, z(u)) + log |dz/du|

    in unconstrained coordinates u, and so explores where the guide is too narrow or too far off.
    Rows have their own momentum and accept decision.

    Why this is valid. HMC leaves p(z | x_o) invariant; the draw of x_m after it, which forgets the
    one before, makes the pair follow p(z, x_m | x_o), which the move of `MWGKernel` leaves
    invariant. For `ACMWGKernel`: given the history, both moves leave p(z | x_o) invariant, and the
    prior's share gives the guide's move the bound from which convergence follows; HMC after it
    keeps that bound. The history is offered an imputation only when a guide-proposed move is
    accepted. HMC offers none: what was drawn since the last accepted guide-proposed move stays out,
    however far HMC went meanwhile.

    Args:
        kernel: an `MWGKernel` or an `ACMWGKernel`; programs, parameters and settings are its own.
        step_size: of the leapfrog, in units of the unconstrained latents.
        num_steps: leapfrog steps, one decoder pass and its gradient each.

    Raises:
        TypeError: if `kernel` is of another type.
        ValueError: if `step_size` or `num_steps` is out of range; when run, if a latent site is
            discrete.

    Example:
        >>> import pyro
        >>> from ppl_vae.pyro import MCMC, HMCRefreshKernel, MWGKernel, VAE, fit
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> pyro.set_rng_seed(0)
        >>> data = digits(binary=True)
        >>> fitted = fit(VAE((64,), 4), data.x_train, num_steps=20)
        >>> kernel = HMCRefreshKernel(MWGKernel(fitted.model, fitted.guide), num_steps=3)
        >>> mcmc = MCMC(kernel, num_warmup=5, num_samples=10)
        >>> mcmc.run(with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64)))
        >>> mcmc.get_extra_fields()["info"].hmc_acceptance_rate.shape
        torch.Size([10, 3])
    """

    settings = ("step_size", "num_steps")

    def __init__(self, kernel, *, step_size=0.1, num_steps=10) -> None:
        if type(kernel) not in INFOS:
            raise TypeError(
                "HMCRefreshKernel refreshes the latents of an MWGKernel or an ACMWGKernel, got "
                f"{type(kernel).__name__}. Wrap one of those; "
                "to run HMC or NUTS alone, see ConditionalModel."
            )
        if not (isinstance(step_size, int | float | np.number) and 0 < step_size < np.inf):
            raise ValueError(f"step_size must be a finite number above 0, got {step_size!r}.")
        check_at_least(1, num_steps=num_steps)
        super().__init__(kernel.model, kernel.guide, site=kernel.site)
        self.kernel = kernel
        self.step_size = float(step_size)
        self.num_steps = int(num_steps)

    def check(self, program: Program) -> None:
        """Raise where the program cannot be sampled, or has discrete latents."""
        super().check(program)
        require_continuous(program)

    def starting_values(
        self, program: Program, num_chains: int, handed: dict[str, Tensor] | None
    ) -> tuple[Tensor, Latents | None]:
        """Return what the wrapped kernel starts from, chains first."""
        return self.kernel.starting_values(program, num_chains, handed)

    def start(self, program: Program, x: Tensor, z: Latents | None) -> MWGState | ACMWGState:
        """Start as the wrapped kernel does."""
        return self.kernel.start(program, x, z)

    def step(self, program: Program, state: Any) -> tuple[Any, MWGRefreshInfo | ACMWGRefreshInfo]:
        """Advance the chains by one iteration."""
        current, info = self.kernel.move_latents(program, state)
        current, rate, diverging = refresh(
            program, current, step_size=self.step_size, num_steps=self.num_steps
        )
        x = program.impute(current.likelihood)
        state, info = self.kernel.arrive(state, current, x, info)
        info = info._replace(lp=current.log_prior + current.log_observed)
        info = INFOS[type(self.kernel)](
            **info._asdict(), hmc_acceptance_rate=rate, hmc_diverging=diverging
        )
        return state, info

    def redecode(self, program: Program, state: Any) -> Any:
        """Recompute what the model says of the current latents."""
        return self.kernel.redecode(program, state)

    def collect(self, mcmc: Any) -> Run:
        """Return the results of a finished run, with the settings of the wrapped kernel."""
        run = super().collect(mcmc)
        of_wrapped = {name: getattr(self.kernel, name) for name in self.kernel.settings}
        wrapped = {"wrapped_kernel": type(self.kernel).__name__, **of_wrapped}
        return replace(run, attrs={**run.attrs, **wrapped})
