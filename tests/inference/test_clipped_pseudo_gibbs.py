"""Clipping by hand, and a chain that runs away without it."""

import numpy as np
import pytest
from host_words import bernoulli_pair, words
from kernel_parts import chains, module, one_chain, real
from scipy.stats import poisson

from ppl_vae.inference_data import completed

NAN = np.nan


def test_bounds_and_clipping_by_hand(backend):
    clipped = module(backend, "clipped_pseudo_gibbs")
    x = np.array([[1.0, NAN, NAN], [3.0, 5.0, NAN], [NAN, 6.0, 1.0]])
    mask = ~np.isnan(x)
    x_obs, mask = real(backend, np.nan_to_num(x)), backend.array(mask)
    low, high = clipped.doubled_range(x_obs, mask)
    np.testing.assert_array_equal(low, [0, 4.5, -np.inf])
    np.testing.assert_array_equal(high, [4, 6.5, np.inf])

    drawn = np.array([[9.0, 7.0, 1e9], [3.0, 5.0, np.inf], [-2.0, 6.0, 1.0]])
    before = np.full((3, 3), 0.5)
    rows = (chains(backend, real(backend, value)) for value in (drawn, before))
    new, share, diverging = (
        one_chain(backend, value) for value in clipped.clip(*rows, low, high, mask)
    )
    np.testing.assert_array_equal(new, np.array([[9, 6.5, 1e9], [3, 5, 0.5], [0, 6, 1]], "float32"))
    np.testing.assert_allclose(share, [0.5, 0, 1])
    np.testing.assert_array_equal(diverging, [False, True, False])


def test_a_runaway_is_stopped_and_reported(backend):
    """Each imputation is 1.5 times the one before: 1.5^110 overflows float32's squares."""
    ppl = words(backend)

    def model(x):
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.Normal(0 * x[:, 0], 1.0))
            ppl.sample("x", ppl.dist.Normal(1.5 * z[:, None] + 0 * x, 0.1).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z", ppl.dist.Normal(x[:, 1], 0.1))

    x = backend.array(np.array([[0.0, NAN], [1.0, 2.0], [0.0, -2.0]], "float32"))
    run = lambda name: backend.run(  # noqa: E731
        getattr(backend.api, name)(model, guide), x, num_samples=300, num_chains=2
    )
    assert np.abs(backend.draws(run("PseudoGibbsKernel"))["x"][:, -1, 0, 1]).max() > 1e18
    mcmc = run("ClippedPseudoGibbsKernel")
    draws, info = backend.draws(mcmc)["x"], backend.info(mcmc)
    assert np.abs(draws[..., 0, 1]).max() == 4
    assert (info["clipped"][:, -50:, 0] == 1).mean() > 0.9
    assert (info["clipped"][..., 1:] == 0).all()

    own = backend.run(
        backend.api.ClippedPseudoGibbsKernel(model, guide, bounds=(-1.0, np.array([9.0, 1.5]))),
        x, num_samples=300, num_chains=2,
    )  # fmt: skip
    drawn = backend.draws(own)["x"][..., 0, 1]
    assert drawn.min() >= -1
    assert drawn.max() <= 1.5
    assert ((drawn == -1) | (drawn == 1.5)).mean() > 0.9
    with pytest.raises(ValueError, match=r"bounds must be \(low, high\) with low <= high"):
        backend.api.ClippedPseudoGibbsKernel(model, guide, bounds=(1.0, 0.0))


PAIR = r"bounds must be \(low, high\) with low <= high, each a number or an array"


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (1.0, PAIR + ".*got 1.0"),
        ((1.0,), PAIR),
        ((np.zeros(3), np.ones(2)), PAIR),
        ((None, 1.0), "bounds are NaN somewhere: use -inf"),
        ((NAN, 1.0), "bounds are NaN somewhere: use -inf"),
        ((0.0, np.array([NAN, 1.0])), "bounds are NaN somewhere: use -inf"),
        ((0.0, np.ones(5)), r"one row's shape \(3,\), got high of shape \(5,\)"),
        ((np.zeros((2, 3)), 1.0), r"one row's shape \(3,\), got low of shape \(2, 3\)"),
    ],
)
def test_bad_bounds(backend, bounds, message):
    pair = bernoulli_pair(words(backend))
    x = np.where(np.arange(3) == 1, NAN, np.ones((2, 3), "float32"))
    with pytest.raises(ValueError, match=message):
        backend.run(
            backend.api.ClippedPseudoGibbsKernel(*pair, bounds=bounds),
            backend.array(x.astype("float32")), num_samples=2, num_chains=2,
        )  # fmt: skip


RATE = 1.5


def poisson_pair(ppl):
    """Each missing entry is Poisson of rate 1.5, whatever the latent."""

    def model(x):
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.Normal(0.0 * x[:, 0], 1.0))
            ppl.sample("x", ppl.dist.Poisson(RATE + 0 * z[:, None] + 0.0 * x).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z", ppl.dist.Normal(0.0 * x[:, 0], 1.0))

    return model, guide


@pytest.mark.parametrize("dtype", ["int32", "float32"])
@pytest.mark.parametrize(
    ("bounds", "low", "high"),
    [
        ((0, np.inf), 0, None),  # infinity is no integer
        ((0.5, 2.5), 1, 2),
        (None, 0, 6),  # rows show 0 to 4, doubled -2 to 6
    ],
)
def test_counts_stay_counts(backend, dtype, bounds, low, high):
    """P(x = high) is P(X >= high), and likewise below; 4 standard errors, 1e-4 false alarms."""
    x = np.array([[0, 1], [1, 0], [4, 4], [0, 0]], dtype)
    mask = np.array([[True, False], [False, True], [True, True], [True, True]])
    kernel = backend.api.ClippedPseudoGibbsKernel(*poisson_pair(words(backend)), bounds=bounds)
    mcmc = backend.run(
        kernel, backend.array(np.where(mask, x, 0)), mask=backend.array(mask),
        num_samples=1_000, num_chains=4,
    )  # fmt: skip
    draws = np.asarray(backend.draws(mcmc)["x"])
    assert draws.dtype == dtype
    np.testing.assert_array_equal(draws[..., mask], np.broadcast_to(x[mask], (4, 1_000, 6)))
    drawn = draws[..., ~mask]
    assert (drawn == drawn.round()).all()
    completed_draws = completed(backend.api.to_inference_data(mcmc))
    np.testing.assert_array_equal(completed_draws, draws)
    for value in range(low, 8):
        share = poisson.pmf(value, RATE)
        if value == low:
            share = poisson.cdf(value, RATE)
        if value == high:
            share = poisson.sf(value - 1, RATE)
        if high is not None and value > high:
            share = 0.0
        error = (share * (1 - share) / drawn.size) ** 0.5
        assert abs((drawn == value).mean() - share) <= 4 * error


def test_bounds_without_an_integer_are_refused_for_counts(backend):
    kernel = backend.api.ClippedPseudoGibbsKernel(*poisson_pair(words(backend)), bounds=(0.2, 0.8))
    x = backend.array(np.array([[1.0, NAN]], "float32"))
    with pytest.raises(ValueError, match="bounds must have an integer between them, as site 'x'"):
        backend.run(kernel, x, num_samples=2, num_chains=2)
