"""Linear-Gaussian VAE: every kernel's draws against the closed form.

One data row under four masks, each copied many times; rows are independent, so copies are
replicates, and the standard error is that of their means, however slowly a chain moves. False
alarm of each test of scores: 1e-5 over seeds (Bonferroni).
"""

from functools import cache

import numpy as np
import pytest
from kernel_parts import bind, module, mwg_state, one_chain, seeded
from oracles import LinearGaussian, largest_score, z_scores
from scipy.stats import norm

TRUTH = LinearGaussian.example()
ROW = TRUTH.draw(np.random.default_rng(3), 1)[0].astype(np.float32)
MASKS = {
    "some": np.array([True, False, True, False, False]),
    "most": np.array([True, True, True, False, True]),
    "none": np.zeros(5, bool),
    "all": np.ones(5, bool),
}
COPIES = 60
FEW = 30
GUIDES = {
    "exact": {},
    "shifted": {"guide_shift": 0.3, "guide_stretch": 1.3},
    "wide": {"guide_stretch": 2.0},
}
CASES = [
    ("PseudoGibbsKernel", "exact"),
    ("MWGKernel", "exact"),
    ("MWGKernel", "shifted"),
    ("MWGKernel", "wide"),
    ("ACMWGKernel", "exact"),
    ("ACMWGKernel", "shifted"),
    ("ACMWGKernel", "wide"),
]


def data(copies=COPIES):
    """The row under each mask, NaN where missing; copies of one mask are neighbours."""
    masks = np.repeat(np.stack(list(MASKS.values())), copies, 0)
    return np.where(masks, ROW, np.nan).astype(np.float32)


def kernel_of(backend, name, guide, **options):
    pair = backend.programs.linear_gaussian(TRUTH, **GUIDES[guide])
    return getattr(backend.api, name)(*pair, **options)


def of_mask(draws, name, copies=COPIES):
    """The replicates of one mask, (chain, draw, [particle,] row, ...) to (replicate, draw, ...)."""
    at = list(MASKS).index(name) * copies
    if draws.ndim == 5:  # a population's members are draws of one iteration
        draws = draws.reshape(len(draws), -1, *draws.shape[3:])
    rows = draws[:, :, at : at + copies].swapaxes(1, 2)
    return rows.reshape(-1, *rows.shape[2:])


def statistics(draws, mean, covariance):
    """Scores of mean, covariance and five quantiles of draws (replicate, draw, m)."""
    draws = draws.astype(float)
    centred, sd = draws - mean, np.sqrt(np.diag(covariance))
    i, j = np.triu_indices(len(mean))
    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    below = centred[..., None] <= sd[:, None] * norm.ppf(levels)
    return np.concatenate(
        [
            z_scores(centred / sd, np.zeros(len(mean)), 1),
            z_scores(centred[..., i] * centred[..., j], covariance[i, j], 1),
            z_scores(below.astype(float), np.broadcast_to(levels, below.shape[2:]), 1).ravel(),
        ]
    )


def scores_of(draws, sites=("some", "most", "none")):
    """Scores of x_m under each mask, and of z where all is observed."""
    found = {}
    for name in sites:
        missing = of_mask(draws["x"], name)[..., ~MASKS[name]]
        found[name] = statistics(missing, *TRUTH.missing_given_observed(ROW, MASKS[name]))
    gain, covariance = TRUTH.posterior
    z = of_mask(draws["z"], "all")
    found["all"] = statistics(z, gain @ (ROW - TRUTH.bias), covariance)
    return found


@pytest.mark.parametrize(("name", "guide"), CASES, ids=["-".join(case) for case in CASES])
def test_draws_follow_the_closed_form(backend, name, guide):
    kernel = kernel_of(backend, name, guide)
    mcmc = backend.run(kernel, backend.array(data()), num_warmup=60, num_samples=200, num_chains=2)
    scores = scores_of(backend.draws(mcmc))
    worst = {mask: float(np.abs(s).max()) for mask, s in scores.items()}
    num_scores = sum(len(s) for s in scores.values())
    assert max(worst.values()) < largest_score(num_scores), worst


def test_pseudo_gibbs_with_a_bad_guide_is_found_out(backend):
    """The negative control: the same statistics do notice a wrong law."""
    kernel = kernel_of(backend, "PseudoGibbsKernel", "shifted")
    mcmc = backend.run(kernel, backend.array(data()), num_warmup=60, num_samples=200, num_chains=2)
    assert np.abs(scores_of(backend.draws(mcmc))["some"]).max() > 20


def test_exact_guide_is_always_accepted(backend):
    kernel = kernel_of(backend, "MWGKernel", "exact")
    mcmc = backend.run(kernel, backend.array(data(5)), num_samples=50, num_chains=2)
    assert backend.info(mcmc)["acceptance_rate"].min() > 1 - 1e-4


def test_bad_guides_are_accepted_less_often(backend):
    def acceptance(guide):
        kernel = kernel_of(backend, "MWGKernel", guide)
        mcmc = backend.run(kernel, backend.array(data(20)), num_samples=60, num_chains=2)
        return backend.info(mcmc)["acceptance_rate"].mean()

    assert acceptance("shifted") < 0.9
    assert acceptance("wide") < 0.9


# --- LAIR ------------------------------------------------------------------------------------


@cache
def lair_run(backend, num_particles, guide="shifted", num_prior=1, num_samples=100):
    kernel = kernel_of(
        backend, "LAIRKernel", guide, num_particles=num_particles, num_prior=num_prior
    )
    return backend.run(
        kernel, backend.array(data(FEW)), num_warmup=20, num_samples=num_samples, num_chains=2
    )


def bias(backend, num_particles):
    """Error of E[x_m | x_o] in posterior standard deviations, and its standard error."""
    draws = of_mask(backend.draws(lair_run(backend, num_particles))["x"], "some", FEW)
    mean, covariance = TRUTH.missing_given_observed(ROW, MASKS["some"])
    scaled = (draws[..., ~MASKS["some"]] - mean) / np.sqrt(np.diag(covariance))
    of_replicates = scaled.mean(1)
    error = of_replicates.mean(0)
    entry = np.abs(error).argmax()
    return abs(error[entry]), of_replicates.std(0)[entry] / np.sqrt(len(of_replicates))


def test_lair_bias_vanishes_with_the_number_of_particles(backend):
    """K = 2, 8, 32: of order 1 / (K + R), so in the end four times more particles divide it by 4.

    The bounds of 5 standard errors leave a false alarm of 1e-6.
    """
    (two, error_2), (eight, error_8), (many, error_32) = (bias(backend, k) for k in (2, 8, 32))
    assert two - eight > 5 * np.hypot(error_2, error_8)
    assert eight - 2 * many > -5 * np.hypot(error_8, 2 * error_32)
    assert eight - many > 5 * np.hypot(error_8, error_32)
    assert many < 0.15


def test_lair_mean_weight_estimates_the_evidence(backend):
    """E[w] = p(x_o) whatever the particles: within 5 standard errors (false alarm 2e-6)."""
    log_weight = backend.info(lair_run(backend, 8))["log_weight"].astype(float)
    for name, mask in MASKS.items():
        replicates = of_mask(log_weight.swapaxes(2, 3), name, FEW)  # (replicate, draw, P)
        ratio = np.exp(replicates - TRUTH.log_evidence(ROW, mask)).mean(-1)
        error = ratio.mean(1).std() / np.sqrt(len(ratio))
        assert abs(ratio.mean() - 1) < 5 * error + 1e-4, name


def test_lair_weights_of_an_exact_guide_become_constant(backend):
    """Without prior proposals log w = log p(x_o) + O(K^-1/2), exactly where all is observed."""

    def spread(num_particles):
        run = lair_run(backend, num_particles, "exact", 0, 30)
        log_weight = backend.info(run)["log_weight"].swapaxes(2, 3)
        some, complete = (
            of_mask(log_weight, name, FEW) - TRUTH.log_evidence(ROW, MASKS[name])
            for name in ("some", "all")
        )
        assert np.abs(complete).max() < 1e-3
        return np.median(np.abs(some))

    few, many = spread(4), spread(64)
    assert many < few / 3
    assert many < 0.25


def test_pooled_draws_follow_the_closed_form(backend):
    """The final resampling of all iterations has no bias of order 1 / K left, even at K = 2."""
    mcmc = lair_run(backend, 2)
    pooled = seeded(backend, backend.api.pool, 5, mcmc, 40)
    values = backend.api.completed(pooled)  # (chain, draw, row, entry)
    draws = of_mask(values, "some", FEW)[..., ~MASKS["some"]]
    mean, covariance = TRUTH.missing_given_observed(ROW, MASKS["some"])
    scaled = (draws - mean) / np.sqrt(np.diag(covariance))
    scores = z_scores(scaled, np.zeros(len(mean)), num_batches=1)
    biased, _ = bias(backend, 2)
    assert np.abs(scaled.mean((0, 1))).max() < biased / 4
    assert np.abs(scores).max() < largest_score(len(scores))


# --- one step from exact draws ---------------------------------------------------------------


def test_one_mwg_step_keeps_exact_draws_exact(backend):
    """Start from p(z, x_m | x_o), move once with a bad guide: still that law."""
    rng, mask = np.random.default_rng(0), MASKS["some"]
    mean, covariance = TRUTH.missing_given_observed(ROW, mask)
    x = np.tile(ROW.astype(float), (20_000, 1))
    x[:, ~mask] = rng.multivariate_normal(mean, covariance, len(x))
    gain, z_covariance = TRUTH.posterior
    noise = rng.multivariate_normal(np.zeros(2), z_covariance, len(x))
    z = ((x - TRUTH.bias) @ gain.T + noise).astype(np.float32)
    pair = backend.programs.linear_gaussian(TRUTH, **GUIDES["shifted"])
    program = bind(backend, pair, x, np.broadcast_to(mask, x.shape))
    state = mwg_state(backend, program, x, {"z": backend.array(z)})
    new, _ = seeded(backend, module(backend, "mwg").step, 0, program, state)
    drawn = one_chain(backend, new.x)[:, None, ~mask].astype(float)
    centred = drawn - mean
    scores = np.concatenate(
        [
            z_scores(centred, np.zeros(3), num_batches=1),
            z_scores(centred**2, np.diag(covariance), num_batches=1),
        ]
    )
    assert np.abs(scores).max() < largest_score(len(scores))
