"""Binary entries: densities against scipy, uniforms against their law, both twins.

Kolmogorov-Smirnov and chi-square tests at 1e-4: with 2 x 5 of them a false alarm in 1,000 seeds.
"""

import numpy as np
import pytest
from kernel_parts import double_precision, module, seeded
from scipy import stats

LOGITS = np.array([[-60.0, -3.0, -1e-3, 0.0], [0.5, 2.0, 17.0, 300.0]])
X = np.array([[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0]])
DRAWS = (2_000, 501)


EXPECTED = -np.logaddexp(0, np.where(X == 1, -LOGITS, LOGITS))


def test_log_densities(backend):
    with double_precision(backend):
        bernoulli, logits, x = module(backend, "bernoulli"), *map(backend.array, (LOGITS, X))
        found = np.asarray(bernoulli.log_prob(logits, x))
    np.testing.assert_allclose(found, EXPECTED, rtol=1e-12, atol=1e-12)


def test_log_densities_without_gradients():
    """Pyro has two ways; the quicker one overwrites what a gradient would need."""
    torch = pytest.importorskip("torch")
    from ppl_vae.inference.pyro import bernoulli

    logits, x = torch.as_tensor(LOGITS), torch.as_tensor(X[:1])  # shared by rows
    with torch.no_grad():
        found = bernoulli.log_prob(logits, x)
    expected = -np.logaddexp(0, np.where(X[:1] == 1, -LOGITS, LOGITS))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(logits, LOGITS)


def test_log_densities_in_two_parts(backend):
    """Nothing large cancels."""
    with double_precision(backend):
        bernoulli, logits, x = module(backend, "bernoulli"), *map(backend.array, (LOGITS, X))
        if backend.name == "numpyro":
            varying = np.asarray(bernoulli.twice_varying_log_prob(logits, x)) / 2
        else:
            varying = np.asarray(bernoulli.varying_log_prob(logits, x))
        split = np.asarray(bernoulli.fixed_log_prob(logits)) + varying
    np.testing.assert_allclose(split, EXPECTED, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(varying[(X == 1) == (LOGITS > 0)], 0)


def uniforms(backend, seed):
    draw = module(backend, "bernoulli").uniform
    shape = backend.array(np.zeros(DRAWS, "float32")).shape
    if backend.name == "numpyro":
        return seeded(backend, lambda key: np.asarray(draw(key, shape), float), seed)
    like = backend.array(np.zeros(1, "float32"))
    return seeded(backend, lambda: np.asarray(draw(shape, like), float), seed)


@pytest.mark.parametrize("seed", [0, 1])
def test_uniforms(backend, seed):
    u = uniforms(backend, seed)
    assert u.shape == DRAWS
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-4
    cells = (u * 2**24).astype(int)
    np.testing.assert_array_equal(cells, u * 2**24)  # steps of 2^-24
    for first_bit in (0, 9, 16):  # up to nine bits are shared by a row
        byte = (cells[:, 0] if first_bit == 0 else cells.ravel()) >> first_bit & 255
        assert stats.chisquare(np.bincount(byte, minlength=256)).pvalue > 1e-4


def test_neighbours_are_independent(backend):
    """The largest of 1,000 correlations is beyond 5 standard errors in one of 1,700 seeds."""
    u = uniforms(backend, 2)
    for lag in (1, 250, 251):
        pairs = [np.corrcoef(u[:, i], u[:, i + lag])[0, 1] for i in range(u.shape[1] - lag)]
        assert np.abs(pairs).max() < 5 / DRAWS[0] ** 0.5
    one_half, other_half = np.split(u.ravel(), 2)
    assert abs(np.corrcoef(one_half, other_half)[0, 1]) < 5 / one_half.size**0.5
