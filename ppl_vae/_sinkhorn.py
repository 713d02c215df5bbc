"""Entropic optimal transport between samples, by Newton's method on its dual."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

__all__ = ["entropic_cost"]

MAX_STEPS = 500  # at each regularisation


def entropic_cost(cost: NDArray, epsilon: float, tolerance: float, beside: float = 0.0) -> float:
    """Return the cost of entropic transport between uniform weights.

        min over plans P of  <P, C> + epsilon KL(P | uniform)  =  max over f of  mean(f) + mean(g),
        g_j = -epsilon log mean_i exp((f_i - C_ij) / epsilon)

    Where epsilon is small Sinkhorn's iterations need many thousands, Newton's some dozens, going
    from wide regularisation to narrow.

    Args:
        cost: C, shape (N, M).
        epsilon: regularisation, above 0.
        tolerance: largest error, over the value.
        beside: a cost that this one is subtracted from; the error may be as large beside it.

    Raises:
        RuntimeError: the gap stayed larger.

    Example:
        >>> round(entropic_cost(np.array([[0.0, 4.0], [4.0, 0.0]]), 1e-3, 1e-6), 3)  # plus log 2
        0.001
    """
    cost = cost if len(cost) <= cost.shape[1] else cost.T
    if (sharp := _without_regularisation(cost, epsilon, tolerance, beside)) is not None:
        return sharp
    widest = max(cost.max(), epsilon)
    f = np.zeros(len(cost))
    num_stages = int(np.ceil(np.log(widest / epsilon) / np.log(4))) + 1
    for wide in np.geomspace(widest, epsilon, num_stages):
        for _ in range(MAX_STEPS):
            f, error = _newton_step(f, cost, wide)
            if error < 1e-3:
                break
    for _ in range(MAX_STEPS):
        value, gap = _value_and_gap(f, cost, epsilon)
        if gap <= tolerance * max(abs(value), epsilon, beside):
            return value
        f, _ = _newton_step(f, cost, epsilon)
    raise RuntimeError(
        f"Entropic transport did not converge with regularisation {epsilon:g} for distances up to "
        f"{np.sqrt(2 * cost.max()):g}: take a larger blur, or scale the data."
    )


def _without_regularisation(
    cost: NDArray, epsilon: float, tolerance: float, beside: float
) -> float | None:
    """Return the cost of the best assignment if it is within the tolerance, else None.

    KL(P | uniform) is between 0 and log N.
    """
    most = epsilon * np.log(len(cost))
    if len(cost) != cost.shape[1] or most > tolerance * max(cost.max(), beside):
        return None
    value = float(cost[linear_sum_assignment(cost)].mean())
    return value if most <= tolerance * max(value, beside) else None


def _newton_step(f: NDArray, cost: NDArray, epsilon: float) -> tuple[NDArray, float]:
    """Return higher potentials, and how far the plan at `f` was from its weights, in L1."""
    num_x, num_y = cost.shape
    plan = _plan(f, cost, epsilon)
    slope = 1 / num_x - plan.sum(1)
    curvature = (np.diag(plan.sum(1)) - num_y * plan @ plan.T) / epsilon
    # Potentials count up to a constant only, and the curvature vanishes as the plan gets sharp.
    size = np.trace(curvature) / num_x + 1 / (num_x * epsilon)
    ridge = 1e-12 * size + 1e-3 * np.abs(slope).max() / epsilon
    curvature += size / num_x + ridge * np.eye(num_x)
    step = np.linalg.solve(curvature, slope)
    value, rise, length = _dual(f, cost, epsilon), slope @ step, 1.0
    while _dual(f + length * step, cost, epsilon) < value + 1e-4 * length * rise and length > 1e-8:
        length /= 2
    return f + length * step, float(np.abs(slope).sum())


def _best_response(f: NDArray, cost: NDArray, epsilon: float) -> NDArray:
    """The other potentials, g."""
    scaled = (f[:, None] - cost) / epsilon
    largest = scaled.max(0)
    return -epsilon * (largest + np.log(np.exp(scaled - largest).mean(0)))


def _dual(f: NDArray, cost: NDArray, epsilon: float) -> float:
    return float(f.mean() + _best_response(f, cost, epsilon).mean())


def _plan(f: NDArray, cost: NDArray, epsilon: float) -> NDArray:
    """The plan of potentials `f`; its columns have their weights."""
    return np.exp((f[:, None] + _best_response(f, cost, epsilon) - cost) / epsilon) / cost.size


def _value_and_gap(f: NDArray, cost: NDArray, epsilon: float) -> tuple[float, float]:
    """The dual value, and the cost of a plan with the right weights less that.

    Altschuler et al. (2017), Near-linear time approximation algorithms for optimal transport,
    algorithm 2, https://arxiv.org/abs/1705.09634.
    """
    num_x, num_y = cost.shape
    plan = _plan(f, cost, epsilon)
    plan *= np.minimum(1, 1 / num_x / plan.sum(1))[:, None]
    plan *= np.minimum(1, 1 / num_y / plan.sum(0))
    lacking_x, lacking_y = 1 / num_x - plan.sum(1), 1 / num_y - plan.sum(0)
    if lacking_x.sum() > 0:
        plan += np.outer(lacking_x, lacking_y) / lacking_x.sum()
    entropy = np.log(np.maximum(plan * cost.size, 1e-300))
    value = _dual(f, cost, epsilon)
    return value, float((plan * (cost + epsilon * entropy)).sum() - value)
