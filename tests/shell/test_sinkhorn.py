"""The Sinkhorn divergence against exact transport and against its own iterations."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from ppl_vae import metrics

X, Y = np.random.default_rng(0).normal(size=(2, 60, 3)) * [[[1.0]], [[1.5]]] + [[[0.0]], [[0.5]]]


@pytest.mark.parametrize("scale", [1, 10, 1_000])
def test_sinkhorn_of_data_on_any_scale(scale):
    """Far wider than the blur it is exact transport; Sinkhorn's own iterations stopped short."""
    for x, y in ((X[:60], Y[:60]), (np.r_[X[:36], X[36:60] + 9], np.r_[Y[:24], Y[24:60] + 9])):
        exact = metrics.wasserstein(scale * x, scale * y) ** 2 / 2
        assert metrics.sinkhorn(scale * x, scale * y, 0.02) == pytest.approx(exact, rel=2e-3)


def test_sinkhorn_of_samples_of_two_sizes():
    """Exact transport is that of copies: 40 points thrice and 60 points twice."""
    x, y = 1_000 * X[:40], 1_000 * Y[:60]
    exact = metrics.wasserstein(np.repeat(x, 3, 0), np.repeat(y, 2, 0)) ** 2 / 2
    assert metrics.sinkhorn(x, y) == pytest.approx(exact, rel=1e-4)


def test_sinkhorn_is_the_limit_of_its_iterations():
    """At a regularisation that is wide enough for them: 2,000 in plain numpy."""

    def cost(x, y, epsilon=0.5**2):
        kernel = np.exp(-cdist(x, y, "sqeuclidean") / 2 / epsilon)
        v = np.ones(len(y))
        for _ in range(2_000):
            u = 1 / (kernel @ v / len(y))
            v = 1 / (kernel.T @ u / len(x))
        return epsilon * (np.log(u).mean() + np.log(v).mean())

    x, y = X[:50], Y[:70]
    expected = cost(x, y) - (cost(x, x) + cost(y, y)) / 2
    assert metrics.sinkhorn(x, y, 0.5, 1e-9) == pytest.approx(expected, rel=1e-6)


def test_sinkhorn_shrinks_to_exact_transport():
    exact = metrics.wasserstein(X, Y) ** 2 / 2
    wide, narrow = (abs(metrics.sinkhorn(X, Y, blur) - exact) for blur in (0.5, 0.1))
    assert narrow < wide
    assert narrow < 0.02 * exact
    assert metrics.sinkhorn(X, X) == pytest.approx(0, abs=1e-6)
    assert metrics.sinkhorn(X, X + np.array([1.0, 2.0, 0.0]), 0.3) == pytest.approx(2.5, rel=1e-3)
    assert metrics.sinkhorn(X[:40], Y) == pytest.approx(metrics.sinkhorn(Y, X[:40]), rel=1e-3)
