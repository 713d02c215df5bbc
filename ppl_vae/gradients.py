"""How noisy gradients are: signal, variance and their ratio, as a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

__all__ = ["LABELS", "Moments", "summarise_gradients"]

Moments = Mapping[str, tuple[NDArray[Any], NDArray[Any]]]
"""For each block of parameters, mean and variance of each of its gradient's entries, (entries,)."""

LABELS = {
    "norm": "norm of\nthe mean gradient",
    "variance": "variance,\nsummed over entries",
    "snr": "signal-to-noise ratio",
}


def summarise_gradients(
    moments: Mapping[tuple[str, int], Moments],
    objectives: Sequence[str],
    num_particles: Sequence[int],
) -> xr.Dataset:
    """Return norm, variance and signal-to-noise ratio of each block's gradient.

        norm = sqrt(sum_j mean_j^2),  variance = sum_j var_j,
        snr = average over j of |mean_j| / sqrt(var_j)

    Entries without any gradient, mean and variance 0, are left out of the average. One entry with a
    gradient without noise, variance 0, makes the average infinite.

    Args:
        moments: of each objective and number of particles.
        objectives: their names, in the order of the result.
        num_particles: in the order of the result.

    Example:
        >>> moments = {("iwae", 5): {"encoder": (np.array([3.0, 4.0]), np.array([1.0, 4.0]))}}
        >>> ds = summarise_gradients(moments, ["iwae"], [5])
        >>> float(ds.norm.squeeze()), float(ds.variance.squeeze()), float(ds.snr.squeeze())
        (5.0, 5.0, 2.5)
    """
    blocks = list(next(iter(moments.values())))
    dims = ("objective", "num_particles", "block")
    each = np.array(
        [[[_summary(*moments[o, k][b]) for b in blocks] for k in num_particles] for o in objectives]
    )
    variables = {name: (dims, each[..., i]) for i, name in enumerate(LABELS)}
    coords = {
        "objective": list(objectives), "num_particles": list(num_particles), "block": blocks,
    }  # fmt: skip
    return xr.Dataset(variables, coords)


def _summary(mean: NDArray[Any], variance: NDArray[Any]) -> tuple[float, float, float]:
    mean, variance = np.asarray(mean, float), np.asarray(variance, float)
    moves = (mean != 0) | (variance != 0)
    with np.errstate(divide="ignore"):
        ratio = np.abs(mean[moves]) / np.sqrt(variance[moves])
    snr = float(ratio.mean()) if len(ratio) else float("nan")
    return float(np.sqrt((mean**2).sum())), float(variance.sum()), snr
