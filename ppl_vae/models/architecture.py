"""What a VAE is made of: plain numbers and names, checked once for both twins.

The same record is the header of a weight file, so it holds nothing of a backend.
"""

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any

__all__ = ["LIKELIHOODS", "NORMAL_SCALE_FLOOR", "Architecture", "check_shape"]

LIKELIHOODS = ("bernoulli", "normal", "categorical")

NORMAL_SCALE_FLOOR = 1e-2
"""Smallest scale of the normal likelihood, in units of the data.

A learned scale needs one: on a feature that is constant in the data (the border pixels of a
picture) the density grows without bound as the scale shrinks, so that training has no optimum.
"""

MLP_HIDDEN = (200, 200)
CONV_HIDDEN = (32, 64)


@dataclass(frozen=True)
class Architecture:
    """Shapes, likelihood and kind of nets of a VAE; equal records have interchangeable weights.

    Arguments:
        event_shape: shape of one row of data.
        latent_dim: number of latent dimensions.
        hidden: widths of the hidden layers, or channels for images; empty when both nets are own.
        likelihood: `"bernoulli"`, `"normal"` or `"categorical"`.
        num_categories: number of classes, for `"categorical"` only.
        scale_floor: smallest scale, for `"normal"` only.
        own_encoder: whether the encoder is the user's module.
        own_decoder: whether the decoder is the user's module.

    Example:
        >>> Architecture.parse((64,), 8, None, ("categorical", 5)).parameter_shape
        (64, 5)
    """

    event_shape: tuple[int, ...]
    latent_dim: int
    hidden: tuple[int, ...]
    likelihood: str
    num_categories: int | None = None
    scale_floor: float | None = None
    own_encoder: bool = False
    own_decoder: bool = False

    @classmethod
    def parse(
        cls,
        event_shape: Sequence[int],
        latent_dim: int,
        hidden: Sequence[int] | None,
        likelihood: str | tuple[str, float],
        own_encoder: bool = False,
        own_decoder: bool = False,
    ) -> "Architecture":
        """Check the arguments of a `VAE` and return them as a record.

        Raises:
            TypeError: an argument of a wrong type.
            ValueError: a value out of range, or an unknown likelihood.
        """
        event_shape = _positive_integers("event_shape", event_shape)
        if not event_shape:
            raise ValueError("event_shape must have at least one axis, got (); try (1,).")
        if hidden is None:
            hidden = CONV_HIDDEN if len(event_shape) == 3 else MLP_HIDDEN
        hidden = _positive_integers("hidden", hidden)
        return cls(
            event_shape,
            _positive_integers("latent_dim", (latent_dim,))[0],
            () if own_encoder and own_decoder else hidden,
            **_parse_likelihood(likelihood),
            own_encoder=own_encoder,
            own_decoder=own_decoder,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Architecture":
        """Read back what `to_dict` gave, or the header of a weight file."""
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            raise ValueError(
                f"An architecture has the fields {sorted(names)}, got {sorted(values)}; "
                "was the file written by another version of ppl_vae?"
            )
        as_tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        record = cls(**as_tuples)  # type: ignore[arg-type]
        return cls.parse(
            record.event_shape,
            record.latent_dim,
            record.hidden,
            record.likelihood_argument,
            record.own_encoder,
            record.own_decoder,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the record as values that JSON can hold."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

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

    @property
    def image_channels(self) -> int:
        """Channels that the convolutions see: one per class for the categorical likelihood."""
        return self.event_shape[0] * (self.num_categories or 1)

    @property
    def image_sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width before and after each halving, which rounds up."""
        _, height, width = self.event_shape
        factors = [2**level for level in range(len(self.hidden) + 1)]
        return tuple((-(-height // factor), -(-width // factor)) for factor in factors)

    def require_own(self, encoder: bool, decoder: bool) -> None:
        """Raise a `ValueError` where own nets are recorded and none was given."""
        own = [("encoder", self.own_encoder, encoder), ("decoder", self.own_decoder, decoder)]
        missing = [name for name, recorded, given in own if recorded and not given]
        if missing:
            raise ValueError(
                f"These weights belong to your own {' and '.join(missing)}, which no file holds; "
                "build the same VAE again and give it: load(path, vae=vae)."
            )

    def require_same(self, header: Mapping[str, Any], source: str) -> None:
        """Raise a `ValueError` naming each field in which the header of `source` differs."""
        mine, theirs = self.to_dict(), Architecture.from_dict(header).to_dict()
        lines = [f"{k}: expected {mine[k]}, came {theirs[k]}" for k in mine if mine[k] != theirs[k]]
        if lines:
            raise ValueError(
                f"{source} holds weights of another architecture ({'; '.join(lines)}). "
                "Build the VAE as the file says, or open it without `vae=`."
            )


def check_shape(what: str, came: Sequence[int], expected: Sequence[int], remedy: str) -> None:
    """Raise a `ValueError` unless the shape that came is the expected one."""
    if tuple(came) != tuple(expected):
        raise ValueError(
            f"{what} must have shape {tuple(expected)}, got shape {tuple(came)}; {remedy}"
        )


def _positive_integers(name: str, values: Sequence[int]) -> tuple[int, ...]:
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
}


def _parse_likelihood(likelihood: str | tuple[str, float]) -> dict[str, Any]:
    name, *options = (likelihood,) if isinstance(likelihood, str) else likelihood
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
