"""How much noise an objective's gradient has, for a program and its data as they are."""

from collections.abc import Callable, Sequence
from copy import copy
from inspect import signature
from typing import Any

import pyro
import torch
import xarray as xr
from torch import Tensor

from ppl_vae.counts import check_at_least
from ppl_vae.gradients import Moments, summarise_gradients
from ppl_vae.importance_results import particle_numbers
from ppl_vae.inference.pyro.fitted import pair_of
from ppl_vae.inference.pyro.mcmc import as_numpy
from ppl_vae.inference.pyro.named_objectives import find_objective
from ppl_vae.inference.pyro.objectives import Objective
from ppl_vae.inference.pyro.program import split_data
from ppl_vae.inference.pyro.rows import row_tensors
from ppl_vae.inference.pyro.svi import Fitted
from ppl_vae.masks import check_data

__all__ = ["gradient_quality"]


def gradient_quality(
    program: Any,
    x: Any,
    *args: Any,
    objectives: Sequence[str | Objective] = ("iwae", "dreg"),
    num_particles: int | Sequence[int] = (1, 5, 50),
    num_draws: int = 100,
    mask: Any = None,
    site: str = "x",
) -> xr.Dataset:
    """Estimate signal and noise of the gradients of objectives, at the weights as they are.

        snr = average over the block's entries j of |mean g_j| / sd g_j,  over draws of
        g = gradient of the objective's mean over the rows of x

    The rows stay the same; what varies are the latents, by `pyro.set_rng_seed`. Of n draws, an
    entry whose expected gradient is 0 has a ratio of some 0.8 / sqrt(n). Rainforth et al. (2018),
    Tighter variational bounds are not necessarily better, eq. 10, https://arxiv.org/abs/1802.04537.

    Args:
        program: a `VAE`, a `Fitted` or a pair (model, guide), with its weights as they are.
        x: data, shape (rows, *event), NaN where missing.
        *args: further arguments of model and guide.
        objectives: names as in `fit`, or objectives of this library.
        num_particles: draws a row, K, one or several; each objective is measured with each.
        num_draws: gradients to draw, at least 2.
        mask: bool, the shape of x, True = observed; by default what is not NaN.
        site: name of the data site.

    Returns:
        `norm` of the mean gradient, `variance` summed over entries, and `snr`, each of dimensions
        (objective, num_particles, block). A block is a parameter of the program, or all weights of
        a net; gradients are by unconstrained parameters, as optimisers see them.

    Raises:
        ValueError: bad data or numbers, or an objective without particles.

    Example:
        >>> import pyro
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.pyro import VAE, gradient_quality
        >>> pyro.set_rng_seed(0)
        >>> x, vae = digits(binary=True).x_train[:8], VAE((64,), 4, hidden=(8,))
        >>> ds = gradient_quality(vae, x, num_particles=(1, 2), num_draws=4)
        >>> ds.snr.shape, ds.block.values.tolist()
        ((2, 2, 2), ['decoder', 'encoder'])
    """
    check_data(as_numpy(x), as_numpy(mask), site=site)
    named = check_objectives(objectives, site)
    check_at_least(2, num_draws=num_draws)
    numbers = particle_numbers(num_particles)
    x, mask = split_data(x, mask)
    args = row_tensors(args, x)
    pair = pair_of(program.program if isinstance(program, Fitted) else program)

    def loss(objective: Objective) -> Tensor:
        return objective.differentiable_loss(*pair, x, *args, mask=mask) / len(x)

    moments = {
        (name, k): _moments(loss, with_particles(name, objective, k), num_draws)
        for name, objective in named.items()
        for k in numbers
    }
    return summarise_gradients(moments, list(named), numbers)


def _moments(loss: Callable[[Objective], Tensor], objective: Objective, num_draws: int) -> Moments:
    """Return mean and variance of the gradient of each block, a draw at a time (Welford 1962)."""
    blocks = _blocks(lambda: loss(objective))
    mean = {name: torch.zeros(sum(p.numel() for p in block)) for name, block in blocks.items()}
    squares = {name: torch.zeros_like(value) for name, value in mean.items()}
    for count in range(1, num_draws + 1):
        for name, drawn in _gradient(loss(objective), blocks).items():
            before = drawn - mean[name]
            mean[name] = mean[name] + before / count
            squares[name] += before * (drawn - mean[name])
    return {n: (as_numpy(mean[n]), as_numpy(squares[n]) / (num_draws - 1)) for n in mean}


def _gradient(loss: Tensor, blocks: dict[str, list[Tensor]]) -> dict[str, Tensor]:
    """Return the gradient by each block's parameters, one long vector each."""
    every = [parameter for block in blocks.values() for parameter in block]
    each = iter(torch.autograd.grad(loss, every, allow_unused=True))
    none_is_zero = (
        (name, [torch.zeros_like(p) if (g := next(each)) is None else g for p in block])
        for name, block in blocks.items()
    )
    return {name: torch.cat([g.flatten() for g in block]).cpu() for name, block in none_is_zero}


def _blocks(run: Callable[[], Any]) -> dict[str, list[Tensor]]:
    """Return the unconstrained parameters that a run of the objective uses, by block."""
    with pyro.poutine.trace(param_only=True) as recorded, torch.random.fork_rng():
        run()
    blocks: dict[str, list[Tensor]] = {}
    for name, site in sorted(recorded.trace.nodes.items()):
        value: Any = site["value"]
        blocks.setdefault(block_of(name), []).append(value.unconstrained())
    return blocks


def block_of(name: str) -> str:
    """Return the name of the net that a parameter is a weight of, or its own."""
    return name.split("$$$")[0]


def check_objectives(objectives: Sequence[str | Objective], site: str) -> dict[str, Objective]:
    """Return the objectives by name, or raise a `ValueError`."""
    if isinstance(objectives, str | Objective) or not len(objectives):
        raise ValueError(
            f"objectives must be a sequence such as ('iwae', 'dreg'), got {objectives!r}."
        )
    named = {
        o if isinstance(o, str) else type(o).__name__: find_objective(o, site) for o in objectives
    }
    if len(named) < len(objectives):
        raise ValueError(f"objectives must have different names, got {list(objectives)!r}.")
    return named


def with_particles(name: str, objective: Objective, num_particles: int) -> Objective:
    """Return the objective with another number of particles, or raise a `ValueError`."""
    if "num_particles" not in signature(type(objective)).parameters:
        raise ValueError(f"objective {name!r} has no particles whose number could be compared.")
    objective = copy(objective)
    least = objective.least_particles
    check_at_least(least, num_particles=num_particles)
    objective.num_particles = num_particles
    return objective
