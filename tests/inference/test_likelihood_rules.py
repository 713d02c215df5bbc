"""Rules for partially observed rows: log p(x_o) against SciPy, draws against closed form.

False alarm of each test of draws: 1e-5 over seeds.
"""

import importlib
from contextlib import nullcontext

import numpy as np
import pytest
from kernel_parts import double_precision, module, real, seeded
from oracles import largest_score, z_scores
from scipy import stats
from scipy.special import logsumexp

RNG = np.random.default_rng(0)
NUM_ROWS, NUM_FEATURES = 6, 4
SHAPE = (NUM_ROWS, NUM_FEATURES)
MASK = RNG.random(SHAPE) < 0.5
MASK[0], MASK[1] = True, False  # a row with everything, a row with nothing observed
LOC, SCALE = RNG.normal(size=SHAPE), RNG.uniform(0.5, 2, SHAPE)
LOGITS, PROBS = RNG.normal(size=(*SHAPE, 3)), RNG.uniform(0.1, 0.9, SHAPE)


def categorical_log_prob(x):
    log_p = LOGITS - logsumexp(LOGITS, axis=-1, keepdims=True)
    return np.take_along_axis(log_p, x.astype(int)[..., None], -1)[..., 0]


# name: (arguments of the PPL's distribution, data in its support, log p of each entry by SciPy)
ENTRYWISE = {
    "Normal": ((LOC, SCALE), LOC + 1, lambda x: stats.norm.logpdf(x, LOC, SCALE)),
    "Laplace": ((LOC, SCALE), LOC + 1, lambda x: stats.laplace.logpdf(x, LOC, SCALE)),
    "StudentT": ((SCALE + 2, LOC, SCALE), LOC - 1,
                 lambda x: stats.t.logpdf(x, SCALE + 2, LOC, SCALE)),
    "Gamma": ((SCALE, PROBS), SCALE, lambda x: stats.gamma.logpdf(x, SCALE, scale=1 / PROBS)),
    "Beta": ((SCALE, SCALE + 1), PROBS, lambda x: stats.beta.logpdf(x, SCALE, SCALE + 1)),
    "LogNormal": ((LOC, SCALE), SCALE, lambda x: stats.lognorm.logpdf(x, SCALE, 0, np.exp(LOC))),
    "Poisson": ((SCALE,), np.round(3 * PROBS), lambda x: stats.poisson.logpmf(x, SCALE)),
    "Bernoulli": ((PROBS,), np.round(PROBS), lambda x: stats.bernoulli.logpmf(x, PROBS)),
    "Categorical": (({"logits": LOGITS},), np.round(2 * PROBS), categorical_log_prob),
}  # fmt: skip


def dist(backend):
    return importlib.import_module(f"{backend.name}.distributions")


def make(backend, name, *args):
    options = {}
    if args and isinstance(args[-1], dict):
        *args, options = args
    options = {key: real(backend, value) for key, value in options.items()}
    return getattr(dist(backend), name)(*(real(backend, a) for a in args), **options)


def unvalidated(backend):
    """NaN at missing entries is the rules' business; Pyro's own checks refuse it before them."""
    if backend.name == "numpyro":
        return nullcontext()
    return importlib.import_module("pyro").validation_enabled(False)


def log_observed(backend, d, x, mask=MASK):
    rules = module(backend, "likelihood")
    return np.asarray(rules.observed_log_prob(d, real(backend, x), backend.array(mask)))


def complete(backend, d, x, mask=MASK, seed=0):
    rules = module(backend, "likelihood")
    x, mask = real(backend, x), backend.array(np.array(mask))
    return np.asarray(seeded(backend, rules.complete, seed, d, x, mask))


JUNK = (np.nan, np.inf, -np.inf, 0.0)


def check_missing_values_do_not_matter(backend, d, x, mask=MASK, junk_values=JUNK):
    expected, drawn = log_observed(backend, d, x, mask), complete(backend, d, x, mask)
    for junk in junk_values:
        spoiled = np.where(mask, x, junk)
        np.testing.assert_array_equal(log_observed(backend, d, spoiled, mask), expected)
        np.testing.assert_array_equal(complete(backend, d, spoiled, mask), drawn)


@pytest.mark.parametrize("name", ENTRYWISE)
def test_entrywise_rows_are_scored_by_their_observed_entries(backend, name):
    args, x, log_p = ENTRYWISE[name]
    with double_precision(backend), unvalidated(backend):
        d = make(backend, name, *args).to_event(1)
        expected = np.where(MASK, log_p(x), 0).sum(-1)
        np.testing.assert_allclose(log_observed(backend, d, x), expected, rtol=1e-6)
        codes = {"junk_values": (0.0, 2.0)} if name == "Categorical" else {}
        check_missing_values_do_not_matter(backend, d, x, **codes)
        drawn = complete(backend, d, x)
        np.testing.assert_array_equal(drawn[MASK], x[MASK])
        assert np.isfinite(drawn).all()


@pytest.mark.parametrize("name", ENTRYWISE)
def test_whole_rows_are_scored_in_two_parts(backend, name):
    rules, (args, x, log_p) = module(backend, "likelihood"), ENTRYWISE[name]
    with double_precision(backend), unvalidated(backend):
        d = make(backend, name, *args)
        if name == "Bernoulli":
            d = dist(backend).Bernoulli(logits=real(backend, np.log(PROBS / (1 - PROBS))))
        d, x_there = d.to_event(1), real(backend, x)
        split = rules.fixed_log_prob(d) + rules.varying_log_prob(d, x_there)
        np.testing.assert_allclose(np.asarray(split), log_p(x).sum(-1), rtol=1e-6)
        assert (np.asarray(rules.fixed_log_prob(d)) != 0).all() == (name == "Bernoulli")


def test_images_keep_their_shape(backend):
    rng = np.random.default_rng(0)
    loc, mask = rng.normal(size=(3, 2, 4, 4)), rng.random((3, 2, 4, 4)) < 0.5
    with double_precision(backend):
        d = make(backend, "Normal", loc, np.ones(loc.shape)).to_event(3)
        expected = np.where(mask, stats.norm.logpdf(loc + 1, loc), 0).sum((1, 2, 3))
        np.testing.assert_allclose(log_observed(backend, d, loc + 1, mask), expected, rtol=1e-6)
        assert complete(backend, d, loc, mask).shape == loc.shape


def test_shared_parameters_draw_each_row_anew(backend):
    """A likelihood that was expanded from one entry still gives independent entries."""
    zero = make(backend, "Normal", np.zeros(()), np.ones(()))
    with unvalidated(backend):
        d = zero.expand(SHAPE).to_event(1)
        drawn = complete(backend, d, np.zeros(SHAPE), np.zeros(SHAPE, bool))
    assert len(np.unique(drawn)) == drawn.size


@pytest.mark.parametrize("name", ["Bernoulli", "Poisson", "Categorical", "Normal"])
def test_entrywise_draws_have_the_entries_law(backend, name):
    """Mean and second moment over 20,000 copies of the rows."""
    args, x, log_p = ENTRYWISE[name]
    copies = 20_000 // NUM_ROWS
    options = args[-1] if isinstance(args[-1], dict) else {}
    tiled = [np.tile(a, (copies, 1)) for a in args if not isinstance(a, dict)]
    tiled += [{k: np.tile(v, (copies, 1, 1)) for k, v in options.items()}] if options else []
    with double_precision(backend):
        d = make(backend, name, *tiled).to_event(1)
        drawn = complete(backend, d, np.tile(x, (copies, 1)), np.tile(MASK, (copies, 1)))
    drawn = drawn.reshape(copies, 1, *SHAPE)[..., ~MASK]
    values = np.arange(60) if name != "Normal" else np.linspace(-30, 30, 6_001)
    grid = np.where(values < {"Bernoulli": 2, "Categorical": 3}.get(name, 60), values, 0)
    mass = np.exp([log_p(np.full(SHAPE, v)) for v in grid]) * (grid == values)[:, None, None]
    mass = mass / mass.sum(0)
    moments = [np.tensordot(grid**p, mass, 1)[~MASK] for p in (1, 2)]
    scores = [z_scores(drawn**p, m, num_batches=1) for p, m in zip((1, 2), moments, strict=True)]
    assert np.abs(scores).max() < largest_score(np.size(scores))


# --- couplings between entries ---------------------------------------------------------------

FACTOR = RNG.normal(size=(3, NUM_FEATURES, NUM_FEATURES))
COVARIANCES = FACTOR @ FACTOR.swapaxes(1, 2) + 0.3 * np.eye(NUM_FEATURES)
MEANS, WEIGHTS = 2 * RNG.normal(size=(3, NUM_FEATURES)), np.array([0.5, 0.3, 0.2])
DIAGONALS = np.stack([np.diag(np.diag(c)) for c in COVARIANCES])
COPIES = 20_000


def normal_marginal(x, mask, mean, covariance):
    if not mask.any():
        return 0.0
    return stats.multivariate_normal.logpdf(x[mask], mean[mask], covariance[np.ix_(mask, mask)])


def normal_conditional(x, mask, mean, covariance):
    """Mean and second moment about the origin of p(x_m | x_o)."""
    m, o = ~mask, mask
    gain = covariance[np.ix_(m, o)] @ np.linalg.pinv(covariance[np.ix_(o, o)])
    loc = mean[m] + gain @ (x[o] - mean[o])
    spread = covariance[np.ix_(m, m)] - gain @ covariance[np.ix_(o, m)]
    return loc, spread + np.outer(loc, loc)


def coupled(backend, family, rows):
    """The family with `rows` equal rows, and its weights, means and covariances."""
    tile = lambda a: np.broadcast_to(a, (rows, *a.shape))  # noqa: E731
    if family == "MultivariateNormal":
        d = make(backend, family, tile(MEANS[0]), {"covariance_matrix": tile(COVARIANCES[0])})
        return d, np.ones(1), MEANS[:1], COVARIANCES[:1]
    if family == "mixture of factorised":
        scale = np.sqrt(np.diagonal(DIAGONALS, axis1=1, axis2=2))
        each, covariances = make(backend, "Normal", tile(MEANS), tile(scale)), DIAGONALS
        each = each.to_event(1)
    else:
        options = {"covariance_matrix": tile(COVARIANCES)}
        each = make(backend, "MultivariateNormal", tile(MEANS), options)
        covariances = COVARIANCES
    which = make(backend, "Categorical", {"probs": tile(WEIGHTS)})
    return dist(backend).MixtureSameFamily(which, each), WEIGHTS, MEANS, covariances


COUPLED = ["MultivariateNormal", "mixture of factorised", "mixture of MultivariateNormal"]


@pytest.mark.parametrize("family", COUPLED)
def test_coupled_rows_are_scored_by_their_marginal(backend, family):
    rng = np.random.default_rng(0)
    x = rng.normal(size=SHAPE)
    with double_precision(backend), unvalidated(backend):
        d, weights, means, covariances = coupled(backend, family, NUM_ROWS)
        parts = [
            [normal_marginal(*row, mean, cov) for row in zip(x, MASK, strict=True)]
            for mean, cov in zip(means, covariances, strict=True)
        ]
        expected = logsumexp(parts, axis=0, b=weights[:, None])
        np.testing.assert_allclose(log_observed(backend, d, x), expected, rtol=1e-6, atol=1e-9)
        check_missing_values_do_not_matter(backend, d, x)


@pytest.mark.parametrize("observed", [(0, 2), (1,), ()], ids=["two", "one", "none"])
@pytest.mark.parametrize("family", COUPLED)
def test_coupled_draws_follow_the_conditional(backend, family, observed):
    mask = np.isin(np.arange(NUM_FEATURES), observed)
    x = np.where(mask, MEANS[1] + 0.3, 0.0)
    with double_precision(backend):
        d, weights, means, covariances = coupled(backend, family, COPIES)
        tiled = np.broadcast_to(x, (COPIES, NUM_FEATURES))
        drawn = complete(backend, d, tiled, np.broadcast_to(mask, tiled.shape))
    np.testing.assert_array_equal(drawn[:, mask], tiled[:, mask])
    pairs = list(zip(means, covariances, strict=True))
    log_share = np.log(weights) + [normal_marginal(x, mask, *pair) for pair in pairs]
    share = np.exp(log_share - logsumexp(log_share))
    moments = [normal_conditional(x, mask, *pair) for pair in pairs]
    mean = sum(s * m for s, (m, _) in zip(share, moments, strict=True))
    second = sum(s * m for s, (_, m) in zip(share, moments, strict=True))
    missing = drawn[:, None, ~mask]
    i, j = np.triu_indices((~mask).sum())
    scores = np.append(
        z_scores(missing, mean, num_batches=1),
        z_scores(missing[..., i] * missing[..., j], second[i, j], num_batches=1),
    )
    assert np.abs(scores).max() < largest_score(len(scores))


def test_a_mixture_of_one_value_a_row(backend):
    """No event axis: x has the shape of the rows alone."""
    rng = np.random.default_rng(0)
    x, mask = rng.normal(size=5), np.array([True, False, True, True, False])
    weights, loc = rng.dirichlet(np.ones(3), 5), rng.normal(size=(5, 3))
    with double_precision(backend), unvalidated(backend):
        which = make(backend, "Categorical", {"probs": weights})
        each = make(backend, "Normal", loc, np.ones_like(loc))
        d = dist(backend).MixtureSameFamily(which, each)
        expected = logsumexp(stats.norm.logpdf(x[:, None], loc), axis=1, b=weights)
        found = log_observed(backend, d, x, mask)
        np.testing.assert_allclose(found, np.where(mask, expected, 0), atol=1e-6)
        drawn = complete(backend, d, x, mask)
    np.testing.assert_array_equal(drawn[mask], x[mask])
    assert (drawn[~mask] != x[~mask]).all()


def test_unknown_likelihood_names_the_remedy(backend):
    d = make(backend, "Dirichlet", np.ones((2, 3)))
    with pytest.raises(NotImplementedError, match="register_rule"):
        module(backend, "likelihood").find_rule(d)
