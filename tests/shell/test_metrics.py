"""Each score against a closed form or an independent implementation; all seeds are fixed."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from ppl_vae import metrics

X, Y = np.random.default_rng(0).normal(size=(2, 60, 3)) * [[[1.0]], [[1.5]]] + [[[0.0]], [[0.5]]]


@pytest.fixture
def rng():
    return np.random.default_rng(1)


# --- per entry ------------------------------------------------------------------------------


def test_errors_of_single_values():
    estimate, truth = np.array([[1.0, 2.0], [3.0, 8.0]]), np.array([[1.0, 0.0], [0.0, 4.0]])
    np.testing.assert_allclose(metrics.rmse(estimate, truth), np.sqrt((4 + 9 + 16) / 4))
    np.testing.assert_allclose(metrics.rmse(estimate, truth, axis=1), np.sqrt([2, 12.5]))
    np.testing.assert_allclose(metrics.mae(estimate, truth), 9 / 4)


def test_f1_is_scikit_learns(rng):
    f1_score = pytest.importorskip("sklearn.metrics").f1_score
    estimate, truth = rng.integers(0, 2, (2, 50))
    np.testing.assert_allclose(metrics.f1(estimate, truth), f1_score(truth, estimate))
    assert np.isnan(metrics.f1([0, 0], [0, 0]))
    with pytest.raises(ValueError, match="0 or 1"):
        metrics.f1([0.5], [1])


def test_accuracy_is_scikit_learns(rng):
    accuracy_score = pytest.importorskip("sklearn.metrics").accuracy_score
    estimate, truth = rng.integers(0, 4, (2, 50))
    assert metrics.accuracy(estimate, truth) == accuracy_score(truth, estimate)
    np.testing.assert_array_equal(metrics.accuracy([[1, 0], [2, 2]], [[1, 1], [2, 2]], 1), [0.5, 1])


def test_predictive_density_of_a_normal_mean(rng):
    """x | z ~ N(z, 1), z ~ N(0, 1): x ~ N(0, 2); within five standard errors."""
    z = rng.normal(size=100_000)
    density = stats.norm.pdf(0.7, z, 1)
    error = density.std() / len(z) ** 0.5 / density.mean()
    found = metrics.nll(np.log(density))
    assert abs(found + stats.norm.logpdf(0.7, scale=2**0.5)) < 5 * error


def test_crps_against_all_pairs_and_the_normal_closed_form(rng):
    draws, truth = rng.normal(size=(40, 5)), rng.normal(size=5)
    pairs = np.abs(draws[:, None] - draws[None]).sum((0, 1)) / (40 * 39)
    expected = np.abs(draws - truth).mean(0) - pairs / 2
    np.testing.assert_allclose(metrics.crps(draws, truth), expected)

    many = rng.normal(size=(400, 2_000))
    found = metrics.crps(many, np.full(2_000, 0.8))
    closed = 0.8 * (2 * stats.norm.cdf(0.8) - 1) + 2 * stats.norm.pdf(0.8) - np.pi**-0.5
    assert abs(found.mean() - closed) < 5 * found.std() / 2_000**0.5


def test_coverage_of_calibrated_and_narrow_draws(rng):
    """4,000 entries: the share has a standard deviation of 0.005."""
    draws, truth = rng.normal(size=(500, 4_000)), rng.normal(size=4_000)
    assert abs(metrics.coverage(draws, truth, 0.9) - 0.9) < 5 * 0.005
    narrow = 2 * stats.norm.cdf(stats.norm.ppf(0.95) / 2) - 1
    assert abs(metrics.coverage(draws / 2, truth, 0.9) - narrow) < 5 * 0.008


def test_coverage_of_unknown_values_is_unknown(rng):
    draws = rng.normal(size=(10, 3))
    assert np.isnan(metrics.coverage(draws, [0.0, np.nan, 0.0]))
    draws[4, 1] = np.nan
    assert np.isnan(metrics.coverage(draws, [0.0, 0.0, 0.0]))


# --- discrete laws --------------------------------------------------------------------------


def test_divergences_are_scipys(rng):
    p, q = rng.uniform(size=(2, 4, 7))
    np.testing.assert_allclose(metrics.kl_divergence(p, q), stats.entropy(p, q, axis=-1))
    np.testing.assert_allclose(
        metrics.jensen_shannon(p, q, axis=0), jensenshannon(p, q, axis=0) ** 2
    )
    assert metrics.kl_divergence([1, 1], [1, 0]) == np.inf
    assert metrics.jensen_shannon([1, 0], [0, 1]) == pytest.approx(np.log(2))


@pytest.mark.parametrize("axis", [0, -2, 1, -1])
def test_one_law_against_several(rng, axis):
    """The outcomes' axis is that of each law itself, however many axes the other has."""
    p, laws = rng.uniform(size=7), rng.uniform(size=(4, 7))
    q = np.moveaxis(laws, -1, axis)
    several = (p, q) if axis in (0, -1) else (np.moveaxis(p[None], -1, axis), q)
    for divergence in (metrics.kl_divergence, metrics.jensen_shannon):
        expected = np.array([divergence(p, law) for law in laws])
        np.testing.assert_allclose(divergence(*several, axis=axis), expected)


def test_a_law_against_copies_of_itself():
    p = np.array([0.2, 0.3, 0.5])
    for divergence in (metrics.kl_divergence, metrics.jensen_shannon):
        np.testing.assert_array_equal(divergence(p, np.tile(p[:, None], (1, 3)), axis=0), [0, 0, 0])


# --- two samples ----------------------------------------------------------------------------


def test_energy_score_of_one_feature_is_the_crps(rng):
    draws, truth = rng.normal(size=(30, 6, 1)), rng.normal(size=(6, 1))
    np.testing.assert_allclose(
        metrics.energy_score(draws, truth), metrics.crps(draws[..., 0], truth[:, 0])
    )


@pytest.mark.parametrize("kernel", ["gaussian", "laplacian", "energy", "hamming", "cubic"])
def test_mmd_against_all_pairs(kernel):
    x, y = (np.round(a) for a in (X, Y))

    def k(a, b):
        distance = np.sqrt(((a - b) ** 2).sum())
        return {
            "gaussian": np.exp(-(distance**2) / (2 * 0.7**2)),
            "laplacian": np.exp(-distance / 0.7),
            "energy": -distance,
            "hamming": np.exp(-(a != b).mean() / 0.7),
            "cubic": (a @ b / 3 + 1) ** 3,
        }[kernel]

    within = [
        np.mean([k(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j])
        for s in (x, y)
    ]
    expected = sum(within) - 2 * np.mean([k(a, b) for a in x for b in y])
    np.testing.assert_allclose(metrics.mmd(x, y, kernel, bandwidth=0.7), expected)


def test_mmd_is_unbiased_for_normal_samples(rng):
    """Gaussian kernel, N(0, 1) against N(1, 1): closed form, within five standard errors."""
    found = [
        metrics.mmd(rng.normal(size=(20, 1)), rng.normal(1, size=(20, 1)), "gaussian", 1.0)
        for _ in range(400)
    ]
    closed = 2 / 3**0.5 * (1 - np.exp(-1 / 6))
    assert abs(np.mean(found) - closed) < 5 * np.std(found) / 20


@pytest.mark.parametrize(
    "kernel", ["gaussian", "laplacian", "energy", "hamming", "cubic", lambda a, b: a @ b.T]
)
def test_linear_time_mmd_against_its_pairs(kernel):
    """The sum of lemma 14 written out; a sample that is too long is cut."""
    k = {
        "gaussian": lambda a, b: np.exp(-((a - b) ** 2).sum() / (2 * 0.7**2)),
        "laplacian": lambda a, b: np.exp(-np.sqrt(((a - b) ** 2).sum()) / 0.7),
        "energy": lambda a, b: -np.sqrt(((a - b) ** 2).sum()),
        "hamming": lambda a, b: np.exp(-(a != b).mean() / 0.7),
        "cubic": lambda a, b: (a @ b / 3 + 1) ** 3,
    }.get(kernel, lambda a, b: a @ b)
    x, y = np.round(X[:51]), np.round(Y)
    expected = np.mean([
        k(x[i], x[i + 1]) + k(y[i], y[i + 1]) - k(x[i], y[i + 1]) - k(x[i + 1], y[i])
        for i in range(0, 50, 2)
    ])  # fmt: skip
    found = metrics.mmd_linear(x, y, kernel, bandwidth=0.7)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_linear_time_mmd_is_unbiased_for_normal_samples(rng):
    """As above; 2,000 pairs, five standard errors."""
    x, y = rng.normal(size=(4_000, 1)), rng.normal(1, size=(4_000, 1))
    found = [
        metrics.mmd_linear(a, b, "gaussian", 1.0)
        for a, b in zip(np.split(x, 40), np.split(y, 40), strict=True)
    ]
    closed = 2 / 3**0.5 * (1 - np.exp(-1 / 6))
    assert abs(np.mean(found) - closed) < 5 * np.std(found) / 40**0.5


def test_wasserstein_is_scipys_in_one_dimension():
    found = metrics.wasserstein(X[:, :1], Y[:, :1], p=1)
    np.testing.assert_allclose(found, stats.wasserstein_distance(X[:, 0], Y[:, 0]))
    root = np.sqrt(np.mean((np.sort(X[:, 0]) - np.sort(Y[:, 0])) ** 2))
    np.testing.assert_allclose(metrics.wasserstein(X[:, :1], Y[:, :1]), root)


def test_frechet_distance_of_a_stretched_sample():
    stretched = 3 * X + 1.0
    covariance = np.cov(X.T)
    expected = ((2 * X.mean(0) + 1) ** 2).sum() + 4 * np.trace(covariance)
    np.testing.assert_allclose(metrics.frechet_distance(X, stretched), expected)
    embedded = metrics.frechet_distance(X[:, :, None], Y[:, :, None], embed=lambda a: a[:, :2, 0])
    np.testing.assert_allclose(embedded, metrics.frechet_distance(X[:, :2], Y[:, :2]))


# --- images -----------------------------------------------------------------------------------


def test_ssim_window_by_window(rng):
    """The formula of Wang et al. in every window of 11 x 11 pixels, weights of scale 1.5."""
    x, y = 5 * rng.random((2, 13, 16))
    at = np.arange(-5, 6)
    weight = np.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    weight /= weight.sum()
    each = []
    for i, j in np.ndindex(3, 6):
        a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
        m_a, m_b = (weight * a).sum(), (weight * b).sum()
        v_a, v_b = (weight * (a - m_a) ** 2).sum(), (weight * (b - m_b) ** 2).sum()
        both = (weight * (a - m_a) * (b - m_b)).sum()
        c_1, c_2 = (0.01 * 5) ** 2, (0.03 * 5) ** 2
        top, bottom = (2 * m_a * m_b + c_1) * (2 * both + c_2), m_a**2 + m_b**2 + c_1
        each.append(top / (bottom * (v_a + v_b + c_2)))
    np.testing.assert_allclose(metrics.ssim(x, y, data_range=5.0), np.mean(each))
    np.testing.assert_allclose(metrics.ssim(np.stack([x, y]), y, data_range=5.0)[1], 1)


def test_ssim_kernel_takes_flat_images_with_channels(rng):
    x, y = rng.random((3, 2, 12, 11)), rng.random((4, 2, 12, 11))
    found = metrics.ssim_kernel((2, 12, 11))(x.reshape(3, -1), y.reshape(4, -1))
    for i, j in np.ndindex(3, 4):
        expected = np.mean([metrics.ssim(x[i, c], y[j, c]) for c in range(2)])
        np.testing.assert_allclose(found[i, j], np.exp(expected))
    same = metrics.mmd(*rng.random((2, 30, 132)), kernel=metrics.ssim_kernel((12, 11)))
    other = metrics.mmd(
        rng.random((30, 132)), np.tile(rng.random(132), (30, 1)), metrics.ssim_kernel((12, 11))
    )
    assert abs(same) < 0.1 * other


def test_classifier_tells_apart_what_differs(rng):
    pytest.importorskip("sklearn")
    same, other = rng.normal(size=(2, 300, 2))
    assert abs(metrics.c2st(same, other) - 0.5) < 0.1
    assert metrics.c2st(same, other + 4.0) > 0.95
    assert metrics.c2st(same, other + 1.0) == metrics.c2st(same, other + 1.0)


@pytest.mark.parametrize("num_points", [101, 150, 200])
def test_classifier_of_few_points_has_learned(num_points):
    """Bayes' classifier is right with probability 0.933; four seeds' mean is within 0.03 of it."""
    pytest.importorskip("sklearn")
    near, apart = [], []
    for seed in range(4):
        x, y = np.random.default_rng(seed).normal(size=(2, num_points, 2))
        apart.append(metrics.c2st(x, y + np.array([3.0, 0.0]), seed=seed))
        near.append(metrics.c2st(x, y, seed=seed))
    assert min(apart) > 0.88
    assert abs(np.mean(apart) - 0.933) < 0.03
    assert abs(np.mean(near) - 0.5) < 0.06


def test_accuracy_of_nan_is_nan():
    found = metrics.accuracy([[1, np.nan], [0, 1]], [[1, 1], [1, np.nan]], axis=0)
    np.testing.assert_array_equal(found, [0.5, np.nan])


HOLED = np.where(np.arange(180).reshape(60, 3) == 13, np.nan, X)

BAD = {
    "rmse": (lambda: metrics.rmse([1, 2], [1]), r"shape \(1,\), got \(2,\)"),
    "crps": (lambda: metrics.crps([[1.0]], [1.0]), r"S >= 2.*got \(1, 1\)"),
    "level": (lambda: metrics.coverage([[1.0], [2.0]], [1.0], 90), r"\(0, 1\), got 90"),
    "probabilities": (lambda: metrics.kl_divergence([-1, 2], [1, 1]), "not negative"),
    "energy": (lambda: metrics.energy_score(X, X), r"\(60, 3\) and \(60, 3\)"),
    "kernel": (lambda: metrics.mmd(X, Y, "rbf"), "function or one of.*got 'rbf'"),
    "bandwidth": (lambda: metrics.mmd(X, Y, bandwidth=0.0), "positive, got 0"),
    "features": (lambda: metrics.mmd(X, Y[:, :2]), r"\(60, 3\) and \(60, 2\)"),
    "image size": (lambda: metrics.ssim(np.ones((10, 20)), np.ones((10, 20))), "at least 11"),
    "images": (lambda: metrics.ssim(np.ones((12, 20)), np.ones((20, 12))), "of one size"),
    "range": (lambda: metrics.ssim(np.eye(12), np.eye(12), data_range=0), "positive, got 0"),
    "sizes": (lambda: metrics.wasserstein(X, Y[:5]), "got 60 and 5 points"),
    "order": (lambda: metrics.wasserstein(X, X, p=3), "order of the distance.*1 or 2, got 3"),
    "order 0": (lambda: metrics.wasserstein(X, X, p=0), "1 or 2, got 0"),
    "NaN, sinkhorn": (lambda: metrics.sinkhorn(X, HOLED), r"y has 1 values.*first nan at \(4, 1\)"),
    "NaN, mmd": (lambda: metrics.mmd(HOLED, X), r"x has 1 values that are NaN.*\(4, 1\)"),
    "NaN, mmd_linear": (lambda: metrics.mmd_linear(X, HOLED), "y has 1 values that are NaN"),
    "NaN, draws": (lambda: metrics.energy_score([X, HOLED], X), r"draws has 1.*NaN.*\(1, 4, 1\)"),
    "NaN, truth": (lambda: metrics.energy_score([X, X], HOLED), r"truth has 1.*NaN.*\(4, 1\)"),
    "outcomes": (lambda: metrics.kl_divergence([1.0], [0.5, 0.5]), "axis -1, got 1 and 2"),
    "outcomes of JSD": (
        lambda: metrics.jensen_shannon(np.ones((2, 4)), np.ones((1, 4)), axis=0),
        "axis 0, got 2 and 1",
    ),
    "blur": (lambda: metrics.sinkhorn(X, Y, -1.0), "positive, got -1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
