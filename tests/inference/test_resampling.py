"""Resampling schemes and weight transforms, over many rows of the same weights.

With 20,000 rows, |frequency - probability| < 5 standard errors fails by chance once in 1.7 million
per number; all seeds are fixed.
"""

import importlib

import numpy as np
import pytest
from host_words import X, bernoulli_pair, words
from kernel_parts import chains, module, one_chain, seeded

NUM_ROWS = 20_000
WEIGHTS = np.array([0.31, 0.02, 0.0, 0.42, 0.25])
UNBIASED = ["multinomial", "systematic", "stratified", "residual"]


def ancestors(backend, scheme, num_draws, weights=WEIGHTS, num_rows=NUM_ROWS):
    """Draws of identical rows, (K, B)."""
    with np.errstate(divide="ignore"):
        log_weight = np.log(weights).astype(np.float32) + 30
    log_weight = chains(backend, backend.array(np.tile(log_weight[:, None], (1, num_rows))))
    resample = getattr(module(backend, "resampling"), scheme)
    return np.asarray(one_chain(backend, seeded(backend, resample, 0, log_weight, num_draws)))


@pytest.mark.parametrize("num_draws", [1, 4, 7])
@pytest.mark.parametrize("scheme", UNBIASED)
def test_every_draw_has_the_weights_as_probabilities(backend, scheme, num_draws):
    """Also the first and the last alone: whatever part of the draws is kept."""
    drawn = ancestors(backend, scheme, num_draws)
    assert drawn.shape == (num_draws, NUM_ROWS)
    for draw in drawn[[0, -1]]:
        frequency = np.bincount(draw, minlength=len(WEIGHTS)) / NUM_ROWS
        error = np.sqrt(WEIGHTS * (1 - WEIGHTS) / NUM_ROWS)
        assert (np.abs(frequency - WEIGHTS) <= 5 * error).all()


@pytest.mark.parametrize("scheme", UNBIASED)
def test_numbers_of_copies(backend, scheme):
    counts = (ancestors(backend, scheme, 7)[:, :, None] == np.arange(5)).sum(0)
    expected = 7 * WEIGHTS
    low, high = counts.min(0), counts.max(0)
    if scheme == "systematic":
        assert (low >= np.floor(expected)).all()
        assert (high <= np.ceil(expected)).all()
    if scheme == "residual":
        assert (low >= np.floor(expected)).all()
    if scheme != "multinomial":  # less variable than multinomial draws
        variance = 7 * WEIGHTS * (1 - WEIGHTS)
        assert (counts.var(0)[[0, 3]] < 0.8 * variance[[0, 3]]).all()


def test_local_draws_are_of_the_particles_own(backend):
    """Two particles with two proposals each; the fifth, the prior's, is never drawn."""

    def drawn(num_draws, num_particles=2):
        scheme = module(backend, "resampling").local(num_draws)
        log_weight = np.log(WEIGHTS + 1e-30).astype("float32")
        log_weight = np.tile(log_weight[:, None], (1, NUM_ROWS))
        log_weight = chains(backend, backend.array(log_weight))
        return one_chain(backend, seeded(backend, scheme, 0, log_weight, num_particles))

    first, second = np.asarray(drawn(2))
    assert set(np.unique(first)) == {0, 1}
    assert set(np.unique(second)) == {3}  # the other has no weight
    share = WEIGHTS[1] / WEIGHTS[:2].sum()
    assert abs(first.mean() - share) < 5 * np.sqrt(share * (1 - share) / NUM_ROWS)
    with pytest.raises(ValueError, match=r"2 particles with 3 proposals each.*num_draws=3"):
        drawn(3)
    with pytest.raises(ValueError, match="num_draws must be at least 1, got 0"):
        drawn(0)


def test_independent_draws_come_from_disjoint_groups(backend):
    drawn = ancestors(backend, "independent", 3, weights=WEIGHTS + 0.01)
    assert all(len(set(column)) == 3 for column in drawn.T[:2_000])
    assert (drawn.min(0) >= 0).all()
    whole = ancestors(backend, "independent", 1)
    frequency = np.bincount(whole[0], minlength=5) / NUM_ROWS
    assert (np.abs(frequency - WEIGHTS) <= 5 * np.sqrt(WEIGHTS * (1 - WEIGHTS) / NUM_ROWS)).all()
    with pytest.raises(ValueError, match="5 proposals cannot be dealt into 6 groups"):
        ancestors(backend, "independent", 6)


def of_log_weight(backend, scheme, log_weight, num_draws, num_rows=2_000):
    log_weight = np.tile(np.array(log_weight, "float32")[:, None], (1, num_rows))
    log_weight = chains(backend, backend.array(log_weight))
    return np.asarray(one_chain(backend, seeded(backend, scheme, 0, log_weight, num_draws)))


def test_groups_without_weight_draw_from_the_whole_row(backend):
    """Only proposals 1 and 4 have a weight; in four groups at least two are without."""
    resampling = module(backend, "resampling")
    log_weight = [-np.inf, 0.0, np.nan, -np.inf, np.log(3.0), -np.inf]
    drawn = of_log_weight(backend, resampling.independent, log_weight, 4)
    assert set(np.unique(drawn)) == {1, 4}
    first, second, third = of_log_weight(backend, resampling.local(2), log_weight, 3)
    assert set(np.unique(first)) == {1}
    assert set(np.unique(third)) == {4}
    assert set(np.unique(second)) == {1, 4}
    assert abs((second == 4).mean() - 0.75) < 5 * np.sqrt(0.75 * 0.25 / len(second))


def test_the_larger_groups_fall_to_any_draw(backend):
    """Three proposals in two groups: each is alone in its own once in three, and then drawn."""
    drawn = of_log_weight(
        backend, module(backend, "resampling").independent, [0.0, 0.0, -30.0], 2, NUM_ROWS
    )
    share = (drawn == 2).mean(1)
    assert (np.abs(share - 1 / 6) < 5 * np.sqrt(5 / 36 / NUM_ROWS)).all()


@pytest.mark.parametrize("scheme", [*UNBIASED, "independent"])
def test_infinite_weights_alone_are_drawn(backend, scheme):
    log_weight = [-np.inf, 0.0, np.inf, 2.0, np.inf, np.nan, -3.0, 0.0]
    resample = getattr(module(backend, "resampling"), scheme)
    drawn = of_log_weight(backend, resample, log_weight, 3)
    assert set(np.unique(drawn)) == {2, 4}
    assert abs((drawn[0] == 2).mean() - 0.5) < 5 * np.sqrt(0.25 / drawn.shape[1])


@pytest.mark.parametrize("scheme", [*UNBIASED, "independent"])
def test_rows_without_weight_get_some_ancestor(backend, scheme):
    drawn = ancestors(backend, scheme, 4, weights=np.zeros(5), num_rows=6)
    assert ((drawn >= 0) & (drawn < 5)).all()


@pytest.mark.parametrize("resample", ["systematic", None])
@pytest.mark.parametrize("name", ["LAIRKernel", "MultiDrawLAIRKernel"])
def test_a_scheme_is_a_function(backend, name, resample):
    pair = bernoulli_pair(words(backend))
    message = r"resample must be a function of .*log_weight, num_draws.*got (None|'systematic')"
    with pytest.raises(TypeError, match=message):
        getattr(backend.api, name)(*pair, resample=resample)


def test_local_draws_belong_to_a_number_of_draws(backend):
    """Two particles and two of the prior would have been cut into groups of two."""
    pair, local = bernoulli_pair(words(backend)), backend.api.resampling.local(2)
    with pytest.raises(ValueError, match=r"local\(2\) is for 2 draws.*kernel has 1.*num_draws=I"):
        backend.api.LAIRKernel(*pair, num_particles=2, num_prior=2, resample=local)
    with pytest.raises(ValueError, match=r"local\(2\) is for 2 draws.*kernel has 3"):
        backend.api.MultiDrawLAIRKernel(*pair, num_draws=3, resample=local)
    assert backend.api.MultiDrawLAIRKernel(*pair, num_draws=2, resample=local).num_draws == 2


def test_what_a_transform_makes_of_weights(backend):
    """Another shape is refused; NaN, as of 0 times minus infinity, is no weight."""
    pair = bernoulli_pair(words(backend))
    kernel = backend.api.LAIRKernel(*pair, transform=lambda log_weight: log_weight[..., :1])
    with pytest.raises(ValueError, match=r"shape that it gets.*5, 4\).*it returned.*5, 1\)"):
        backend.run(kernel, backend.array(X), num_samples=2)
    transformed = importlib.import_module(f"ppl_vae.inference.{backend.name}.lair")._transformed
    log_weight = backend.array(np.array([[0.5, -np.inf]]))
    changed = np.asarray(transformed(lambda w: w + 0 * w, log_weight))
    np.testing.assert_array_equal(changed, [[0.5, -np.inf]])


def test_truncation_and_tempering(backend):
    weighting = module(backend, "weighting")
    log_weight = chains(backend, backend.array(np.log([[1.0], [1.0], [1.0], [97.0]])))
    cut = np.exp(np.asarray(one_chain(backend, weighting.truncate(log_weight))))
    np.testing.assert_allclose(cut[:, 0], [1, 1, 1, 50], rtol=1e-5)  # mean 25, times 2
    flat = np.exp(np.asarray(one_chain(backend, weighting.temper(0.5)(log_weight))))
    np.testing.assert_allclose(flat[:, 0] ** 2, [1, 1, 1, 97], rtol=1e-5)
    with pytest.raises(ValueError, match=r"\(0, 1\], got 0"):
        weighting.temper(0)


def test_own_component_is_the_diagonal_and_the_prior(backend):
    rng = np.random.default_rng(0)
    log_q, log_prior = rng.normal(size=(5, 3, 2)), rng.normal(size=(5, 2))
    found = module(backend, "weighting").log_own_component(
        *(chains(backend, backend.array(a)) for a in (log_q, log_prior)), 2
    )
    expected = np.concatenate([log_q[[0, 1, 2], [0, 1, 2]], log_prior[3:]])
    np.testing.assert_allclose(np.asarray(one_chain(backend, found)), expected, rtol=1e-6)
