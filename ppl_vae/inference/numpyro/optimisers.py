"""What turns a gradient into a step of `fit`: Adam, the host's own optimiser, or a preset's Adam.

`fit` hands on the gradient of the mean loss per row of a mini-batch.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from ppl_vae.presets import Preset
from ppl_vae.schedules import Schedule

__all__ = ["build_optimizer", "preset_optimizer"]


def preset_optimizer(
    preset: Preset, learning_rate: float | Schedule
) -> optax.GradientTransformation:
    """Return Adam as one of the sources of `ppl_vae.presets` has it; see `Preset`.

    Args:
        preset: such as `PRESETS["yburda"]`.
        learning_rate: step size, or a schedule such as `preset.stages(steps_per_epoch)`.

    Example:
        >>> from jax import random
        >>> from ppl_vae.datasets import digits
        >>> from ppl_vae.numpyro import VAE, fit
        >>> from ppl_vae.presets import PRESETS
        >>> x, preset = digits(binary=True).x_train, PRESETS["nbip"]
        >>> stages = preset.stages(len(x) // preset.batch_size)
        >>> optimizer = preset_optimizer(preset, stages)
        >>> options = {"batch_size": preset.batch_size, "shuffle": preset.shuffle}
        >>> fit(random.key(0), VAE((64,), 4), x, optimizer=optimizer, num_steps=5,
        ...     **options).losses.shape
        (5,)
    """

    def init(params: Any) -> _Moments:
        filled = lambda value: jax.tree.map(lambda p: jnp.full_like(p, value), params)  # noqa: E731
        return _Moments(jnp.zeros((), int), filled(0.0), filled(preset.second_moment))

    def update(gradient: Any, old: _Moments, params: Any = None) -> tuple[Any, _Moments]:
        del params
        rate = learning_rate(old.step) if isinstance(learning_rate, Schedule) else learning_rate
        g = jax.tree.map(lambda g: preset.gradient_scale * g, gradient)
        m = jax.tree.map(lambda m, g: preset.b1 * m + (1 - preset.b1) * g, old.m, g)
        v = jax.tree.map(lambda v, g: preset.b2 * v + (1 - preset.b2) * g**2, old.v, g)
        new = _Moments(old.step + 1, m, v)
        used = old if preset.late else new
        at = new.step
        return jax.tree.map(lambda m, v: -rate * _direction(preset, m, v, at), *used[1:]), new

    return optax.GradientTransformation(init, update)


class _Moments(NamedTuple):
    step: Array
    m: Any
    v: Any


def _direction(preset: Preset, m: Array, v: Array, step: Array) -> Array:
    """The step for a learning rate of one."""
    root = jnp.sqrt(1 - preset.b2**step)
    eps = preset.eps / root if preset.eps_hat else preset.eps
    return m / (1 - preset.b1**step) / (jnp.sqrt(v) / root + eps)


def build_optimizer(
    optimizer: optax.GradientTransformation | None,
    learning_rate: float | Schedule | None,
    clip_norm: float | None,
    batch_size: int,
) -> optax.GradientTransformation:
    """Return what the host's SVI takes, whose loss is a sum over the rows of a mini-batch.

    Raises:
        TypeError: if the optimiser is not one of optax.
    """
    if optimizer is None:
        optimizer = optax.adam(1e-3 if learning_rate is None else learning_rate)
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            "optimizer must be an optax.GradientTransformation such as optax.adam(1e-3), "
            f"got {type(optimizer).__name__}."
        )
    clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
    return optax.chain(optax.scale(1 / batch_size), clip, optimizer)
