"""How entries get lost: mechanisms to hide entries with, and their densities p(M | x).

A mechanism has `sample(rng, x)` and, where the density has a closed form, `log_prob(mask, x)`.
Data are missing completely at random (MCAR) when the mask ignores x, at random (MAR) when it
depends on what stays observed, and not at random (MNAR) when it depends on what gets lost (Rubin,
1976, https://doi.org/10.1093/biomet/63.3.581). The twins make a mechanism with a density into a
program for their MNAR kernels: `ppl_vae.numpyro.logistic_missingness`.

Shapes: B rows, *event, D entries a row.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, log_expit, logit

from ppl_vae._patterns import Patterns, Squares, class_squares, halves, quadrants
from ppl_vae.incomplete_data import Mask, check_data

__all__ = [
    "Logistic",
    "Patterns",
    "Squares",
    "class_squares",
    "halves",
    "mar_logistic",
    "mcar",
    "mnar_logistic",
    "mnar_self_logistic",
    "quadrants",
    "require_kind",
]


@dataclass(frozen=True)
class Logistic:
    """Entries are lost independently given x, entry d with probability sigmoid(x W + b)_d.

    Args:
        weights: W, shape (D, D); W[j, d] is how x_j acts on the loss of entry d.
        bias: b, shape (D,); -inf for an entry that is never lost, inf for one that always is.

    Raises:
        ValueError: weights and bias of shapes that do not fit each other.
    """

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", np.asarray(self.weights, float))
        object.__setattr__(self, "bias", np.asarray(self.bias, float))
        if self.bias.ndim != 1 or self.weights.shape != 2 * self.bias.shape:
            raise ValueError(
                "weights must have shape (D, D) and bias (D,) for rows of D features, got "
                f"{self.weights.shape} and {self.bias.shape}."
            )

    def probability(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return the probability that each entry is lost, shape (B, *event).

        Raises:
            ValueError: x is not complete, or has another number of features.
        """
        x = np.asarray(x, float)
        return expit(self._logits(x)).reshape(x.shape)

    def sample(self, rng: np.random.Generator, x: ArrayLike) -> Mask:
        """Return a mask of complete rows x, shape (B, *event), True where observed."""
        lost = self.probability(x)
        return rng.random(lost.shape) >= lost

    def log_prob(self, mask: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
        """Return log p(M | x), shape (B,), in nats.

        Args:
            mask: bool, the shape of x, True = observed.
            x: complete rows, shape (B, *event).

        Raises:
            TypeError: the mask is not bool.
            ValueError: as `probability`, or the mask has another shape than x.
        """
        x = np.asarray(x, float)
        logits = self._logits(x)
        observed = check_data(x, mask)[1].reshape(len(x), -1)
        return np.where(observed, log_expit(-logits), log_expit(logits)).sum(1)

    def _logits(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        flat = _flat(x)
        if flat.shape[1] != len(self.bias):
            raise ValueError(
                f"x must have {len(self.bias)} features a row, as the mechanism was made for, got "
                f"shape {x.shape}."
            )
        return flat @ self.weights + self.bias


def mcar(num_features: int, missing: float = 0.5) -> Logistic:
    """Lose each entry independently with one probability, whatever its value (MCAR).

    Args:
        num_features: D.
        missing: probability of loss, in [0, 1].

    Raises:
        ValueError: `missing` is out of range.

    Example:
        >>> mechanism, x = mcar(3, missing=0.2), np.zeros((1, 3))
        >>> float(np.exp(mechanism.log_prob([[True, True, False]], x))[0].round(3))
        0.128
    """
    _check_fraction(missing, closed=True)
    with np.errstate(divide="ignore"):
        bias = np.full(num_features, logit(missing))
    return Logistic(np.zeros((num_features, num_features)), bias)


def mar_logistic(
    rng: np.random.Generator, x: ArrayLike, missing: float = 0.5, share_inputs: float = 0.3
) -> Logistic:
    """Lose entries by a logistic model of features that are never lost themselves (MAR).

    Args:
        rng: draws the input features and normal weights.
        x: complete rows, standardised; on them a share `missing` of the other entries is lost on
            average.
        missing: in (0, 1).
        share_inputs: share of the features that are inputs; at least one is, and not all.

    Raises:
        ValueError: a share is out of range, or x has fewer than two features.

    Source: Muzellec et al. (2020), Missing data imputation using optimal transport, appendix.
    """
    flat, inputs = _rows_and_inputs(rng, x, missing, share_inputs)
    weights = np.where(inputs[:, None] & ~inputs, _normal_weights(rng, flat, inputs), 0.0)
    bias = np.where(inputs, -np.inf, _calibrated(flat @ weights, missing))
    return Logistic(weights, bias)


def mnar_logistic(
    rng: np.random.Generator, x: ArrayLike, missing: float = 0.5, share_inputs: float = 0.3
) -> Logistic:
    """Lose entries by a logistic model of features that get lost too, at random (MNAR).

    Arguments, errors and source as in `mar_logistic`; the input features are lost with probability
    `missing` whatever their values.
    """
    mechanism = mar_logistic(rng, x, missing, share_inputs)
    return Logistic(
        mechanism.weights, np.where(np.isneginf(mechanism.bias), logit(missing), mechanism.bias)
    )


def mnar_self_logistic(rng: np.random.Generator, x: ArrayLike, missing: float = 0.5) -> Logistic:
    """Lose each entry by a logistic model of its own value (MNAR, self-masking).

    Args:
        rng: draws a normal slope for each feature.
        x: complete rows, standardised; on them a share `missing` is lost on average.
        missing: in (0, 1).

    Raises:
        ValueError: `missing` is out of range.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(1_000, 3))
        >>> mechanism = mnar_self_logistic(np.random.default_rng(1), x, missing=0.3)
        >>> float(mechanism.probability(x).mean().round(3))
        0.3
    """
    _check_fraction(missing)
    flat = _flat(x)
    weights = np.diag(rng.normal(size=flat.shape[1]))
    return Logistic(weights, _calibrated(flat @ weights, missing))


# --- parts ----------------------------------------------------------------------------------


def _flat(x: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(x, float)
    if not np.isfinite(x).all():
        raise ValueError(
            "x must be complete and finite: what is lost may depend on every value of a row."
        )
    return x.reshape(len(x), -1)


def _rows_and_inputs(
    rng: np.random.Generator, x: ArrayLike, missing: float, share_inputs: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    _check_fraction(missing)
    flat = _flat(x)
    num_features = flat.shape[1]
    if num_features < 2 or not 0 < share_inputs < 1:
        raise ValueError(
            "x must have two features or more and share_inputs lie in (0, 1), got "
            f"{num_features} and {share_inputs}."
        )
    num_inputs = min(max(round(share_inputs * num_features), 1), num_features - 1)
    return flat, rng.permutation(num_features) < num_inputs


def _normal_weights(
    rng: np.random.Generator, flat: NDArray[np.float64], inputs: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Normal weights, scaled so that the logits have standard deviation 1 on the rows."""
    weights = rng.normal(size=(flat.shape[1], flat.shape[1]))
    deviation = (flat[:, inputs] @ weights[inputs]).std(0)
    return weights / np.where(deviation > 0, deviation, 1.0)


def _calibrated(logits: NDArray[np.float64], missing: float) -> NDArray[np.float64]:
    """The bias of each feature at which a share `missing` is lost on average over the rows."""

    def excess(bias: float, column: NDArray[np.float64]) -> float:
        return float(expit(column + bias).mean() - missing)

    reach = np.abs(logits).max() + abs(logit(missing)) + 1
    return np.array([brentq(excess, -reach, reach, (column,)) for column in logits.T])


def _check_fraction(missing: float, *, closed: bool = False) -> None:
    if not (0 <= missing <= 1 if closed else 0 < missing < 1):
        raise ValueError(f"missing must lie in {'[0, 1]' if closed else '(0, 1)'}, got {missing}.")


def require_kind(kind: type, mechanism: object) -> None:
    """Raise a `TypeError` unless a mechanism is of the kind that a missingness model is made of.

    Example:
        >>> require_kind(Patterns, quadrants((4, 4)))
    """
    if isinstance(mechanism, kind):
        return
    made_by = {Logistic: "logistic_missingness", Patterns: "pattern_missingness"}
    other = made_by.get(type(mechanism))
    remedy = f"use `{other}`" if other else "write its density as a program of your own"
    raise TypeError(
        f"`{made_by[kind]}` takes a mechanism of type {kind.__name__}, got "
        f"{type(mechanism).__name__}: {remedy}."
    )
