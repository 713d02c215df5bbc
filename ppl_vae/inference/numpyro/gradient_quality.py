"""How much noise an objective's gradient has, for a program and its data as they are."""

from collections.abc import Callable, Sequence
from copy import copy
from inspect import signature
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array, lax, random
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.distributions import biject_to, constraints

from ppl_vae.counts import check_at_least
from ppl_vae.gradients import Moments, summarise_gradients
from ppl_vae.importance_results import particle_numbers
from ppl_vae.inference.numpyro.fitted import pair_of
from ppl_vae.inference.numpyro.named_objectives import find_objective
from ppl_vae.inference.numpyro.objectives import Objective
from ppl_vae.inference.numpyro.program import accepts_mask, split_data
from ppl_vae.inference.numpyro.random_keys import check_key
from ppl_vae.inference.numpyro.rows import row_arrays
from ppl_vae.inference.numpyro.svi import Fitted
from ppl_vae.masks import check_data

__all__ = ["gradient_quality"]


def gradient_quality(
    key: Array,
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

    The rows stay the same; what varies are the latents. Of n draws, an entry whose expected
    gradient is 0 has a ratio of some 0.8 / sqrt(n). Rainforth et al. (2018), Tighter variational
    bounds are not necessarily better, eq. 10, https://arxiv.org/abs/1802.04537.

    Args:
        key: random key; the same key gives the same result.
        program: a `Fitted`, or a `VAE` or a pair (model, guide) with its first weights.
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
        >>> from jax import random
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.numpyro import VAE, gradient_quality
        >>> x, vae = digits(binary=True).x_train[:8], VAE((64,), 4, hidden=(8,))
        >>> ds = gradient_quality(random.key(0), vae, x, num_particles=(1, 2), num_draws=4)
        >>> ds.snr.shape, ds.block.values.tolist()
        ((2, 2, 2), ['decoder', 'encoder'])
    """
    check_data(x, mask, site=site)
    named = check_objectives(objectives, site)
    check_key(key)
    check_at_least(2, num_draws=num_draws)
    numbers = particle_numbers(num_particles)
    x, mask = split_data(jnp.asarray(x), mask)
    args = row_arrays(args, len(x))
    given = program.params if isinstance(program, Fitted) else {}
    pair = pair_of(program.program if isinstance(program, Fitted) else program)
    key_start, key_draws = random.split(key)
    start, constrain = _start(key_start, pair, given, (x, *args), mask)
    keys = random.split(key_draws, num_draws)

    def loss(objective: Objective, params: dict[str, Any], key: Array) -> Array:
        return objective.loss(key, constrain(params), *pair, x, *args, mask=mask) / len(x)

    moments = {
        (name, k): _moments(jax.grad(loss, 1), with_particles(name, objective, k), start, keys)
        for name, objective in named.items()
        for k in numbers
    }
    return summarise_gradients(moments, list(named), numbers)


def _moments(
    gradient: Callable[..., dict[str, Any]],
    objective: Objective,
    start: dict[str, Any],
    keys: Array,
) -> Moments:
    """Return mean and variance of the gradient of each block, a draw at a time (Welford 1962)."""

    @jax.jit
    def run(start: dict[str, Any], keys: Array) -> Any:
        def step(moments: Any, key: Array) -> tuple[Any, None]:
            count, mean, squares = moments
            drawn = {n: ravel_pytree(g)[0] for n, g in gradient(objective, start, key).items()}
            new = {n: mean[n] + (drawn[n] - mean[n]) / (count + 1) for n in drawn}
            more = {n: (drawn[n] - mean[n]) * (drawn[n] - new[n]) for n in drawn}
            return (count + 1, new, {n: squares[n] + more[n] for n in drawn}), None

        zeros = {name: jnp.zeros_like(ravel_pytree(value)[0]) for name, value in start.items()}
        return lax.scan(step, (0, zeros, zeros), keys)[0][1:]

    mean, squares = run(start, keys)
    variance = {name: np.asarray(value) / (len(keys) - 1) for name, value in squares.items()}
    return {n: (np.asarray(mean[n]), variance[n]) for n in mean}


def _start(
    key: Array, pair: Any, given: dict[str, Any], args: tuple[Any, ...], mask: Array
) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """Return the unconstrained parameters by block, and what turns them into the programs' own."""
    sites: dict[str, Any] = {}
    for fn in pair:
        kwargs = {"mask": mask} if accepts_mask(fn) else {}
        seeded = handlers.seed(handlers.substitute(fn, data=given), key)
        sites |= handlers.trace(seeded).get_trace(*args, **kwargs)
    sites = {n: site for n, site in sites.items() if site["type"] == "param"}
    to_own = {
        n: biject_to(site["kwargs"].get("constraint", constraints.real))
        for n, site in sites.items()
    }
    start = {block_of(n): to_own[n].inv(sites[n]["value"]) for n in sorted(sites)}
    return start, lambda params: given | {n: to_own[n](params[block_of(n)]) for n in sites}


def block_of(name: str) -> str:
    """Return the name of the net that a parameter is the weights of, or its own."""
    return name.removesuffix("$params")


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
