"""What a program with several stochastic layers is made of, checked once for both twins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.models.architecture import Architecture
from ppl_vae.models.record import Record, check_shape, parse_data, positive_integers

__all__ = ["PRIORS", "LayeredArchitecture", "check_labels"]

PRIORS = ("learned", "standard")

FIRST_HIDDEN, FURTHER_HIDDEN = (200, 200), (100, 100)


@dataclass(frozen=True, kw_only=True)
class LayeredArchitecture(Record):
    """Sizes, likelihood and prior of a chain x - z1 - ... - zL, with or without labels.

    Arguments:
        program: name of the program's class.
        event_shape: shape of one row of data.
        likelihood: `"bernoulli"`, `"normal"` or `"categorical"`.
        num_categories: number of classes of an entry, for `"categorical"` only.
        scale_floor: smallest scale, for `"normal"` only.
        latent_dims: sizes of z1, ..., zL.
        hidden: for each layer the widths of its block, from data to latents.
        num_classes: number of labels, or None for a program without.
        prior: `"standard"`, or `"learned"` for p(zL | y).

    Example:
        >>> record = LayeredArchitecture.parse("HierarchicalVAE", (64,), (8, 4), None, "bernoulli")
        >>> record.blocks["q_z2"]
        (8, (100, 100), 4)
    """

    program: str
    latent_dims: tuple[int, ...]
    hidden: tuple[tuple[int, ...], ...]
    num_classes: int | None = None
    prior: str = "standard"

    @classmethod
    def parse(
        cls,
        program: str,
        event_shape: Sequence[int],
        latent_dims: Sequence[int],
        hidden: Sequence[Sequence[int]] | None,
        likelihood: str | tuple[str, float],
        num_classes: int | None = None,
        prior: str = "standard",
    ) -> "LayeredArchitecture":
        """Check the arguments of a program and return them as a record.

        Raises:
            TypeError: an argument of a wrong type.
            ValueError: a value out of range, an unknown likelihood or prior, or not one block of
                hidden layers for each stochastic layer.
        """
        latent_dims = positive_integers("latent_dims", latent_dims)
        if not latent_dims:
            raise ValueError("latent_dims must name at least one layer, got (); try (50,).")
        if prior not in PRIORS:
            raise ValueError(f"prior must be one of {', '.join(PRIORS)}, got {prior!r}.")
        if num_classes is not None:
            (num_classes,) = positive_integers("num_classes", (num_classes,))
        return cls(
            program=program,
            **parse_data(event_shape, likelihood),
            latent_dims=latent_dims,
            hidden=_parse_blocks(hidden, len(latent_dims)),
            num_classes=num_classes,
            prior=prior,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LayeredArchitecture":
        """Read back what `to_dict` gave, or the header of a weight file."""
        record = cls(**cls.fields_of(values))
        return cls.parse(
            record.program,
            record.event_shape,
            record.latent_dims,
            record.hidden,
            record.likelihood_argument,
            record.num_classes,
            record.prior,
        )

    @property
    def blocks(self) -> dict[str, tuple[int, tuple[int, ...], int]]:
        """Inputs, hidden widths and outputs of each normal density's net: q_z1, ..., p_z1, ..."""
        sizes = (prod(self.parameter_shape), *self.latent_dims)
        inputs = (sizes[0] + (self.num_classes or 0), *sizes[1:])
        layers = range(1, len(sizes))
        guide = {f"q_z{i}": (inputs[i - 1], self.hidden[i - 1], sizes[i]) for i in layers}
        model = {f"p_z{i}": (sizes[i + 1], self.hidden[i][::-1], sizes[i]) for i in layers[:-1]}
        if self.num_classes is not None and self.prior == "learned":
            top = layers[-1]
            model[f"p_z{top}"] = (self.num_classes, self.hidden[-1][::-1], sizes[top])
        return guide | model

    @property
    def decoder(self) -> Architecture:
        """The net of p(x | z1), or p(x | z1, y), as a decoder from one layer of latents."""
        latent_dim = self.latent_dims[0] + (self.num_classes or 0)
        likelihood = self.likelihood_argument
        return Architecture.parse(self.event_shape, latent_dim, self.hidden[0], likelihood)


def _parse_blocks(
    hidden: Sequence[Sequence[int]] | None, num_layers: int
) -> tuple[tuple[int, ...], ...]:
    if hidden is None:
        return (FIRST_HIDDEN, *[FURTHER_HIDDEN] * (num_layers - 1))
    example = ", ".join(map(str, (FIRST_HIDDEN, *[FURTHER_HIDDEN] * (num_layers - 1))))
    try:
        blocks = [tuple(block) for block in hidden]
    except TypeError:
        raise TypeError(
            "hidden must hold the widths of one block of layers for each stochastic layer, such "
            f"as hidden=({example},), got {hidden!r}."
        ) from None
    if len(blocks) != num_layers:
        raise ValueError(
            f"hidden must hold one block of layers for each of the {num_layers} stochastic layers "
            f"in latent_dims, data side first, such as hidden=({example},); got {len(blocks)} "
            f"blocks, {hidden!r}."
        )
    return tuple(positive_integers("a block of hidden", block) for block in blocks)


def check_labels(labels: NDArray[Any], num_rows: int, num_classes: int) -> None:
    """Raise unless there is one class 0, ..., num_classes - 1 a row.

    Raises:
        TypeError: labels that are not whole numbers.
        ValueError: another shape than (num_rows,), or a class out of range; names the row.

    Example:
        >>> check_labels(np.array([0, 3]), 2, num_classes=10)
    """
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(
            f"labels must be whole numbers 0, ..., {num_classes - 1}, got {labels.dtype}; "
            "convert them to integers."
        )
    remedy = "give one class a row, not one-hot vectors."
    check_shape("labels", labels.shape, (num_rows,), remedy)
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise ValueError(
            f"labels must be 0, ..., {num_classes - 1}; {len(wrong)} are not, the first is "
            f"{labels[wrong[0]]} at row {wrong[0]}. Count classes from 0, or build the program "
            "with more num_classes."
        )
