"""What a program is made of: plain numbers and names, checked once for both twins.

The same record is the header of a weight file, so it holds nothing of a backend.
"""

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.incomplete_data import refuse_outside

__all__ = [
    "LIKELIHOODS",
    "NORMAL_SCALE_FLOOR",
    "Record",
    "architecture_of",
    "check_shape",
    "parse_data",
    "positive_integers",
    "program_of",
]

LIKELIHOODS = ("bernoulli", "normal", "categorical")

NORMAL_SCALE_FLOOR = 1e-2
"""Smallest scale of the normal likelihood, in units of the data.

A learned scale needs one: on a feature that is constant in the data (the border pixels of a
picture) the density grows without bound as the scale shrinks, so that training has no optimum.
"""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What every program of the library has: the shape of a row and its likelihood.

    Arguments:
        event_shape: shape of one row of data.
        likelihood: `"bernoulli"`, `"normal"` or `"categorical"`.
        num_categories: number of classes, for `"categorical"` only.
        scale_floor: smallest scale, for `"normal"` only.
    """

    event_shape: tuple[int, ...]
    likelihood: str
    num_categories: int | None = None
    scale_floor: float | None = None

    @classmethod
    def fields_of(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields in the header of a weight file, or raise a `ValueError`."""
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            raise ValueError(
                f"An architecture has the fields {sorted(names)}, got {sorted(values)}; "
                "was the file written by another version of ppl_vae?"
            )
        return {name: _as_tuples(value) for name, value in values.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the record as values that JSON can hold."""
        return {name: _as_lists(value) for name, value in asdict(self).items()}

    @property
    def likelihood_argument(self) -> str | tuple[str, float]:
        """The likelihood as `VAE(likelihood=...)` takes it."""
        option = self.num_categories if self.likelihood == "categorical" else self.scale_floor
        return self.likelihood if option is None else (self.likelihood, option)

    @property
    def parameter_shape(self) -> tuple[int, ...]:
        """Shape of what the decoder returns for one row."""
        classes = () if self.num_categories is None else (self.num_categories,)
        return self.event_shape + classes

    def require_same(self, header: Mapping[str, Any], source: str) -> None:
        """Raise a `ValueError` naming each field in which the header of `source` differs."""
        mine, theirs = self.to_dict(), header
        kinds = {"program": program_of(mine)}, {"program": program_of(theirs)}
        if kinds[0] != kinds[1]:  # their fields are not each other's
            mine, theirs = kinds
        else:
            self.fields_of(theirs)
        lines = [
            f"{name}: expected {mine[name]}, came {theirs.get(name)}"
            for name in mine
            if mine[name] != theirs.get(name)
        ]
        if lines:
            raise ValueError(
                f"{source} holds weights of another architecture ({'; '.join(lines)}). "
                f"Build the {kinds[1]['program']} as the file says, or open it without `vae=`."
            )

    def check_values(self, x: NDArray[Any]) -> None:
        """Raise a `ValueError` unless x holds what the likelihood can give; NaN is missing."""
        if self.likelihood != "normal":
            num_codes = self.num_categories or 2
            inside = np.isnan(x) | ((x >= 0) & (x < num_codes) & (x == np.floor(x)))
            refuse_outside(x, ~inside, "x")

    def check_output_bias(self, bias: Any) -> NDArray[np.float64] | None:
        """Return the first bias of the decoder, (*parameter_shape), or raise a `ValueError`."""
        if bias is None:
            return None
        bias = np.asarray(bias, float)
        remedy = "give one value an entry, such as ppl_vae.pixels.pixel_logits(x_train)."
        check_shape("output_bias", bias.shape, self.parameter_shape, remedy)
        if not np.isfinite(bias).all():
            raise ValueError(
                "output_bias must be finite, got NaN or infinity; clip the means before the logit, "
                "as ppl_vae.pixels.pixel_logits does."
            )
        return bias


def architecture_of(header: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """Return the architecture in the header of a weight file, or raise a `ValueError`."""
    architecture = header.get("architecture")
    if not isinstance(architecture, Mapping):
        raise ValueError(
            f"{source} names no architecture, so it is not a file of `fitted.save`; give one, or "
            "take the arrays alone, `ppl_vae.weights.read_weights(path)`."
        )
    return architecture


def program_of(header: Mapping[str, Any]) -> str:
    """Return the name of the program whose record this is; that of a `VAE` does not say so."""
    return header.get("program", "VAE")


def check_shape(what: str, came: Sequence[int], expected: Sequence[int], remedy: str) -> None:
    """Raise a `ValueError` unless the shape that came is the expected one."""
    if tuple(came) != tuple(expected):
        raise ValueError(
            f"{what} must have shape {tuple(expected)}, got shape {tuple(came)}; {remedy}"
        )


def parse_data(event_shape: Sequence[int], likelihood: str | tuple[str, float]) -> dict[str, Any]:
    """Return the fields of a `Record`, or raise a `TypeError` or `ValueError`."""
    event_shape = positive_integers("event_shape", event_shape)
    if not event_shape:
        raise ValueError("event_shape must have at least one axis, got (); try (1,).")
    return {"event_shape": event_shape, **_parse_likelihood(likelihood)}


def positive_integers(name: str, values: Sequence[int]) -> tuple[int, ...]:
    """Return whole numbers above 0, or raise a `TypeError` or `ValueError`."""
    try:
        numbers = tuple(operator.index(value) for value in values)
    except TypeError:
        raise TypeError(
            f"{name} must hold whole numbers, such as {_EXAMPLES[name]}, got {values!r}."
        ) from None
    if any(number < 1 for number in numbers):
        raise ValueError(f"{name} must be at least 1, such as {_EXAMPLES[name]}, got {values!r}.")
    return numbers


_EXAMPLES = {
    "event_shape": "event_shape=(64,) or event_shape=(1, 28, 28)",
    "latent_dim": "latent_dim=8",
    "hidden": "hidden=(200, 200)",
    "latent_dims": "latent_dims=(100, 50)",
    "a block of hidden": "hidden=((200, 200), (100, 100))",
    "num_classes": "num_classes=10",
}


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value


def _as_lists(value: Any) -> Any:
    return list(map(_as_lists, value)) if isinstance(value, tuple) else value


def _parse_likelihood(likelihood: str | tuple[str, float]) -> dict[str, Any]:
    is_tuple = isinstance(likelihood, tuple | list) and len(likelihood) > 0
    values: Any = likelihood if is_tuple else (likelihood,)
    name, *options = values
    if name not in LIKELIHOODS:
        raise ValueError(f"likelihood must be one of {', '.join(LIKELIHOODS)}, got {name!r}.")
    if len(options) > (name != "bernoulli"):
        raise ValueError(f"likelihood {name!r} does not take the options {options}.")
    if name == "categorical":
        return {"likelihood": name, "num_categories": _num_categories(options)}
    if name == "normal":
        return {"likelihood": name, "scale_floor": _scale_floor(options)}
    return {"likelihood": name}


def _num_categories(options: Sequence[float]) -> int:
    if not options or not isinstance(options[0], Integral) or options[0] < 2:
        raise ValueError(
            "The categorical likelihood needs its number of classes, at least 2, such as "
            f'likelihood=("categorical", 5); got {list(options)}.'
        )
    return int(options[0])


def _scale_floor(options: Sequence[float]) -> float:
    (floor,) = options or (NORMAL_SCALE_FLOOR,)
    if not isinstance(floor, Real) or not 0 < floor < math.inf:
        raise ValueError(
            "The normal likelihood needs a smallest scale above 0, such as "
            f'likelihood=("normal", {NORMAL_SCALE_FLOOR}); got {floor!r}.'
        )
    return float(floor)
