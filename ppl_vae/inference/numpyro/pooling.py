"""Pooled importance resampling: LAIR's final draws, from the proposals of all iterations.

Simkus and Gutmann (2023), section 4.2.  The weights of every iteration have the same target
p(x_o, z), so that proposals of different iterations can be pooled: the draws follow
p(x_m, z | x_o) as the number of pooled proposals grows, at any number of particles.

Shapes: C chains, T iterations, P = K + R proposals, S draws, B rows.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from ppl_vae.inference.numpyro.lair import LAIRKernel
from ppl_vae.inference.numpyro.program import Program
from ppl_vae.inference.numpyro.resampling import multinomial
from ppl_vae.inference_data import make_inference_data

__all__ = ["pool"]


def pool(key: Array, mcmc: Any, num_samples: int = 1_000, *, coords: Any = None) -> Any:
    """Resample a finished LAIR run from all of its proposals, chain by chain.

    Args:
        key: random key.
        mcmc: the run of a `LAIRKernel`.
        num_samples: draws S per chain and row; fewer than T (K + R), or they repeat each other.
        coords: labels as in `to_inference_data`.

    Returns:
        The same container as `to_inference_data`; `sample_stats` has `lp`, and `khat` of the pooled
        weights (chain, row).

    Raises:
        TypeError: if the run's kernel is not a `LAIRKernel`.
        ValueError: if `num_samples` is below 1, or nothing was drawn because nothing is missing.

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
    kernel = mcmc.sampler
    if not isinstance(kernel, LAIRKernel):
        raise TypeError(f"pool expects the run of a LAIRKernel, got {type(kernel).__name__}.")
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
    info = mcmc.get_extra_fields(group_by_chain=True)["info"]
    if not info:
        raise ValueError("Nothing is missing, so there are no proposals to resample.")
    program = kernel.bind(mcmc._args, mcmc._kwargs)

    def of_chain(key: Array, proposals: Any, log_weight: Array) -> Any:
        key_ancestor, key_x = random.split(key)
        all_weights = log_weight.reshape(-1, log_weight.shape[-1])
        ancestor = multinomial(key_ancestor, all_weights, num_samples)
        rows = jnp.arange(ancestor.shape[1])
        z = {
            name: value.reshape(-1, *value.shape[2:])[ancestor, rows]
            for name, value in proposals.items()
        }
        return _impute_each(key_x, program, z)

    keys = random.split(key, len(info.log_weight))
    draws = jax.lax.map(lambda chain: of_chain(*chain), (keys, info.proposals, info.log_weight))
    x, z, lp = jax.tree.map(np.asarray, draws)
    run = kernel.collect(mcmc)
    pooled = replace(
        run,
        completed=x,
        latents=z,
        stats={"lp": lp, "khat": run.stats["khat"]},
        attrs={**run.attrs, "pooled_from": int(np.prod(info.log_weight.shape[1:3]))},
    )
    return make_inference_data(pooled, coords=coords)


def _impute_each(key: Array, program: Program, z: Any) -> Any:
    """Complete the rows at every draw of z, (S, B, ...)."""

    def impute(key_and_z: Any) -> Any:
        key, z = key_and_z
        log_prior, likelihood = program.decode(z)
        lp = log_prior + program.log_observed(likelihood)
        return program.impute(key, likelihood), z, lp

    num_samples = len(jax.tree.leaves(z)[0])
    return jax.lax.map(impute, (random.split(key, num_samples), z), batch_size=32)
