"""Pooled importance resampling: LAIR's final draws, from the proposals of all iterations.

Simkus and Gutmann (2023), section 4.2.  The weights of every iteration have the same target
p(x_o, z), so that proposals of different iterations can be pooled: the draws follow
p(x_m, z | x_o) as the number of pooled proposals grows, at any number of particles.

Shapes: C chains, T iterations, P = K + R proposals, S draws, B rows.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from ppl_vae.counts import check_at_least
from ppl_vae.importance import transformed
from ppl_vae.inference.numpyro.lair import LAIRKernel
from ppl_vae.inference.numpyro.program import Latents, Program
from ppl_vae.inference.numpyro.random_keys import check_key
from ppl_vae.inference.numpyro.resampling import multinomial
from ppl_vae.inference.numpyro.rows import take_rows
from ppl_vae.inference.numpyro.streaming_lair import Reservoir, StreamingLAIRKernel
from ppl_vae.inference_data import make_inference_data

__all__ = ["impute_each", "pool"]


def pool(
    key: Array,
    mcmc: Any,
    num_samples: int = 1_000,
    *,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
    coords: Any = None,
) -> Any:
    """Resample a finished LAIR run from all of its proposals, chain by chain.

    Args:
        key: random key.
        mcmc: the run of a `LAIRKernel` or `StreamingLAIRKernel`.
        num_samples: draws S per chain and row; fewer than T (K + R), or they repeat each other.
        transform: of the pooled log-weights of each chain and row before resampling, as numpy
            array (chain, row, proposal), such as `ppl_vae.importance.pareto_smooth`.
        coords: labels as in `to_inference_data`.

    Returns:
        The same container as `to_inference_data`; `sample_stats` has `lp`, and `khat` of the pooled
        weights (chain, row); of a `StreamingLAIRKernel` that of the weights which the
        host kept, NaN below 25 of them.

    Raises:
        TypeError: if the run's kernel is not a `LAIRKernel`.
        ValueError: if `num_samples` is below 1 or above the slots of a `StreamingLAIRKernel`, or
            nothing was drawn because nothing is missing.

    Example:
        >>> from jax import random
        >>> from ppl_vae.numpyro import MCMC, LAIRKernel, VAE, fit, pool
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> data = digits(binary=True)
        >>> fitted = fit(random.key(0), VAE((64,), 4), data.x_train, num_steps=20)
        >>> mcmc = MCMC(LAIRKernel(fitted.model, fitted.guide), num_warmup=5, num_samples=10)
        >>> mcmc.run(random.key(1), with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64)))
        >>> pool(random.key(2), mcmc, 20)["posterior"]["z"].shape
        (1, 20, 3, 4)
    """
    kernel = getattr(mcmc, "sampler", mcmc)
    if not isinstance(kernel, LAIRKernel):
        raise TypeError(f"pool expects the run of a LAIRKernel, got {type(kernel).__name__}.")
    check_key(key)
    check_at_least(1, num_samples=num_samples)
    if mcmc.last_state is None:
        raise ValueError("There are no draws yet: call `run` first.")
    info = mcmc.get_extra_fields(group_by_chain=True)["info"]
    if not info:
        raise ValueError("Nothing is missing, so there are no proposals to resample.")
    program = kernel.bind(mcmc._args, mcmc._kwargs)

    num_iterations = info.log_weight.shape[1]
    key_ancestor, key_x = random.split(key)
    if isinstance(kernel, StreamingLAIRKernel):
        _refuse_transform(transform)
        num_iterations = int(np.max(mcmc.last_state.num_steps))
        z = _from_slots(mcmc.last_state.chain.reservoir, num_samples)
    else:
        keys = random.split(key_ancestor, len(info.log_weight))
        log_weight = info.log_weight.reshape(len(keys), -1, info.log_weight.shape[-1])
        if transform is not None:
            by_row = np.moveaxis(np.asarray(log_weight, float), -1, 1)
            smooth = transformed(transform, by_row, "(chain, row, proposal)")
            log_weight = jnp.asarray(np.moveaxis(smooth, 1, -1), log_weight.dtype)
        resample = partial(_resample, num_samples=num_samples)
        z = jax.lax.map(resample, (keys, info.proposals, log_weight))
    keys = random.split(key_x, len(info.log_weight))
    draws = jax.lax.map(lambda of_chain: impute_each(of_chain[0], program, of_chain[1]), (keys, z))
    x, z, lp = jax.tree.map(np.asarray, draws)
    run = kernel.collect(mcmc)
    pooled = replace(
        run,
        completed=x,
        latents=z,
        stats={"lp": lp, "khat": run.stats["khat"]},
        attrs={**run.attrs, "pooled_from": num_iterations * info.log_weight.shape[2]},
    )
    return make_inference_data(pooled, coords=coords)


def _resample(of_chain: tuple[Array, Latents, Array], num_samples: int) -> Latents:
    """Latents (S, B, ...) of one chain from its proposals (T, P, B, ...), weights (T P, B)."""
    key, proposals, log_weight = of_chain
    ancestor = multinomial(key, log_weight, num_samples)
    stacked = {name: value.reshape(-1, *value.shape[2:]) for name, value in proposals.items()}
    return take_rows(stacked, ancestor)


def _refuse_transform(transform: Any) -> None:
    if transform is not None:
        raise ValueError(
            "A StreamingLAIRKernel has resampled while it ran: transform needs the stored "
            "weights of a LAIRKernel."
        )


def _from_slots(reservoir: Reservoir, num_samples: int) -> Latents:
    """Latents of the first slots; a single chain's gets the axis of chains."""
    z, score = reservoir
    if score.ndim == 2:
        z, score = jax.tree.map(lambda a: a[None], (z, score))
    if num_samples > score.shape[1]:
        raise ValueError(
            f"num_samples must be at most the kernel's num_slots={score.shape[1]}, got "
            f"{num_samples}."
        )
    return {name: value[:, :num_samples] for name, value in z.items()}


def impute_each(key: Array, program: Program, z: Any, batch_size: int = 32) -> Any:
    """Complete the rows at every draw of z, (S, B, ...), a few draws at a time."""

    def impute(key_and_z: Any) -> Any:
        key, z = key_and_z
        z = dict(z)
        x = z.pop(program.site, None)  # drawn with z, and weighed with it
        log_prior, log_others, likelihood = program.decode(z)
        lp = log_prior + log_others + program.log_observed(likelihood)
        return program.impute(key, likelihood) if x is None else x, z, lp

    num_samples = len(jax.tree.leaves(z)[0])
    return jax.lax.map(impute, (random.split(key, num_samples), z), batch_size=batch_size)
