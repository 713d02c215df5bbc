"""Tiny discrete VAE: every transition law is a table, so that exactness is a matter of rounding.

The tables are made of the kernels' own equations and of the program's own densities; `step` is
then held to the tables by counting (false alarm of each count: 1e-6 over seeds).
"""

import numpy as np
import pytest
from kernel_parts import (
    ac_mwg_state,
    bind,
    decoded,
    double_precision,
    module,
    mwg_state,
    one_chain,
    seeded,
)
from oracles import Discrete, excess_of_counts, largest_score, z_scores

X = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
MASKS = {
    "some observed": np.array([True, False, True, False, False]),
    "one missing": np.array([True, True, True, False, True]),
    "none observed": np.zeros(5, bool),
}
HISTORIES = {"one entry": [2], "three entries": [0, 5, 6], "all equal": [3, 3]}


class Tables:
    """The laws of one step over all z, z' and completions, each a float64 table."""

    def __init__(self, backend, truth, x=X, mask=MASKS["some observed"]):
        self.backend, self.truth = backend, truth
        self.rows = truth.completions(x, mask)
        self.posterior = truth.joint_given_observed(x, mask)  # (Z, N)
        shape = (len(truth.prior), len(truth.prior), len(self.rows))
        self.shape = shape
        z, z_new, row = (index.ravel() for index in np.indices(shape))
        with double_precision(backend):
            pair = backend.programs.discrete(truth)
            self.x = backend.array(self.rows[row])
            tiled = np.broadcast_to(mask, self.rows[row].shape)
            self.program = bind(backend, pair, self.rows[row], tiled)
            self.current, self.proposed = (
                decoded(backend, self.program, {"z": backend.array(at)}) for at in (z, z_new)
            )
            log_q = self.program.log_proposal(self.proposed.z, self.x)
            log_joint = module(backend, "likelihood").log_prob(self.current.likelihood, self.x)
            self.log_q, self.log_prior = log_q, self.proposed.log_prior
            self.guide = self.table(log_q)[0].T  # q(z | x), (N, Z)
            self.impute = self.table(log_joint - self.current.log_observed)[:, 0]  # (Z, N)

    def table(self, log_value):
        return np.exp(np.asarray(log_value)).reshape(self.shape)

    def accept(self, log_ratio):
        probability = module(self.backend, "metropolis").accept_probability(log_ratio)
        return np.asarray(probability).reshape(self.shape)

    def mwg(self):
        """P[(z, x_m), z'], shape (Z, N, Z)."""
        log_ratio = module(self.backend, "mwg").log_ratio
        with double_precision(self.backend):
            accept = self.accept(log_ratio(self.program, self.x, self.proposed, self.current))
        return with_rejections(self.guide[None] * accept.transpose(0, 2, 1))

    def ac_mwg(self, prior_probability):
        """P[(z, x~), z'], shape (Z, N, Z)."""
        ac_mwg, eps = module(self.backend, "ac_mwg"), prior_probability
        with double_precision(self.backend):
            ratio = ac_mwg.log_ratio(self.program, self.x, self.proposed, self.current, eps)
            log_q_eps = ac_mwg.log_mixture_proposal(self.log_q, self.log_prior, eps)
            moves = self.table(log_q_eps) * self.accept(ratio)
        return with_rejections(moves.transpose(0, 2, 1))


def with_rejections(moves):
    """Add to moves (Z, N, Z') what stays at z."""
    stays = 1 - moves.sum(-1)
    return moves + np.eye(len(moves))[:, None, :] * stays[..., None]


def deviation(law, z_law, impute):
    """How far one step takes p(z, x_m | x_o): z -> z' by `z_law`, then x_m' ~ p(x_m | z')."""
    z_after = np.einsum("zn,znw->w", law, z_law)
    return np.abs(z_after[:, None] * impute - law).max()


@pytest.fixture(scope="module")
def tables(backend):
    return Tables(backend, Discrete.example())


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_program_densities_are_the_enumerated_ones(backend, mask):
    truth = Discrete.example()
    tables = Tables(backend, truth, mask=mask)
    np.testing.assert_allclose(tables.guide, truth.guide(tables.rows), rtol=1e-9)
    likelihood = truth.likelihood(tables.rows)
    joint = likelihood.prod(-1)
    np.testing.assert_allclose(tables.impute, joint / joint.sum(1, keepdims=True), rtol=1e-9)
    observed = likelihood[:, 0][:, mask].prod(-1)
    log_observed = np.asarray(tables.current.log_observed).reshape(tables.shape)
    np.testing.assert_allclose(np.exp(log_observed)[:, 0, 0], observed, rtol=1e-9)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("seed", [0, 1])
def test_mwg_leaves_the_conditional_invariant(backend, mask, seed):
    tables = Tables(backend, Discrete.example(seed), mask=mask)
    assert deviation(tables.posterior, tables.mwg(), tables.impute) < 1e-6


@pytest.mark.parametrize("prior_probability", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
@pytest.mark.parametrize("seed", [0, 1])
def test_ac_mwg_leaves_the_conditional_invariant(backend, prior_probability, history, seed):
    tables = Tables(backend, Discrete.example(seed))
    z_law = tables.ac_mwg(prior_probability)[:, history].mean(1)
    assert np.abs(tables.posterior.sum(1) @ z_law - tables.posterior.sum(1)).max() < 1e-6
    np.testing.assert_allclose(z_law.sum(1), 1)


def test_pseudo_gibbs_is_biased_unless_the_guide_is_exact(backend, tables):
    def drift(tables):
        z_law = np.broadcast_to(tables.guide, (tables.shape[0], *tables.guide.shape))
        return deviation(tables.posterior, z_law, tables.impute)

    assert drift(tables) > 1e-3
    assert drift(Tables(backend, tables.truth.with_exact_guide())) < 1e-6


# --- the step functions, held to the tables --------------------------------------------------

REPLICATES = 3_000


def every_state(tables):
    """Indices (z, n) of all pairs of a latent and a completion, each many times over."""
    pairs = np.indices(tables.posterior.shape).reshape(2, -1)
    return np.repeat(pairs, REPLICATES, axis=1)


def counts_of(tables, z_new, x_new):
    """How often each (z', x_m') followed each (z, n), shape (Z N, Z N)."""
    missing = ~MASKS["some observed"]
    bits = 2 ** np.arange(missing.sum())[::-1]
    n_new = (x_new[:, missing] @ bits).astype(int)
    source = np.repeat(np.arange(tables.posterior.size), REPLICATES)
    counts = np.zeros((tables.posterior.size,) * 2)
    np.add.at(counts, (source, z_new.astype(int) * len(tables.rows) + n_new), 1)
    return counts


def expected_counts(tables, z_law):
    """REPLICATES * P[(z, n), (z', x_m')]."""
    joint = z_law[..., None] * tables.impute
    return REPLICATES * joint.reshape(tables.posterior.size, -1)


@pytest.mark.parametrize("kernel", ["mwg", "ac_mwg", "pseudo_gibbs"])
def test_a_step_moves_as_the_table_says(backend, tables, kernel):
    z, n = every_state(tables)
    x, mask = tables.rows[n], np.broadcast_to(MASKS["some observed"], (len(n), 5))
    program = bind(backend, backend.programs.discrete(tables.truth), x, mask)
    method, latents = module(backend, kernel), {"z": backend.array(z)}
    if kernel == "ac_mwg":
        # the current imputation says nothing of the step's law: it is the complement of the past
        x_now = np.where(mask, x, 1 - x)
        state = ac_mwg_state(backend, program, x_now, latents, x, history_size=3)
        new, _ = seeded(backend, method.step, 0, program, state, prior_probability=0.3)
        z_law = tables.ac_mwg(0.3)
    elif kernel == "mwg":
        state = mwg_state(backend, program, x, latents)
        new, _ = seeded(backend, method.step, 1, program, state)
        z_law = tables.mwg()
    else:
        state = method.PseudoGibbsState(mwg_state(backend, program, x, latents).x, latents)
        new, _ = seeded(backend, method.step, 2, program, state)
        z_law = np.broadcast_to(tables.guide, (tables.shape[0], *tables.guide.shape))
    z_new, x_new = one_chain(backend, new.z["z"]), one_chain(backend, new.x)
    counts = counts_of(tables, z_new, x_new)
    assert excess_of_counts(counts, expected_counts(tables, z_law)) > 1e-6
    np.testing.assert_array_equal(x_new[mask], x[mask])


# --- whole runs ------------------------------------------------------------------------------

KERNELS = {
    "MWG": ("MWGKernel", {}),
    "AC-MWG": ("ACMWGKernel", {}),
    "AC-MWG, one entry": ("ACMWGKernel", {"history_size": 1, "prior_probability": 0.1}),
}


@pytest.mark.parametrize(("name", "options"), KERNELS.values(), ids=KERNELS)
def test_a_long_run_draws_the_enumerated_law(backend, name, options):
    """64 cells, 400 independent chains (one a row): false alarm 1e-5."""
    truth, mask = Discrete.example(), MASKS["some observed"]
    x = np.where(mask, X, np.nan).astype(np.float32)
    kernel = getattr(backend.api, name)(*backend.programs.discrete(truth), **options)
    mcmc = backend.run(
        kernel, backend.array(np.tile(x, (400, 1))), num_warmup=100, num_samples=300, num_chains=1
    )
    draws = backend.draws(mcmc)
    bits = 2 ** np.arange(3)[::-1]
    cell = draws["z"].astype(int) * 8 + (draws["x"][..., ~mask] @ bits).astype(int)
    shares = np.stack([np.bincount(of_row, minlength=64) for of_row in cell[0].T]) / len(cell[0])
    law = truth.joint_given_observed(X, mask).ravel()
    rare = law < 2e-3
    shares = np.c_[shares[:, ~rare], shares[:, rare].sum(1)]
    scores = z_scores(shares[:, None], np.append(law[~rare], law[rare].sum()), num_batches=1)
    assert np.abs(scores).max() < largest_score(len(scores))
