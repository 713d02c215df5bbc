"""Data missing not at random: kernels and missingness models against an enumerated posterior.

z on 8 points, x of 5 bits, and a mask that depends on all of x: p(z, x_m | x_o, M) is a table.
"""

import numpy as np
import pytest
from host_words import words
from kernel_parts import (
    bind,
    both_backends,
    chains,
    double_precision,
    module,
    one_chain,
    real,
    seeded,
)
from oracles import Discrete, excess_of_counts, largest_score
from scipy.special import logsumexp
from test_discrete_exact import MASKS, Tables, X
from test_pooling import pooled, z_scores

from ppl_vae.missingness import Logistic, Patterns, class_squares, halves, mar_logistic

TRUTH = Discrete.example()
MASK = MASKS["some observed"]
RNG = np.random.default_rng(7)
MECHANISM = Logistic(0.8 * RNG.normal(size=(5, 5)) + np.eye(5), RNG.normal(size=5))
ROWS = TRUTH.completions(X, MASK)
NUM_CHAINS = 8


def log_missing(rows=ROWS):
    """log p(M | x) by the mechanism's own numpy, (N,)."""
    return MECHANISM.log_prob(np.broadcast_to(MASK, rows.shape), rows)


def posterior():
    """p(z, x_m | x_o, M), (Z, N)."""
    joint = TRUTH.joint_given_observed(X, MASK) * np.exp(log_missing())
    return joint / joint.sum()


def log_evidence():
    """log p(x_o, M)."""
    joint = TRUTH.prior[:, None] * TRUTH.likelihood(ROWS).prod(-1)
    return float(np.log((joint * np.exp(log_missing())).sum()))


def missingness(backend):
    return backend.api.logistic_missingness(MECHANISM)


def cells(draws):
    """The number of each pair (z, x_m), shape of z."""
    bits = 2 ** np.arange(3)[::-1]
    return draws["z"].astype(int) * 8 + (draws["x"][..., ~MASK] @ bits).astype(int)


# --- the oracle can tell right from wrong -----------------------------------------------------


def test_ignoring_the_mask_or_drawing_x_anew_would_show():
    """What a sampler without p(M | x), or with a fresh x_m at the right z, would draw instead."""
    without = TRUTH.joint_given_observed(X, MASK)
    impute = without / without.sum(1, keepdims=True)
    fresh = posterior().sum(1, keepdims=True) * impute
    assert np.abs(posterior() - without).sum() > 0.3
    assert np.abs(posterior() - fresh).sum() > 0.3


# --- densities --------------------------------------------------------------------------------


def test_logistic_density_is_the_mechanism_s(backend):
    with double_precision(backend):
        pair = backend.programs.discrete(TRUTH)
        program = bind(backend, pair, ROWS, np.broadcast_to(MASK, ROWS.shape))
        log_prob = module(backend, "missingness").log_missingness
        value = log_prob(program, missingness(backend), chains(backend, real(backend, ROWS)))
        np.testing.assert_allclose(one_chain(backend, value), log_missing(), rtol=1e-10)


def test_pattern_density_is_the_mechanism_s(backend):
    mechanism = class_squares((2, 4), num_classes=3, size=2)
    masks = np.concatenate([mechanism.patterns, np.ones((1, 2, 4), bool)])
    x = np.random.default_rng(0).normal(size=(3, 2, 4))

    def classify(x):
        sums = x.reshape(len(x), -1).sum(1)
        weights = [sums**2, 1 + 0 * sums, 2 + 0 * sums]
        total = sum(weights)
        stack = backend.array if isinstance(x, np.ndarray) else None
        parts = [w / total for w in weights]
        if stack:
            return np.stack(parts, 1)
        return (parts[0][:, None] * real(backend, [[1.0, 0, 0]])
                + parts[1][:, None] * real(backend, [[0, 1.0, 0]])
                + parts[2][:, None] * real(backend, [[0, 0, 1.0]]))  # fmt: skip

    with double_precision(backend), np.errstate(divide="ignore"):
        program = bind(backend, backend.programs.discrete(TRUTH), x, masks)
        model = backend.api.pattern_missingness(mechanism, classify)
        log_prob = module(backend, "missingness").log_missingness
        value = one_chain(backend, log_prob(program, model, chains(backend, real(backend, x))))
        np.testing.assert_allclose(value, mechanism.log_prob(masks, x, classify(x)), rtol=1e-10)
    assert value[-1] == -np.inf  # no such pattern


def test_the_twins_agree_on_the_missingness():
    values = []
    for backend in both_backends():
        program = bind(
            backend, backend.programs.discrete(TRUTH), ROWS, np.broadcast_to(MASK, ROWS.shape)
        )
        log_prob = module(backend, "missingness").log_missingness
        x = chains(backend, real(backend, ROWS))
        values.append(one_chain(backend, log_prob(program, missingness(backend), x)))
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5)


# --- MWG-MNAR -----------------------------------------------------------------------------------


def test_mwg_leaves_the_posterior_invariant(backend):
    """z -> z' by MWG's table, then x_m -> x_m' by the kernel's own ratio; float64."""
    tables = Tables(backend, TRUTH)
    law = posterior()
    after_z = np.einsum("zn,znw->wn", law, tables.mwg())
    kernel = module(backend, "mnar_mwg")
    old, new = (index.ravel() for index in np.indices((8, 8)))
    with double_precision(backend):
        value = real(backend, log_missing())
        log_a = kernel.log_missing_ratio(value[new], value[old])
        accept = np.asarray(module(backend, "metropolis").accept_probability(log_a)).reshape(8, 8)
    moves = tables.impute[:, None] * accept  # (Z, old, new)
    moves = moves + np.eye(8) * (1 - moves.sum(-1, keepdims=True))
    after_x = np.einsum("zn,znm->zm", after_z, moves)
    assert np.abs(after_x - law).max() < 1e-6
    always = np.einsum("zn,zm->zm", after_z, tables.impute)
    assert np.abs(always - law).max() > 1e-2  # accepting every x_m is noticed


def test_a_step_keeps_the_law(backend):
    """Rows start from the exact posterior and are still there after a step of the kernel."""
    num_rows = 20_000
    start = np.random.default_rng(1).choice(64, num_rows, p=posterior().ravel())
    x, mask = ROWS[start % 8], np.broadcast_to(MASK, (num_rows, 5))
    program = bind(backend, backend.programs.discrete(TRUTH), x, mask)
    kernel, model = module(backend, "mnar_mwg"), missingness(backend)
    x = chains(backend, real(backend, x))
    z = chains(backend, {"z": backend.array(start // 8)})
    current = module(backend, "mwg").decode(program, z)
    log_prob = module(backend, "missingness").log_missingness
    state = kernel.MNARMWGState(x, current, log_prob(program, model, x))
    new, info = seeded(backend, kernel.step, 2, program, state, model)
    draws = {"z": one_chain(backend, new.z["z"]), "x": one_chain(backend, new.x)}
    counts = np.bincount(cells(draws), minlength=64)
    assert excess_of_counts(counts[None], num_rows * posterior().reshape(1, -1)) > 1e-6
    np.testing.assert_allclose(
        one_chain(backend, new.log_missing), log_missing(draws["x"]), rtol=1e-4
    )
    moved = (draws["x"] != ROWS[start % 8]).any(1)
    assert one_chain(backend, info.accepted_x)[moved].all()
    assert 0 < moved.mean() < 1


def shares_of_cells(draws):
    """Share of each pair in each chain, (chain, 64)."""
    number = cells(draws)
    return np.stack([np.bincount(c.ravel(), minlength=64) for c in number]) / number[0].size


@pytest.mark.exact
def test_mwg_draws_the_posterior(backend):
    """400 independent rows of one chain; false alarm 1e-5."""
    x = np.tile(np.where(MASK, X, np.nan).astype("float32"), (400, 1))
    kernel = backend.api.MNARMWGKernel(*backend.programs.discrete(TRUTH), missingness(backend))
    mcmc = backend.run(kernel, backend.array(x), num_warmup=400, num_samples=300, num_chains=1)
    draws = {name: value[0].swapaxes(0, 1) for name, value in backend.draws(mcmc).items()}
    shares, law = shares_of_cells(draws), posterior().ravel()
    rare = law < 2e-3
    shares = np.c_[shares[:, ~rare], shares[:, rare].sum(1)]
    law = np.append(law[~rare], law[rare].sum())
    scores = (shares.mean(0) - law) / (shares.std(0, ddof=1) / len(shares) ** 0.5)
    assert np.abs(scores).max() < largest_score(len(scores))


# --- LAIR ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lair(backend):
    kernel = backend.api.MNARLAIRKernel(
        *backend.programs.discrete(TRUTH), missingness(backend), num_particles=3, num_prior=1
    )
    x = np.tile(np.where(MASK, X, np.nan).astype("float32"), (2, 1))
    return backend.run(
        kernel, backend.array(x), seed=1, num_warmup=20, num_samples=4_000, num_chains=NUM_CHAINS
    )


@pytest.mark.exact
def test_lair_weights_estimate_the_evidence_of_data_and_mask(backend, lair):
    """Student's t, 7 degrees of freedom, |t| < 6: false alarm 5e-4."""
    log_weight = backend.info(lair)["log_weight"].astype(float)
    per_chain = logsumexp(log_weight, axis=(1, 2)) - np.log(np.prod(log_weight.shape[1:3]))
    ratio = np.exp(per_chain - log_evidence())
    assert (np.abs(ratio.mean(0) - 1) < 6 * ratio.std(0, ddof=1) / NUM_CHAINS**0.5).all()


@pytest.mark.exact
def test_pooled_lair_draws_the_joint_law_of_latents_and_missing_entries(backend, lair):
    """64 cells of 8 chains, |t| < 8: false alarm 6e-3 over seeds."""
    idata = pooled(backend, lair, 4_000)
    draws = {"x": backend.api.completed(idata), "z": np.asarray(idata["posterior"]["z"])}
    shares, law = shares_of_cells(draws), posterior().ravel()
    common = law > 5e-3
    assert np.abs(z_scores(shares[:, None, common], law[common])).max() < 8


# --- the programs that users bring ---------------------------------------------------------------


def test_own_program_and_further_arguments(backend):
    """A missingness model with a site of its own name, and an argument of the run."""
    ppl = words(backend)
    seen = []

    def model(x, level):
        return backend.programs.discrete(TRUTH)[0](x)

    def guide(x, level):
        return backend.programs.discrete(TRUTH)[1](x)

    def own(x, level, mask=None):
        seen.append(level)
        with ppl.plate("rows", len(x)):
            ppl.sample("m", ppl.dist.Bernoulli(logits=level - x).to_event(1), obs=1.0 * mask)

    x = backend.array(np.tile(np.where(MASK, X, np.nan).astype("float32"), (3, 1)))
    for name in ("MNARMWGKernel", "MNARLAIRKernel"):
        kernel = getattr(backend.api, name)(model, guide, own)
        mcmc = backend.run(kernel, x, 0.5, num_samples=3, num_chains=2)
        draws = np.asarray(backend.api.completed(backend.api.to_inference_data(mcmc)))
        assert (draws[..., MASK] == X[MASK]).all()
    assert set(seen) == {0.5}


def test_mechanisms_leave_the_models_arguments_alone(backend):
    """Labels of a conditional model, by place or by name, do not disturb a mechanism of x alone."""

    def model(x, label, scale=1.0):
        return backend.programs.discrete(TRUTH)[0](x)

    def guide(x, label, scale=1.0):
        return backend.programs.discrete(TRUTH)[1](x)

    x = backend.array(np.tile(np.where(MASK, X, np.nan).astype("float32"), (3, 1)))
    label = backend.array(np.zeros(3, "float32"))
    patterns = Patterns(np.stack([MASK, ~MASK]), np.array([[0.5, 0.5]]))
    for own in (missingness(backend), backend.api.pattern_missingness(patterns)):
        kernel = backend.api.MNARMWGKernel(model, guide, own)
        mcmc = backend.run(kernel, x, label, scale=2.0, num_samples=2, num_chains=1)
        assert (backend.draws(mcmc)["x"][..., MASK] == X[MASK]).all()


def test_impossible_masks_are_left_and_not_poisoned(backend):
    """Only ones can be lost: a start with zeros there leaves at the first possible proposal."""
    ppl = words(backend)

    def own(x, mask=None):
        with ppl.plate("rows", len(x)):
            ppl.sample("mask", ppl.dist.Bernoulli(1 - x).to_event(1), obs=1.0 * mask)

    x = np.tile(np.array([0, np.nan, 0, np.nan, np.nan], "float32"), (3, 1))
    kernel = backend.api.MNARMWGKernel(*backend.programs.discrete(TRUTH), own)
    draws = backend.draws(backend.run(kernel, backend.array(x), num_warmup=300, num_samples=5))
    assert (draws["x"][..., np.isnan(x[0])] == 1).all()


def test_masks_that_no_x_could_have_are_reported(backend):
    """An input of a MAR mechanism is never lost; here it is: nothing moves, and all is marked."""
    mechanism = mar_logistic(np.random.default_rng(0), np.random.default_rng(1).random((99, 5)))
    x = np.tile(np.where(np.isneginf(mechanism.bias), np.nan, X).astype("float32"), (3, 1))
    own = backend.api.logistic_missingness(mechanism)
    for name in ("MNARMWGKernel", "MNARLAIRKernel"):
        kernel = getattr(backend.api, name)(*backend.programs.discrete(TRUTH), own)
        info = backend.info(backend.run(kernel, backend.array(x), num_samples=5, num_chains=2))
        assert info["diverging"].all()
        if name == "MNARMWGKernel":
            assert not info["accepted_x"].any()
        else:
            assert (info["log_weight"] == -np.inf).all()


def bad_programs(ppl):
    def latent(x, mask=None):
        with ppl.plate("rows", len(x)):
            ppl.sample("mask", ppl.dist.Bernoulli(0.5 + 0 * x).to_event(1))

    def not_by_row(x, mask=None):
        ppl.sample("mask", ppl.dist.Bernoulli(0.5 + 0 * x).to_event(2), obs=1.0 * mask)

    def no_mask(x):
        return None

    def nothing(x, mask=None):
        return None

    return {
        "nothing": (nothing, ValueError, "missingness model samples nothing: let it observe"),
        "latent": (latent, ValueError, "'mask' of the missingness model is not observed"),
        "not by row": (
            not_by_row,
            ValueError,
            r"one density a row, batch shape \(3,\), got .*\(\[?\]?\)",
        ),
        "no mask": (no_mask, TypeError, "must have a parameter `mask`"),
        "no function": (3, TypeError, "must be a function of x and mask, got int"),
    }


@pytest.mark.parametrize("case", ["latent", "not by row", "no mask", "no function", "nothing"])
@pytest.mark.parametrize("name", ["MNARMWGKernel", "MNARLAIRKernel"])
def test_bad_missingness_models(backend, name, case):
    own, error, message = bad_programs(words(backend))[case]
    x = backend.array(np.tile(np.where(MASK, X, np.nan).astype("float32"), (3, 1)))
    kernel = getattr(backend.api, name)(*backend.programs.discrete(TRUTH), own)
    with pytest.raises(error, match=message):
        backend.run(kernel, x, num_samples=2, num_chains=1)


def test_patterns_of_several_classes_need_them(backend):
    with pytest.raises(ValueError, match="give the rows' class probabilities"):
        backend.api.pattern_missingness(class_squares((4, 4), 2, 2))
    backend.api.pattern_missingness(halves((4, 4)))
    assert isinstance(halves((4, 4)), Patterns)


def test_mar_mechanisms_change_nothing(backend):
    """p(M | x) of a MAR mechanism does not depend on x_m, so every x_m is accepted."""
    mechanism = mar_logistic(np.random.default_rng(0), np.random.default_rng(1).random((99, 5)))
    mask = ~np.isneginf(mechanism.bias)
    x = np.tile(np.where(mask, np.nan, X).astype("float32"), (3, 1))
    own = backend.api.logistic_missingness(mechanism)
    kernel = backend.api.MNARMWGKernel(*backend.programs.discrete(TRUTH), own)
    info = backend.info(backend.run(kernel, backend.array(x), num_samples=20))
    assert info["accepted_x"].all()
    assert not info["accepted"].all()
