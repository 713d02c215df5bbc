"""Weights that change while a program is trained, as objects: `ELBO(kl_weight=Linear(0, 1, 1000))`.

A schedule is a function of the step, counted from 0.  `fit` knows the step, also after it went on
from a checkpoint; in the host's own SVI it is the keyword `step`.  A schedule of your own is a
subclass of `Schedule` with `__call__`; the step may be an int or a traced array.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from numbers import Real
from typing import Any, TypeVar

__all__ = [
    "Constant", "Cosine", "Cyclic", "Linear", "Schedule", "Stages", "at_step", "check_weight",
    "values_at", "with_values",
]  # fmt: skip

Settings = TypeVar("Settings")


class Schedule:
    """A number for every step of a training."""

    def __call__(self, step: Any) -> Any:
        """Return the value at `step`, counted from 0."""
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Schedule):
    """The same value at every step.

    Args:
        value: that value.

    Example:
        >>> Constant(0.5)(7)
        0.5
    """

    value: float

    def __call__(self, step: Any) -> Any:
        del step
        return self.value


@dataclass(frozen=True)
class Linear(Schedule):
    """From `start` to `stop` in a straight line, then constant.

        start + (stop - start) min(max((step - begin) / num_steps, 0), 1)

    With 0 and 1 it is the warm-up of Bowman et al. (2016), https://arxiv.org/abs/1511.06349.

    Args:
        start: value up to the step `begin`.
        stop: value from the step `begin + num_steps` on.
        num_steps: steps between the two, at least 1.
        begin: the step that the line begins at.

    Raises:
        ValueError: if `num_steps` is below 1.

    Example:
        >>> [Linear(0.0, 1.0, 4)(step) for step in (0, 1, 4, 9)]
        [0.0, 0.25, 1.0, 1.0]
    """

    start: float
    stop: float
    num_steps: int
    begin: int = 0

    def __post_init__(self) -> None:
        _require_positive("num_steps", self.num_steps)

    def __call__(self, step: Any) -> Any:
        share = _clip((step - self.begin) / self.num_steps)
        return self.start + (self.stop - self.start) * share


@dataclass(frozen=True)
class Cosine(Schedule):
    """From `start` to `stop` along half a cosine, then constant; for learning rates.

        stop + (start - stop) (1 + cos(pi min(step / num_steps, 1))) / 2

    Loshchilov and Hutter (2017), SGDR, eq. 5, https://arxiv.org/abs/1608.03983.

    Args:
        start: value at step 0.
        stop: value from the step `num_steps` on.
        num_steps: steps between the two, at least 1.

    Raises:
        ValueError: if `num_steps` is below 1.

    Example:
        >>> [round(Cosine(1.0, 0.0, 4)(step), 3) for step in (0, 1, 2, 4, 9)]
        [1.0, 0.854, 0.5, 0.0, 0.0]
    """

    start: float
    stop: float
    num_steps: int

    def __post_init__(self) -> None:
        _require_positive("num_steps", self.num_steps)

    def __call__(self, step: Any) -> Any:
        share = (1 + _cos(math.pi * _clip(step / self.num_steps))) / 2
        return self.stop + (self.start - self.stop) * share


@dataclass(frozen=True)
class Cyclic(Schedule):
    """From `start` to `stop` again and again: up in a straight line, then constant.

        start + (stop - start) min(t / ramp, 1),  t = (step mod period) / period

    Fu et al. (2019), Cyclical annealing schedule, eq. 6 and 7, https://arxiv.org/abs/1903.10145.

    Args:
        start: value at the first step of each cycle.
        stop: value once the line has been climbed.
        period: steps of a cycle, at least 1.
        ramp: share of a cycle that climbs, above 0 and at most 1.

    Raises:
        ValueError: if `period` is below 1, or `ramp` outside (0, 1].

    Example:
        >>> [Cyclic(0.0, 1.0, period=8)(step) for step in (0, 2, 4, 7, 8)]
        [0.0, 0.5, 1.0, 1.0, 0.0]
    """

    start: float
    stop: float
    period: int
    ramp: float = 0.5

    def __post_init__(self) -> None:
        _require_positive("period", self.period)
        if not 0 < self.ramp <= 1:
            raise ValueError(f"ramp must be above 0 and at most 1, got {self.ramp!r}.")

    def __call__(self, step: Any) -> Any:
        share = _clip(step % self.period / (self.period * self.ramp))
        return self.start + (self.stop - self.start) * share


@dataclass(frozen=True)
class Stages(Schedule):
    """A value for each stage, constant within it; the last one stays.

        values[i]  where  lengths[0] + ... + lengths[i - 1] <= step < lengths[0] + ... + lengths[i]

    A run that is shorter than all stages together keeps the values of those that it reaches: to
    train for the first two, `num_steps=stages.ends[1]`. The stages of Burda et al. (2016) are
    `ppl_vae.presets.PRESETS["paper"].stages(steps_per_epoch)`.

    Args:
        values: one for each stage; arrays become tuples.
        lengths: steps of each stage, at least 1.

    Raises:
        ValueError: if there is no stage, a length below 1, or not one length for each value.

    Example:
        >>> stages = Stages((1.0, 0.1), (2, 3))
        >>> [stages(step) for step in (0, 1, 2, 4, 9)]
        [1.0, 1.0, 0.1, 0.1, 0.1]
        >>> stages.ends
        (2, 5)
    """

    values: Sequence[float]
    lengths: Sequence[int]

    def __post_init__(self) -> None:
        for name in ("values", "lengths"):
            given: Any = getattr(self, name)
            if hasattr(given, "tolist"):
                object.__setattr__(self, name, tuple(given.tolist()))
        if not self.values or len(self.values) != len(self.lengths):
            raise ValueError(
                f"Stages need one length for each value, got {len(self.values)} values and "
                f"{len(self.lengths)} lengths."
            )
        for length in self.lengths:
            _require_positive("the length of a stage", length)

    @property
    def ends(self) -> tuple[int, ...]:
        """Steps that are done when each stage is."""
        return tuple(accumulate(self.lengths))

    def __call__(self, step: Any) -> Any:
        begins = (0, *self.ends[:-1])
        # Of all summands one is not zero, so that the sum is a stage's value to the last bit.
        before_last = zip(self.values, begins, self.ends[:-1], strict=False)
        stages = (value * ((step >= begin) & (step < end)) for value, begin, end in before_last)
        return sum(stages, self.values[-1] * (step >= begins[-1]))


def at_step(settings: Settings, step: Any) -> Settings:
    """Return an object whose attributes that are schedules have their values at `step`.

    Args:
        settings: any object, such as an objective; it is not changed.
        step: counted from 0, or None if it is not known.

    Raises:
        ValueError: if there is a schedule and no step.

    Example:
        >>> from types import SimpleNamespace
        >>> at_step(SimpleNamespace(kl_weight=Linear(0.0, 1.0, 4), site="x"), 2)
        namespace(kl_weight=0.5, site='x')
    """
    return with_values(settings, values_at(settings, step))


def values_at(settings: Any, step: Any) -> dict[str, Any]:
    """Return the values at `step` of an object's attributes that are schedules, by name.

    Raises:
        ValueError: if there is a schedule and no step.
    """
    schedules = {n: value for n, value in vars(settings).items() if isinstance(value, Schedule)}
    if schedules and step is None:
        raise ValueError(
            f"A schedule needs to know the step, and none came for {schedules}. In the host's SVI "
            "give it by the keyword `step`, counted from 0: `svi.update(state, x, step=i)` in "
            "NumPyro, `svi.step(x, step=i)` in Pyro. `fit` counts by itself."
        )
    return {name: schedule(step) for name, schedule in schedules.items()}


def with_values(settings: Settings, values: dict[str, Any]) -> Settings:
    """Return a copy of an object with these attributes, or the object itself if there are none."""
    if not values:
        return settings
    changed = copy.copy(settings)
    vars(changed).update(values)
    return changed


def check_weight(name: str, weight: float | Schedule) -> float | Schedule:
    """Return the weight, a number of at least 0 or a schedule, or raise a `ValueError`."""
    if isinstance(weight, Schedule):
        return weight
    if not isinstance(weight, Real) or not 0 <= weight < float("inf"):
        raise ValueError(
            f"{name} must be a number of at least 0 or a schedule of ppl_vae.schedules, "
            f"got {weight!r}."
        )
    return weight


def _clip(share: Any) -> Any:
    """Between 0 and 1, of a plain number or of an array, for this file knows no framework."""
    if isinstance(share, int | float):
        return min(max(share, 0.0), 1.0)
    return share.clip(0.0, 1.0)


def _cos(angle: Any) -> Any:
    """The cosine of a plain number or of an array."""
    if isinstance(angle, int | float):
        return math.cos(angle)
    return angle.cos() if hasattr(angle, "cos") else angle.__array_namespace__().cos(angle)


def _require_positive(name: str, value: int) -> None:
    if not value >= 1:
        raise ValueError(f"{name} must be at least 1, got {value!r}.")
