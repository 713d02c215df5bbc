"""Training a program: `fit`, a mini-batch loop with torch's Adam."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor
from tqdm import tqdm

from ppl_vae.checkpoints import read_checkpoint, write_checkpoint
from ppl_vae.inference.pyro.mcmc import as_numpy, random_state, set_random_state
from ppl_vae.inference.pyro.named_objectives import find_objective
from ppl_vae.inference.pyro.objectives import Objective
from ppl_vae.inference.pyro.program import split_data
from ppl_vae.inference.pyro.rows import rows_of
from ppl_vae.masks import check_data
from ppl_vae.schedules import Schedule, at_step
from ppl_vae.weights import write_weights

__all__ = ["Fitted", "fit"]


@dataclass(frozen=True)
class Fitted:
    """A trained program.

    `model` and `guide` have the weights inside: they go into kernels, `Predictive` and SVI as they
    are. `losses` holds minus the bound per row and step, in nats, shape (num_steps,).
    """

    program: Any
    losses: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def model(self) -> Callable[..., Any]:
        """The model with the trained weights."""
        return _pair(self.program)[0]

    @property
    def guide(self) -> Callable[..., Any]:
        """The guide with the trained weights."""
        return _pair(self.program)[1]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and architecture to a safetensors file that both twins open.

        Raises:
            TypeError: if the program is a plain (model, guide) pair, whose architecture is unknown.
        """
        if not hasattr(self.program, "to_weights"):
            raise TypeError(
                "Only a VAE of this library knows its architecture. Save the weights of a "
                "(model, guide) pair yourself, for example with `pyro.get_param_store().save`."
            )
        header = {"architecture": self.program.architecture()}
        write_weights(path, self.program.to_weights(), header)


def fit(
    program: Any,
    x: Any,
    *args: Any,
    mask: Any = None,
    objective: str | Objective = "elbo",
    num_steps: int = 5_000,
    batch_size: int = 128,
    learning_rate: float | Schedule = 1e-3,
    clip_norm: float | None = None,
    site: str = "x",
    checkpoint: str | os.PathLike[str] | None = None,
    progress_bar: bool = True,
) -> Fitted:
    """Train a program by stochastic gradient ascent on a bound of log p(x_o).

    The program's own weights are trained, in place. The random draws follow `pyro.set_rng_seed`.

    Args:
        program: a `VAE`, a pair (model, guide), or a `Fitted` to train on from its weights.
        x: data, shape (rows, *event), NaN where missing; on the device of the weights.
        *args: further arguments of model and guide; tensors with one entry a row are cut into the
            same mini-batches.
        mask: bool, the shape of x, True = observed; by default what is not NaN.
        objective: "elbo", "analytic-elbo", "stl", "iwae", "normalised-iwae", "iwae-stl", "dreg",
            "gdreg", "rws", "rws-dreg", "jvi", "ciwae", "renyi" or "forward-kl", or an objective of
            `ppl_vae.pyro`, whose schedules get the step from here.
        num_steps: gradient steps (Adam).
        batch_size: rows per step; rows are reshuffled every epoch, its last incomplete batch is
            left out.
        learning_rate: Adam's step size, or a schedule such as `schedules.Cosine`.
        clip_norm: largest norm of the gradient of the mean loss per row; None for any.
        site: name of the data site.
        checkpoint: file to go on from if it exists, and to write after every epoch; with the same
            data and options the result is that of a run that was not interrupted.
        progress_bar: show steps and loss.

    Raises:
        ValueError: bad data or options, or a checkpoint of another run.
        FloatingPointError: the loss stopped being finite; names the step.

    Example:
        >>> import pyro
        >>> from ppl_vae.pyro import VAE, fit
        >>> from ppl_vae.datasets import digits
        >>> pyro.set_rng_seed(0)
        >>> fitted = fit(VAE((64,), 4), digits(binary=True).x_train, num_steps=20)
        >>> fitted.losses.shape
        (20,)
    """
    _check_options(num_steps, batch_size, learning_rate, clip_norm)
    check_data(as_numpy(x), as_numpy(mask), site=site)
    data = (*split_data(torch.as_tensor(x), mask), args)
    program = program.program if isinstance(program, Fitted) else program
    model, guide = _pair(program)
    objective = find_objective(objective, site)
    num_rows = len(data[0])
    batch_size = min(batch_size, num_rows)
    first = rows_of(data, torch.arange(batch_size), num_rows)
    optimiser = torch.optim.Adam(_parameters(at_step(objective, 0), model, guide, first))

    steps_per_epoch = num_rows // batch_size
    seed = int(torch.randint(2**62, ()))
    losses, start = np.zeros(num_steps, np.float32), 0
    if checkpoint is not None and Path(checkpoint).exists():
        start, seed = _resume(checkpoint, optimiser, losses)
    with tqdm(total=num_steps, initial=start, disable=not progress_bar) as bar:
        for epoch in range(start // steps_per_epoch, -(-num_steps // steps_per_epoch)):
            first_step = epoch * steps_per_epoch
            begin, end = max(start, first_step), min(num_steps, first_step + steps_per_epoch)
            batches = _epoch(seed + epoch, num_rows, batch_size)[begin - first_step :]
            for step, rows in zip(range(begin, end), batches, strict=False):
                x_batch, mask_batch, args_batch = rows_of(data, rows, num_rows)
                loss = at_step(objective, step).differentiable_loss(
                    model, guide, x_batch, *args_batch, mask=mask_batch
                )
                losses[step] = _descend(
                    optimiser, loss / batch_size, step, learning_rate, clip_norm
                )
            bar.update(end - begin)
            bar.set_postfix(loss=f"{losses[begin:end].mean():.3f}")
            if checkpoint is not None:
                _save(checkpoint, optimiser, losses, end, seed)
    return Fitted(program, losses)


def _parameters(objective: Any, model: Any, guide: Any, first: Any) -> list[Tensor]:
    """Run the objective once and return the unconstrained parameters that it used."""
    x, mask, args = first
    with pyro.poutine.trace(param_only=True) as recorded, torch.random.fork_rng():
        objective.differentiable_loss(model, guide, x, *args, mask=mask)
    sites = recorded.trace.nodes.values()
    found = {id(p): p for p in (_unconstrained(site) for site in sites)}
    if not found:
        raise ValueError(
            "The program has no parameters to train: register nets with `pyro.module` and other "
            "parameters with `pyro.param`."
        )
    return list(found.values())


def _unconstrained(site: Any) -> Tensor:
    return site["value"].unconstrained()


def _descend(
    optimiser: torch.optim.Optimizer,
    loss: Tensor,
    step: int,
    learning_rate: float | Schedule,
    clip_norm: float | None,
) -> float:
    value = loss.item()
    if not np.isfinite(value):
        raise FloatingPointError(
            f"The loss is {value} at step {step}. Lower learning_rate, scale the data, or give the "
            "likelihood a larger scale floor."
        )
    optimiser.zero_grad()
    loss.backward()
    (group,) = optimiser.param_groups
    group["lr"] = learning_rate(step) if isinstance(learning_rate, Schedule) else learning_rate
    if clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(group["params"], clip_norm)
    optimiser.step()
    return value


def _epoch(seed: int, num_rows: int, batch_size: int) -> Tensor:
    """Return the rows of an epoch's batches, shuffled, (steps, batch_size)."""
    order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed))
    return order[: num_rows // batch_size * batch_size].reshape(-1, batch_size)


def _pair(program: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    if isinstance(program, tuple) and len(program) == 2:
        return program
    if hasattr(program, "model") and hasattr(program, "guide"):
        return program.model, program.guide
    raise TypeError(
        f"Expected a VAE or a pair (model, guide) to fit, got {type(program).__name__}."
    )


def _check_options(
    num_steps: int, batch_size: int, learning_rate: float | Schedule, clip_norm: float | None
) -> None:
    for name, value in (("num_steps", num_steps), ("batch_size", batch_size)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}.")
    is_schedule = isinstance(learning_rate, Schedule)
    if not (is_schedule or (isinstance(learning_rate, Real) and float(learning_rate) > 0)):
        raise ValueError(
            f"learning_rate must be positive, got {learning_rate!r}; one that changes is a "
            "schedule of ppl_vae.schedules."
        )
    if not (clip_norm is None or clip_norm > 0):
        raise ValueError(f"clip_norm must be positive or None, got {clip_norm!r}.")


# --- checkpoints ----------------------------------------------------------------------------


def _arrays(optimiser: torch.optim.Optimizer) -> dict[str, np.ndarray]:
    arrays = {}
    for i, parameter in enumerate(optimiser.param_groups[0]["params"]):
        arrays[f"parameter_{i}"] = as_numpy(parameter)
        for name, value in optimiser.state[parameter].items():
            arrays[f"{name}_{i}"] = as_numpy(value)
    return arrays


def _device(optimiser: torch.optim.Optimizer) -> torch.device:
    return optimiser.param_groups[0]["params"][0].device


def _save(
    path: Any, optimiser: torch.optim.Optimizer, losses: np.ndarray, step: int, seed: int
) -> None:
    run = {"step": np.asarray(step), "seed": np.asarray(seed), "losses": losses[:step]}
    write_checkpoint(
        path, {**_arrays(optimiser), **run, "rng": random_state(_device(optimiser)).numpy()}
    )


def _resume(path: Any, optimiser: torch.optim.Optimizer, losses: np.ndarray) -> tuple[int, int]:
    run = {"step": np.asarray(0), "seed": np.asarray(0)}
    arrays = read_checkpoint(path, {**_arrays(optimiser), **run})
    for i, parameter in enumerate(optimiser.param_groups[0]["params"]):
        parameter.data.copy_(torch.as_tensor(arrays[f"parameter_{i}"]))
        moments = {n: torch.as_tensor(arrays[f"{n}_{i}"]) for n in ("exp_avg", "exp_avg_sq")}
        optimiser.state[parameter] = {
            "step": torch.as_tensor(arrays[f"step_{i}"]),
            **{n: moment.to(parameter.device) for n, moment in moments.items()},
        }
    set_random_state(torch.as_tensor(arrays["rng"]), _device(optimiser))
    step = min(int(arrays["step"]), len(losses))
    losses[:step] = arrays["losses"][:step]
    return step, int(arrays["seed"])
