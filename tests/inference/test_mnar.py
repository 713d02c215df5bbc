"""Data missing not at random: kernels and missingness models against an enumerated posterior.

z on 8 points, x of 5 bits, and a mask that depends on all of x: p(z, x_m | x_o, M) is a table.
"""

import numpy as np
import pytest
from kernel_parts import (
    bind,
    chains,
    decoded,
    double_precision,
    module,
    one_chain,
    real,
    seeded,
)
from oracles import Discrete, excess_of_counts, largest_score
from pooled_draws import pooled, z_scores
from scipy.special import logsumexp
from test_discrete_exact import MASKS, Tables, X

from ppl_vae.missingness import Logistic

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
    current = decoded(backend, program, z)
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
