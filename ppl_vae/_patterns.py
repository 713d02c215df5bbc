"""Mechanisms that hide whole patterns of an image; `missingness.py` gathers them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import betabinom

from ppl_vae.incomplete_data import Mask, check_data
from ppl_vae.masks import CORNERS, SIDES, half, quadrant

__all__ = ["Patterns", "Squares", "class_squares", "halves", "quadrants"]


@dataclass(frozen=True)
class Patterns:
    """A row loses one of J fixed patterns, with probabilities that may depend on its class.

    Args:
        patterns: masks, shape (J, *event), bool, True = observed, all different.
        probability: shape (classes, J), each row summing to 1; one class where nothing depends
            on it.

    Raises:
        ValueError: patterns that are equal, or probabilities of another shape or sum.
    """

    patterns: Mask
    probability: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "patterns", np.asarray(self.patterns, bool))
        object.__setattr__(self, "probability", np.asarray(self.probability, float))
        flat = self.patterns.reshape(len(self.patterns), -1)
        if len(np.unique(flat, axis=0)) < len(flat):
            raise ValueError("The patterns must all be different.")
        shape = self.probability.shape
        if len(shape) != 2 or shape[1] != len(flat):
            raise ValueError(f"probability must have shape (classes, {len(flat)}), got {shape}.")
        if (self.probability < 0).any() or not np.allclose(self.probability.sum(1), 1):
            raise ValueError("The probabilities of each class must be >= 0 and sum to 1.")

    def check_classes(self, given: bool) -> None:
        """Raise a `ValueError` where class probabilities are needed and there are none."""
        if not given and len(self.probability) > 1:
            raise ValueError(
                f"The patterns depend on {len(self.probability)} classes: give the rows' class "
                "probabilities."
            )

    def sample(
        self, rng: np.random.Generator, x: ArrayLike, of_class: ArrayLike | None = None
    ) -> Mask:
        """Return a mask of rows x, shape (B, *event); `of_class` and errors as in `log_prob`."""
        self._check_shape(np.shape(x))
        cumulated = self._of_rows(np.shape(x)[0], of_class).cumsum(1)
        chosen = (rng.random((len(cumulated), 1)) > cumulated[:, :-1]).sum(1)
        return self.patterns[chosen]

    def log_prob(
        self, mask: ArrayLike, x: ArrayLike, of_class: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """Return log p(M | x), shape (B,); -inf where the mask is none of the patterns.

        Args:
            mask: bool, shape (B, *event), True = observed.
            x: complete rows, shape (B, *event); they matter through their classes alone.
            of_class: class probabilities p(c | x) of the rows, shape (B, classes), each row >= 0
                and summing to 1.

        Raises:
            TypeError: the mask is not bool.
            ValueError: the mask has another shape than x or the patterns, or `of_class` is missing,
                of another shape, or not of probabilities.
        """
        _, mask = check_data(x, mask)
        self._check_shape(mask.shape)
        same = (mask[:, None] == self.patterns).reshape(len(mask), len(self.patterns), -1).all(-1)
        with np.errstate(divide="ignore"):
            return np.log((self._of_rows(len(np.asarray(x)), of_class) * same).sum(1))

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if not shape or shape[1:] != self.patterns.shape[1:]:
            raise ValueError(
                f"The mask and x must have rows of shape {self.patterns.shape[1:]}, as the "
                f"patterns have, got {shape}."
            )

    def _of_rows(self, num_rows: int, of_class: ArrayLike | None) -> NDArray[np.float64]:
        self.check_classes(of_class is not None)
        of_class = np.ones((num_rows, 1)) if of_class is None else np.asarray(of_class, float)
        if of_class.shape != (num_rows, len(self.probability)):
            raise ValueError(
                f"of_class must have shape {(num_rows, len(self.probability))} (rows, classes), "
                f"got {of_class.shape}."
            )
        wrong = ~((of_class >= 0).all(1) & np.isclose(of_class.sum(1), 1))
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(
                f"Each row of of_class must be >= 0 and sum to 1, got {of_class[row]} at row "
                f"{row}: divide by the sums, or apply a softmax to logits."
            )
        return of_class @ self.probability


def halves(event_shape: Sequence[int]) -> Patterns:
    """Lose the top, bottom, left or right half of an image, each equally often (MCAR)."""
    return _equally_often([half((1, *event_shape), side)[0] for side in SIDES])


def quadrants(event_shape: Sequence[int], num_missing: int = 1) -> Patterns:
    """Lose `num_missing` (1 to 3) quadrants of an image, every choice equally often (MCAR).

    Raises:
        ValueError: `num_missing` is out of range.
    """
    if num_missing not in (1, 2, 3):
        raise ValueError(f"num_missing must be 1, 2 or 3 of four quadrants, got {num_missing}.")
    choices = combinations(CORNERS, num_missing)
    return _equally_often([quadrant((1, *event_shape), corners)[0] for corners in choices])


def class_squares(
    event_shape: Sequence[int], num_classes: int, size: int, *, spread: float = 5.0
) -> Patterns:
    """Lose one square of a grid of them, where it lies depending on the row's class (MNAR).

    The square's number is Beta-binomial, its mean moving over the grid with the class.

    Args:
        event_shape: (..., height, width), multiples of `size`.
        num_classes: at least 2.
        size: edge of a square, in pixels.
        spread: of the Beta-binomial, its two parameters' sum; larger is narrower.

    Raises:
        ValueError: a size that does not divide the image, or fewer than two classes.
    """
    *_, height, width = event_shape
    if size < 1 or height % size or width % size:
        raise ValueError(f"size must divide height and width {(height, width)}, got {size}.")
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}.")
    number: NDArray[np.int64] = (
        np.arange(height)[:, None] // size * (width // size) + np.arange(width) // size
    )
    squares = np.arange(number.max() + 1)
    patterns = np.not_equal(number, squares[:, None, None])
    axes = (len(squares), *[1] * (len(event_shape) - 2), height, width)
    patterns = np.broadcast_to(patterns.reshape(axes), (len(squares), *event_shape))
    mean = (np.arange(num_classes) + 0.5)[:, None] / num_classes
    law = betabinom(len(squares) - 1, spread * mean, spread * (1 - mean))
    return Patterns(patterns, law.pmf(squares))


@dataclass(frozen=True)
class Squares:
    """Lose a random number of squares of an image, mostly near its centre (MCAR).

    They may overlap, so that a mask has no density in closed form.

    Args:
        size: edge of a square, in pixels.
        counts: how many squares are lost: probabilities of 1, 2, ...
        spread: of the Beta-binomial place of a square along either axis, its two equal parameters;
            1 is uniform, larger is nearer to the centre.
    """

    size: int
    counts: Sequence[float] = (1.0,)
    spread: float = 2.0

    def sample(self, rng: np.random.Generator, x: ArrayLike) -> Mask:
        """Return a mask of images x, shape (B, ..., height, width).

        Raises:
            ValueError: x has no height and width, or the square is larger than the image.
        """
        shape = np.shape(x)
        if len(shape) < 3:
            raise ValueError(f"x must be images, shape (B, ..., height, width), got {shape}.")
        *_, height, width = shape
        if not 1 <= self.size <= min(height, width):
            raise ValueError(f"size must lie in [1, {min(height, width)}], got {self.size}.")
        count = np.asarray(1 + rng.choice(len(self.counts), shape[0], p=self.counts))
        lost = np.zeros((shape[0], height, width), bool)
        for number in range(len(self.counts)):
            tall, wide = (self._inside(rng, shape[0], length) for length in (height, width))
            lost |= tall[:, :, None] & wide[:, None] & (count > number)[:, None, None]
        between = [1] * (len(shape) - 3)
        return np.broadcast_to(~lost.reshape(shape[0], *between, height, width), shape).copy()

    def _inside(self, rng: np.random.Generator, num_rows: int, length: int) -> Mask:
        place = betabinom(length - self.size, self.spread, self.spread)
        offset = np.arange(length) - place.rvs(size=(num_rows, 1), random_state=rng)
        return np.logical_and(offset >= 0, offset < self.size)


def _equally_often(patterns: Sequence[Mask]) -> Patterns:
    return Patterns(np.stack(patterns), np.full((1, len(patterns)), 1 / len(patterns)))
