"""Where chains start: at the model's own prior predictive, or where another kernel stopped."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from ppl_vae.inference.pyro.program import Latents, Program
from ppl_vae.inference.pyro.rows import as_tensor, select_rows

__all__ = ["HandOver", "check_handed", "origin_of", "starting_values", "within_prior"]


class HandOver(dict[str, Tensor]):
    """Where another run stopped: completed rows and latents by site, chains first.

    A dict, so that `pyro.infer.MCMC` takes it as its `initial_params`. `origin` says what kernel
    came there in how many iterations.
    """

    def __init__(self, values: dict[str, Tensor], origin: str) -> None:
        super().__init__(values)
        self.origin = origin


def origin_of(init_params: dict[str, Tensor] | None) -> str:
    """Return in words where chains start that are given `init_params`."""
    if init_params is None:
        return "prior predictive"
    return getattr(init_params, "origin", "init_params")


def check_handed(handed: Any, num_chains: int) -> None:
    """Raise unless `init_params` are values by site, chains first.

    Raises:
        TypeError: no dict of arrays.
        ValueError: values of another number of chains.
    """
    if handed is None:
        return
    if not isinstance(handed, Mapping):
        made = "`.hand_over()` of it" if hasattr(handed, "hand_over") else "a dict"
        raise TypeError(
            "init_params must hold values by site, as another run's `last_state.hand_over()`, got "
            f"{type(handed).__name__}: give {made}."
        )
    for name, value in handed.items():
        if not hasattr(value, "shape"):
            raise TypeError(
                f"init_params[{name!r}] must be an array, chains first, got {type(value).__name__}."
            )
        if tuple(value.shape[:1]) != (num_chains,):
            raise ValueError(
                f"init_params[{name!r}] must have the chains as first axis, of length "
                f"{num_chains}; it has shape {tuple(value.shape)}."
            )


def starting_values(
    program: Program, num_chains: int, num_particles: int | None, handed: dict[str, Tensor] | None
) -> tuple[Tensor, Latents | None]:
    """Return completed rows, and latents where they are handed over, chains first.

    Args:
        program: the program and its data.
        num_chains: number of chains C.
        num_particles: K of a population, whose axis comes after the chains', or None.
        handed: another run's `last_state.z`, or None.  A single chain's values make a population
            of copies; a population's first particle makes a single chain.

    Raises:
        ValueError: names of no site, values of another shape than the data's, or a missing entry
            or a latent that is NaN or infinite.
    """
    lead = (num_chains,) if num_particles is None else (num_chains, num_particles)
    z = program.propose_from_prior(lead)
    x = program.impute(program.decode(z)[-1])
    if not handed:
        return x, None
    like = {program.site: x, **z}
    _check_names(handed, like)
    fitted = {}
    for name, value in handed.items():
        shape = like[name].shape[len(lead) :]
        fitted[name] = _fit_particles(name, as_tensor(value), shape, num_chains, num_particles)
        fitted[name] = fitted[name].to(like[name])
    if program.site in fitted:
        x = torch.where(program.mask, program.x_obs, fitted.pop(program.site))
    for name, value in {program.site: x, **fitted}.items():
        _refuse_undefined(name, value, len(lead))
    return x, fitted if z.keys() <= fitted.keys() else None


def within_prior(program: Program, z: Latents) -> Latents:
    """Return `z`, and draws from the prior in rows where the prior has no density at `z`.

    A chain must not start there: p(x | z) need not exist, and x_m could not be drawn.
    """
    log_prior, *_ = program.decode(z)
    z_prior = program.propose_from_prior(log_prior.shape[:-1])
    return select_rows(log_prior == -torch.inf, z_prior, z)


def _refuse_undefined(name: str, value: Tensor, num_axes: int) -> None:
    bad = (~value.isfinite()).nonzero()
    if len(bad):
        index = tuple(bad[0].tolist())
        raise ValueError(
            f"init_params[{name!r}] is {value[index]} at chain {index[0]}, row {index[num_axes]}, "
            "which is not observed: start from finite values, for example another run's "
            "`last_state.hand_over()`."
        )


def _check_names(handed: dict[str, Tensor], sites: Collection[str]) -> None:
    unknown = sorted(set(handed) - set(sites))
    if unknown:
        raise ValueError(
            f"init_params has unknown sites {unknown}; expected some of {sorted(sites)}, for "
            "example another run's `last_state.hand_over()`."
        )


def _fit_particles(
    name: str, value: Tensor, shape: torch.Size, num_chains: int, num_particles: int | None
) -> Tensor:
    population = value if value.ndim > len(shape) + 1 else value.unsqueeze(1)
    if population.shape[2:] != shape or len(population) != num_chains:
        raise ValueError(
            f"init_params[{name!r}] must have shape {(num_chains, *shape)}, or "
            f"(chains, particles, ...); it has {tuple(value.shape)}."
        )
    if num_particles is None:
        return population[:, 0]
    return population[:, torch.arange(num_particles) % population.shape[1]]
