"""Where a chain starts: at the model's own prior predictive, or where another kernel stopped."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from ppl_vae.inference.numpyro.program import Latents, Program
from ppl_vae.inference.numpyro.rows import select_rows

__all__ = ["HandOver", "check_handed", "refuse_undefined", "starting_values", "within_prior"]


@partial(jax.tree_util.register_dataclass, data_fields=["values"], meta_fields=["origin"])
@dataclass(frozen=True)
class HandOver:
    """Where another run stopped, and what kernel came there in how many iterations."""

    values: dict[str, Array]  # completed rows and latents by site
    origin: str

    def __getitem__(self, site: str) -> Array:
        return self.values[site]


def starting_values(
    key: Array, program: Program, num_particles: int | None, handed: dict[str, Array] | None
) -> tuple[Array, Latents | None]:
    """Return completed rows, and latents where they are handed over.

    Args:
        key: random key.
        program: the program and its data.
        num_particles: K of a population, whose axis then comes first, or None for single rows.
        handed: another run's `last_state.z` of one chain, or None.  A single chain's values make a
            population of copies; a population's first particle makes a single chain.

    Raises:
        ValueError: names of no site, or values of another shape than the data's.
    """

    def prior_predictive(key: Array) -> tuple[Array, Latents]:
        key_z, key_x = random.split(key)
        z = program.propose_from_prior(key_z)
        return program.impute(key_x, program.decode(z)[-1]), z

    key_one, key_each = random.split(key)
    x, z = prior_predictive(key_one)
    shapes = {program.site: x.shape, **{name: value.shape for name, value in z.items()}}
    if num_particles is not None:
        x, _ = jax.vmap(prior_predictive)(random.split(key_each, num_particles))
    if not handed:
        return x, None
    _check_names(handed, shapes)
    fitted = {
        name: _fit_particles(name, jnp.asarray(value), shapes[name], num_particles)
        for name, value in handed.items()
    }
    if program.site in fitted:
        x = jnp.where(program.mask, program.x_obs, fitted.pop(program.site).astype(x.dtype))
    return x, fitted if z.keys() <= fitted.keys() else None


def within_prior(key: Array, program: Program, z: Latents) -> Latents:
    """Return `z`, and draws from the prior in rows where the prior has no density at `z`.

    A chain must not start there: p(x | z) need not exist, and x_m could not be drawn.
    """
    log_prior, *_ = program.decode(z)
    return select_rows(log_prior == -jnp.inf, program.propose_from_prior(key), z)


def check_handed(handed: Any) -> None:
    """Raise a `TypeError` unless `init_params` are arrays by site."""
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
            raise TypeError(f"init_params[{name!r}] must be an array, got {type(value).__name__}.")


def refuse_undefined(
    program: Program, handed: dict[str, Array] | None, *, has_chains: bool
) -> None:
    """Raise a `ValueError` where a missing entry or a latent is to start at NaN or infinity.

    Values under a caller's transformation, such as chains in parallel, are not known yet.
    """
    for name, value in (handed or {}).items():
        if name == program.site or isinstance(value, jax.core.Tracer):
            continue
        bad = np.argwhere(~np.isfinite(np.asarray(value)))
        if len(bad):
            index = tuple(bad[0].tolist())
            raise ValueError(
                f"init_params[{name!r}] is {np.asarray(value)[index]} at {index}: start from "
                "finite values, for example another run's `last_state.hand_over()`."
            )
    given = (handed or {}).get(program.site)
    if given is None or any(isinstance(a, jax.core.Tracer) for a in (given, program.mask)):
        return
    start, mask = np.asarray(given), np.asarray(program.mask)
    if start.shape[-mask.ndim :] != mask.shape or start.ndim < mask.ndim + has_chains:
        return  # refused by its shape
    bad = np.argwhere(~np.isfinite(start) & ~mask)
    if len(bad):
        index = tuple(bad[0].tolist())
        chain = f"chain {index[0]}, " if has_chains else ""
        raise ValueError(
            f"init_params[{program.site!r}] is {start[index]} at {chain}row "
            f"{index[start.ndim - mask.ndim]}, which is not observed: start from finite "
            "values, for example another run's `last_state.hand_over()`."
        )


def _check_names(handed: dict[str, Array], shapes: dict[str, tuple[int, ...]]) -> None:
    unknown = sorted(set(handed) - set(shapes))
    if unknown:
        raise ValueError(
            f"init_params has unknown sites {unknown}; expected some of {sorted(shapes)}, for "
            "example another run's `last_state.hand_over()`."
        )


def _fit_particles(
    name: str, value: Array, shape: tuple[int, ...], num_particles: int | None
) -> Array:
    population = value if value.ndim > len(shape) else value[None]
    if population.shape[1:] != shape:
        raise ValueError(
            f"init_params[{name!r}] must have shape {shape} in each chain, or (particles, ...) "
            f"before it; it has {value.shape}."
        )
    if num_particles is None:
        return population[0]
    return population[jnp.arange(num_particles) % len(population)]
