"""One row of the linear-Gaussian model, many copies of it, and how far draws are from its law."""

import numpy as np
from oracles import LinearGaussian

TRUTH = LinearGaussian.example()
ROW = TRUTH.draw(np.random.default_rng(3), 1)[0].astype(np.float32)
SOME = np.array([True, False, True, False, False])
NARROW = {"guide_shift": 0.2, "guide_stretch": 0.2}
BAD = {"guide_shift": 0.5, "guide_stretch": 1.5}


def copies(row, mask, number):
    return np.tile(np.where(mask, row, np.nan), (number, 1)).astype(np.float32)


def moments(values, mean, covariance):
    """Standardised deviations of values (..., m) and of their products, of expectation zero."""
    centred = (values.astype(float) - mean) / np.sqrt(np.diag(covariance))
    i, j = np.triu_indices(len(mean))
    correlation = covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    return np.concatenate([centred, centred[..., i] * centred[..., j] - correlation[i, j]], -1)


def all_moments(x, z):
    """Deviations of x_m and z given x_o, their products with each other too, (..., number)."""
    weight, missing = TRUTH.weight[SOME], TRUTH.weight[~SOME]
    of_z = np.linalg.inv(np.eye(2) + weight.T @ weight / TRUTH.scale**2)
    mean = of_z @ weight.T @ (ROW - TRUTH.bias)[SOME] / TRUTH.scale**2
    both = np.concatenate([missing, np.eye(2)])
    covariance = both @ of_z @ both.T
    covariance[:3, :3] += TRUTH.scale**2 * np.eye(3)
    mean = both @ mean + np.append(TRUTH.bias[~SOME], [0, 0])
    return moments(np.concatenate([x[..., ~SOME], z], -1), mean, covariance)
