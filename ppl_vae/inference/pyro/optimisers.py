"""What turns a gradient into a step of `fit`: Adam, the host's own optimiser, or a preset's Adam.

`fit` hands on the gradient of the mean loss per row of a mini-batch.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.optim import PyroOptim
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch import Tensor

from ppl_vae.presets import Preset
from ppl_vae.schedules import Schedule

__all__ = ["Descent", "build_optimizer", "preset_optimizer"]


def preset_optimizer(preset: Preset, learning_rate: float | Schedule) -> PyroOptim:
    """Return Adam as one of the sources of `ppl_vae.presets` has it; see `Preset`.

    Args:
        preset: such as `PRESETS["yburda"]`.
        learning_rate: step size, or a schedule such as `preset.stages(steps_per_epoch)`.

    Example:
        >>> import pyro
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.pyro import VAE, fit
        >>> from ppl_vae.presets import PRESETS
        >>> pyro.set_rng_seed(0)
        >>> x, preset = digits(binary=True).x_train, PRESETS["nbip"]
        >>> stages = preset.stages(len(x) // preset.batch_size)
        >>> optimizer = preset_optimizer(preset, stages)
        >>> options = {"batch_size": preset.batch_size, "shuffle": preset.shuffle}
        >>> fit(VAE((64,), 4), x, optimizer=optimizer, num_steps=5, **options).losses.shape
        (5,)
    """
    return PyroOptim(_PresetAdam, {"lr": learning_rate, "preset": preset})


class _PresetAdam(torch.optim.Optimizer):
    def __init__(self, params: Any, lr: float, preset: Preset) -> None:
        super().__init__(params, {"lr": lr})
        self._preset = preset

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Make one step with the gradients that the parameters hold."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in (p for p in group["params"] if p.grad is not None):
                parameter -= group["lr"] * self._direction(parameter, parameter.grad)
        return loss

    def _direction(self, parameter: Tensor, gradient: Any) -> Tensor:
        """The step for a learning rate of one."""
        preset, state = self._preset, self.state[parameter]
        if not state:
            state["step"] = 0
            state["m"] = torch.zeros_like(parameter)
            state["v"] = torch.full_like(parameter, preset.second_moment)
        g = preset.gradient_scale * gradient
        m = preset.b1 * state["m"] + (1 - preset.b1) * g
        v = preset.b2 * state["v"] + (1 - preset.b2) * g**2
        used_m, used_v = (state["m"], state["v"]) if preset.late else (m, v)
        state.update(step=state["step"] + 1, m=m, v=v)
        root = (1 - preset.b2 ** state["step"]) ** 0.5
        eps = preset.eps / root if preset.eps_hat else preset.eps
        return used_m / (1 - preset.b1 ** state["step"]) / (used_v.sqrt() / root + eps)


class Descent:
    """An optimiser of torch, whose learning rates may be schedules.

    Args:
        optimiser: one of torch.
        rates: the learning rate of each of its parameter groups.
        clip_norm: largest norm of the gradient, or None.
    """

    def __init__(
        self, optimiser: torch.optim.Optimizer, rates: list[Any], clip_norm: float | None
    ) -> None:
        self.optimiser = optimiser
        self.rates = rates
        self.clip_norm = clip_norm
        self.parameters = [p for group in optimiser.param_groups for p in group["params"]]

    def step(self, step: int) -> None:
        """Descend the gradient that the parameters hold; `step` counts from 0."""
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            if isinstance(rate, Schedule):
                group["lr"] = rate(step)
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimiser.step()


def build_optimizer(
    optimizer: PyroOptim | None,
    learning_rate: float | Schedule | None,
    clip_norm: float | None,
    parameters: Mapping[str, Tensor],
) -> Descent:
    """Return what descends the loss of unconstrained parameters by name.

    Raises:
        TypeError: if the optimiser is not one of `pyro.optim`, or wraps a scheduler.
    """
    if optimizer is None:
        rate = 1e-3 if learning_rate is None else learning_rate
        optimizer = PyroOptim(torch.optim.Adam, {"lr": rate, "fused": True})
    if not isinstance(optimizer, PyroOptim) or isinstance(optimizer, PyroLRScheduler):
        raise TypeError(
            'optimizer must be one of pyro.optim such as pyro.optim.Adam({"lr": 1e-3}), whose lr '
            f"may be a schedule of ppl_vae.schedules, got {type(optimizer).__name__}."
        )
    if optimizer.pt_clip_args:
        raise ValueError(f"Give clip_norm to fit, not {optimizer.pt_clip_args} to the optimizer.")
    make: Any = optimizer.pt_optim_constructor
    options = optimizer.pt_optim_args
    if callable(options):
        groups = [{"params": [p], **options(name)} for name, p in parameters.items()]
        rates = [group.get("lr") for group in groups]
        return Descent(make([_at_start(group) for group in groups]), rates, clip_norm)
    rates = [options.get("lr")]
    return Descent(make(list(parameters.values()), **_at_start(options)), rates, clip_norm)


def _at_start(options: Mapping[str, Any]) -> dict[str, Any]:
    """With learning rates that torch takes: numbers."""
    return {n: value(0) if isinstance(value, Schedule) else value for n, value in options.items()}
