"""MNIST-GMM: the exact class posterior and the mixture against independent answers."""

import numpy as np
import pytest
from scipy import stats


@pytest.fixture
def two_classes(mnist_gmm):
    """Two correlated Gaussians in three dimensions."""
    root = np.array([[1.0, 0, 0], [0.5, 0.8, 0], [-0.3, 0.2, 0.6]])
    means = np.array([[0.0, 1, 0], [1, -1, 0.5]])
    return mnist_gmm.Mixture(means, np.array([root @ root.T, np.diag([0.5, 2.0, 1.0])]))


def test_class_posterior_by_integrating_the_rest_out(mnist_gmm, two_classes):
    """p(c | x_1) against the density of (x_1, x_2, x_3) summed over a grid of x_2 and x_3."""
    x = np.array([0.4, np.nan, np.nan])
    found = mnist_gmm.log_posterior(two_classes, x, np.array([0]))
    grid = np.linspace(-12, 12, 241)
    points = np.stack(np.broadcast_arrays(x[0], grid[:, None], grid), -1)
    each = [
        stats.multivariate_normal(m, c).pdf(points).sum() for m, c in zip(*two_classes, strict=True)
    ]
    np.testing.assert_allclose(np.exp(found), each / np.sum(each), rtol=1e-6)


def test_class_posterior_of_whole_rows(mnist_gmm, two_classes):
    x = np.random.default_rng(0).normal(size=(2, 4, 3))
    each = [stats.multivariate_normal(m, c).pdf(x) for m, c in zip(*two_classes, strict=True)]
    expected = np.moveaxis(each / np.sum(each, 0), 0, -1)
    np.testing.assert_allclose(np.exp(mnist_gmm.log_posterior(two_classes, x)), expected)


def test_exact_conditional_draws_score_near_zero(mnist_gmm, two_classes):
    """x_m drawn from its true law: the average of p(c | x_o, x_m) is p(c | x_o).

    Averages of 4,000 probabilities are within five standard errors: false alarm 6e-7 each.
    """
    rng, observed = np.random.default_rng(1), np.array([0])
    posterior = np.exp(mnist_gmm.log_posterior(two_classes, np.array([0.4, 0, 0]), observed))
    draws = np.empty((2, 4_000, 1, 3))
    for place in np.ndindex(2, 4_000):
        c = rng.choice(2, p=posterior)
        mean, cov = two_classes.means[c], two_classes.covariances[c]
        gain = cov[1:, 0] / cov[0, 0]
        law = mean[1:] + gain * (0.4 - mean[0]), cov[1:, 1:] - np.outer(gain, cov[0, 1:])
        draws[place] = [[0.4, *rng.multivariate_normal(*law)]]
    found = mnist_gmm.class_probabilities(draws, two_classes)
    assert found.shape == (2, 1, 2)
    assert np.abs(found - posterior).max() < 5 * 0.5 / 4_000**0.5
    scores = mnist_gmm.scores(found, posterior[None])
    assert 0 <= scores["jsd"][0] < 1e-3
    wrong = mnist_gmm.scores(found[..., ::-1], posterior[None])
    assert wrong["jsd"][0] > 10 * scores["jsd"][0]


def test_small_digits_keep_their_place(mnist_gmm):
    grey = np.zeros((1, 28, 28))
    grey[0, 4:6, 10:12] = 1.0
    x = mnist_gmm.small_digits(grey.reshape(1, 784), np.random.default_rng(0)).reshape(14, 14)
    assert np.unravel_index(x.argmax(), x.shape) == (2, 5)
    np.testing.assert_allclose(x[2, 5], np.log(0.85 / 0.15), atol=0.02)
    np.testing.assert_allclose(x[0, 0], -np.log(0.85 / 0.15), atol=0.02)


def test_mixture_fit_and_draws_agree(mnist_gmm, two_classes):
    """Of 20,000 draws, moments within five standard errors: false alarm 6e-7 each."""
    labels = np.repeat([0, 1], 20_000)
    x = mnist_gmm.draw(np.random.default_rng(2), two_classes, labels)
    fitted = mnist_gmm.fit_mixture(x, labels)
    np.testing.assert_allclose(fitted.means, two_classes.means, atol=5 * 2**0.5 / 20_000**0.5)
    added = mnist_gmm.EXTRA_SCALE**2 * np.eye(3)
    np.testing.assert_allclose(
        fitted.covariances, two_classes.covariances + added, atol=5 * 2 * 2**0.5 / 20_000**0.5
    )
