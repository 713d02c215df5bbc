"""Pooled importance resampling: LAIR's final draws, from the proposals of all iterations.

Simkus and Gutmann (2023), section 4.2.  The weights of every iteration have the same target
p(x_o, z), so that proposals of different iterations can be pooled: the draws follow
p(x_m, z | x_o) as the number of pooled proposals grows, at any number of particles.

Shapes: C chains, T iterations, P = K + R proposals, S draws, B rows.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl_vae.counts import check_at_least
from ppl_vae.importance import transformed
from ppl_vae.inference.pyro.kernel_state import KernelState, LastDraws
from ppl_vae.inference.pyro.lair import LAIRKernel
from ppl_vae.inference.pyro.mcmc import as_numpy, info_of
from ppl_vae.inference.pyro.program import Latents, Program
from ppl_vae.inference.pyro.resampling import multinomial
from ppl_vae.inference.pyro.rows import map_tensors, take_rows
from ppl_vae.inference.pyro.streaming_lair import Reservoir, StreamingLAIRKernel
from ppl_vae.inference_data import make_inference_data

__all__ = ["impute_each", "pool"]

DRAWS_AT_ONCE = 32  # whatever the decoder gets at a time: what is imputed must not depend on it


@torch.no_grad()
def pool(
    mcmc: Any,
    num_samples: int = 1_000,
    *,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
    coords: Any = None,
) -> Any:
    """Resample a finished LAIR run from all of its proposals, chain by chain.

    Args:
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
        ValueError: if `num_samples` is below 1 or above the slots of a `StreamingLAIRKernel`, its
            slots were not kept, or nothing was drawn because nothing is missing.

    Example:
        >>> import pyro
        >>> from ppl_vae.pyro import MCMC, LAIRKernel, VAE, fit, pool
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.masks import half, with_nan
        >>> pyro.set_rng_seed(0)
        >>> data = digits(binary=True)
        >>> fitted = fit(VAE((64,), 4), data.x_train, num_steps=20)
        >>> mcmc = MCMC(LAIRKernel(fitted.model, fitted.guide), num_warmup=5, num_samples=10)
        >>> mcmc.run(with_nan(data.x_test[:3], half((3, 8, 8)).reshape(3, 64)))
        >>> pool(mcmc, 20)["posterior"]["z"].shape
        (1, 20, 3, 4)
    """
    kernel = getattr(mcmc, "kernel", mcmc)
    if not isinstance(kernel, LAIRKernel):
        raise TypeError(f"pool expects the run of a LAIRKernel, got {type(kernel).__name__}.")
    check_at_least(1, num_samples=num_samples)
    if getattr(mcmc, "_samples", None) is None:
        raise ValueError("There are no draws yet: call `run` first.")
    info = info_of(mcmc)
    if not info:
        raise ValueError("Nothing is missing, so there are no proposals to resample.")
    program = kernel.bind(mcmc._args, mcmc._kwargs)

    num_iterations = info.log_weight.shape[1]
    if isinstance(kernel, StreamingLAIRKernel):
        _refuse_transform(transform)
        last_state = _last_state(mcmc)
        num_iterations = last_state.num_steps
        z = _from_slots(last_state.chain.reservoir, num_samples)
    else:
        log_weight = info.log_weight.flatten(1, 2)
        if transform is not None:
            by_row = np.moveaxis(as_numpy(log_weight).astype(float), -1, 1)
            smooth = transformed(transform, by_row, "(chain, row, proposal)")
            log_weight = torch.as_tensor(np.moveaxis(smooth, 1, -1)).to(log_weight)
        ancestor = multinomial(log_weight, num_samples)
        proposals = {name: value.flatten(1, 2) for name, value in info.proposals.items()}
        z = take_rows(proposals, ancestor)
    x, lp = impute_each(program, z)

    run = kernel.collect(mcmc)
    pooled = replace(
        run,
        completed=as_numpy(x),
        latents={name: as_numpy(value) for name, value in z.items() if name != program.site},
        stats={"lp": as_numpy(lp), "khat": run.stats["khat"]},
        attrs={**run.attrs, "pooled_from": num_iterations * info.log_weight.shape[2]},
    )
    return make_inference_data(pooled, coords=coords)


def _refuse_transform(transform: Any) -> None:
    if transform is not None:
        raise ValueError(
            "A StreamingLAIRKernel has resampled while it ran: transform needs the stored "
            "weights of a LAIRKernel."
        )


def _last_state(mcmc: Any) -> KernelState:
    state: KernelState | None = getattr(mcmc, "last_state", None)
    if state is None or isinstance(state.chain, LastDraws):
        raise ValueError(
            "The slots of a StreamingLAIRKernel lie in the last state of the run, which Pyro's own "
            "loop does not keep: use `ppl_vae.pyro.MCMC` with chain_method='vectorized'."
        )
    return state


def _from_slots(reservoir: Reservoir, num_samples: int) -> Latents:
    """Latents of the first slots, (C, S, B, ...)."""
    num_slots = reservoir.score.shape[1]
    if num_samples > num_slots:
        raise ValueError(
            f"num_samples must be at most the kernel's num_slots={num_slots}, got {num_samples}."
        )
    return {name: value[:, :num_samples] for name, value in reservoir.z.items()}


def impute_each(
    program: Program, z: Latents, batch_size: int = DRAWS_AT_ONCE
) -> tuple[Tensor, Tensor]:
    """Complete the rows at every draw of z, (C, S, B, ...), decoding a few draws at a time."""
    groups = zip(*(value.split(DRAWS_AT_ONCE, dim=1) for value in z.values()), strict=True)
    parts = [_impute(program, dict(zip(z, group, strict=True)), batch_size) for group in groups]
    x, lp = zip(*parts, strict=True)
    return torch.cat(x, 1), torch.cat(lp, 1)


def _impute(program: Program, z: Latents, batch_size: int) -> tuple[Tensor, Tensor]:
    x = z.pop(program.site, None)  # drawn with z, and weighed with it
    chunks = zip(*(value.split(batch_size, dim=1) for value in z.values()), strict=True)
    decoded = [program.decode(dict(zip(z, chunk, strict=True))) for chunk in chunks]
    log_prior, log_others, likelihood = decoded[0]
    if len(decoded) > 1:
        lead = next(iter(z.values())).shape[:2] + log_prior.shape[2:]
        log_prior, log_others, likelihood = map_tensors(
            lambda *each: torch.cat(each, 1), *decoded, lead=lead
        )
    x = program.impute(likelihood) if x is None else x
    return x, log_prior + log_others + program.log_observed(likelihood)
