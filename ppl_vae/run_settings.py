"""What a training was told: checked once for both twins, and in words, for its checkpoint."""

import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from numbers import Real
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from ppl_vae.counts import check_at_least
from ppl_vae.schedules import Schedule

__all__ = ["TrainingOptions", "describe"]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The options of `fit`, with what they are by default; see there.

    Raises:
        ValueError: if they make no sense.
    """

    mask: Any = None
    objective: Any = "elbo"
    num_steps: int = 5_000
    batch_size: int = 128
    shuffle: bool = True
    transform: Any = None
    learning_rate: float | Schedule | None = None
    optimizer: Any = None
    clip_norm: float | None = None
    validation: Any = None
    validation_mask: Any = None
    site: str = "x"
    checkpoint: str | os.PathLike[str] | None = None
    progress_bar: bool = True

    def __post_init__(self) -> None:
        check_at_least(1, num_steps=self.num_steps, batch_size=self.batch_size)
        rate = self.learning_rate
        if rate is not None and self.optimizer is not None:
            raise ValueError(
                f"learning_rate={rate!r} is Adam's, and there is an optimizer of your own: "
                "give the learning rate to that one."
            )
        is_known = rate is None or isinstance(rate, Schedule)
        if not (is_known or (isinstance(rate, Real) and float(rate) > 0)):
            raise ValueError(
                f"learning_rate must be positive, got {rate!r}; one that changes is a "
                "schedule of ppl_vae.schedules."
            )
        norm = self.clip_norm
        if not (norm is None or (isinstance(norm, Real) and float(norm) > 0)):
            raise ValueError(f"clip_norm must be positive or None, got {norm!r}.")
        if self.validation_mask is not None and self.validation is None:
            raise ValueError("validation_mask is given, but there are no validation rows.")

    def words(
        self, program: Any, x: Any, args: tuple[Any, ...] = (), **more: Any
    ) -> dict[str, str]:
        """Return what a checkpoint must know of the run, or nothing if there is none.

        How long the run is may change, and so may what is shown.

        Args:
            program: what is trained; its weights are not part of the words.
            x: the data.
            args: further arguments of model and guide, such as labels.
            **more: other settings, as `describe` takes them.
        """
        if self.checkpoint is None:
            return {}
        names = (
            "objective", "batch_size", "shuffle", "transform", "learning_rate", "optimizer",
            "clip_norm", "site",
        )  # fmt: skip
        data = (x, self.mask, self.validation, self.validation_mask, *args)
        told = {**{name: getattr(self, name) for name in names}, **more}
        return {
            **{name: describe(value) for name, value in told.items()},
            "program": _program(getattr(program, "program", program)),
            "data": ", ".join(_fingerprints(data)),
        }


def describe(value: Any) -> str:
    """Return words that are the same for settings that do the same.

    Numbers and texts are told as they are, functions by name with what they hold on to (closures,
    defaults, constants), other objects by class and attributes; of arrays the shape and type,
    for they may be weights.

    Args:
        value: a setting, such as a number, a schedule, an objective or an optimiser.

    Example:
        >>> from ppl_vae.schedules import Linear
        >>> describe(Linear(0.0, 1.0, 100))
        'Linear(begin=0, num_steps=100, start=0.0, stop=1.0)'
        >>> describe(lambda x: x + 1) == describe(lambda x: x + 2)
        False
    """
    return _words(value, ())


def _program(program: Any) -> str:
    """Its architecture, or a pair's functions by name, with the numbers and texts in them."""
    if hasattr(program, "architecture"):
        return f"{type(program).__name__} {describe(program.architecture())}"
    pair = program if isinstance(program, tuple) else (program,)
    return ", ".join(map(_plain_words, pair))


def _plain_words(value: Any) -> str:
    """Describe a function without what it was given that training may change: nets, arrays."""
    if not isinstance(value, FunctionType):
        return getattr(value, "__qualname__", type(value).__qualname__)
    told = {
        name: _plain_words(part) if isinstance(part, FunctionType) else repr(part)
        for name, part in _held_by(value).items()
        if isinstance(part, bool | int | float | str | FunctionType) and part is not value
    }
    code = _words(tuple(_constants(value.__code__, value.__doc__)), ()).encode()
    parts = (f"{name}={told[name]}" for name in sorted(told))
    return f"{value.__qualname__}({', '.join((*parts, f'code {zlib.crc32(code):08x}'))})"


def _fingerprints(data: Any) -> Iterator[str]:
    """Shape, type and a checksum of each array."""
    if isinstance(data, tuple):
        for part in data:
            yield from _fingerprints(part)
    elif data is None:
        yield "none"
    else:
        array = np.ascontiguousarray(data.cpu() if hasattr(data, "cpu") else data)
        words = f"{array.dtype}{list(array.shape)} {zlib.crc32(array.tobytes()):08x}"
        yield describe(data) if array.dtype == object else words


def _words(value: Any, holders: tuple[int, ...]) -> str:
    """Describe a value that is held by the objects with the ids `holders`."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic):
        return repr(value)
    if id(value) in holders:
        return "..."
    for kinds, describe_kind in _KINDS:
        if isinstance(value, kinds):
            return describe_kind(value, (*holders, id(value)))
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _array(value)
    if hasattr(value, "__wrapped__"):  # such as a compiled function
        return _words(value.__wrapped__, (*holders, id(value)))
    return _call(type(value).__qualname__, getattr(value, "__dict__", {}), (*holders, id(value)))


def _array(value: Any) -> str:
    is_weight = getattr(value, "requires_grad", False)
    number = "" if value.shape or is_weight else f" {value.item()}"
    return f"{value.dtype}{list(value.shape)}{number}"


def _sequence(value: Any, holders: tuple[int, ...]) -> str:
    return f"[{', '.join(_words(part, holders) for part in value)}]"


def _set(value: frozenset[Any], holders: tuple[int, ...]) -> str:
    return f"{{{', '.join(sorted(_words(part, holders) for part in value))}}}"


def _mapping(value: Mapping[Any, Any], holders: tuple[int, ...]) -> str:
    return f"{{{', '.join(f'{k}: {_words(v, holders)}' for k, v in value.items())}}}"


def _named(value: Any, holders: tuple[int, ...]) -> str:
    del holders
    return getattr(value, "__qualname__", value.__name__)


def _method(value: MethodType, holders: tuple[int, ...]) -> str:
    return f"{_words(value.__self__, holders)}.{value.__name__}"


def _partial(value: partial, holders: tuple[int, ...]) -> str:
    return f"{_words(value.func, holders)}{_words((value.args, value.keywords), holders)}"


def _function(value: FunctionType, holders: tuple[int, ...]) -> str:
    held = _held_by(value)
    own: dict[str, Any] = {
        "code": list(_constants(value.__code__, value.__doc__)),
        "defaults": value.__defaults__,
        "keywords": value.__kwdefaults__,
    }
    told = {**held, **{name: part for name, part in own.items() if part}}
    return _call(value.__qualname__, told, holders)


def _held_by(fn: FunctionType) -> dict[str, Any]:
    """What a function's closure holds, by name."""
    return {
        name: cell.cell_contents
        for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True)
        if _is_filled(cell)
    }


def _constants(code: CodeType, doc: str | None) -> Iterator[Any]:
    """Names and constants of a function's code: what tells one lambda from another."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _constants(constant, None)
        elif constant is not None and constant != doc:
            yield constant


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # a name that has not been given a value yet
        return False


def _call(name: str, told: Mapping[str, Any], holders: tuple[int, ...]) -> str:
    parts = (f"{key}={_words(told[key], holders)}" for key in sorted(told))
    return f"{name}({', '.join(parts)})"


_KINDS: tuple[tuple[Any, Callable[[Any, tuple[int, ...]], str]], ...] = (
    ((list, tuple), _sequence),
    ((set, frozenset), _set),
    (dict, _mapping),
    ((type, ModuleType), _named),
    (MethodType, _method),
    (partial, _partial),
    (FunctionType, _function),
)
