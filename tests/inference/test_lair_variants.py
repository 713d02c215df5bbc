"""LAIR's variants and the baselines against closed form.

With 8 independent chains, |mean - truth| < 6 standard errors of the chains' means fails by chance
with probability 5e-4 per number (Student's t with 7 degrees of freedom); the seeds are fixed.
"""

from functools import partial

import numpy as np
import pytest
from kernel_parts import chains, module, one_chain, real, seeded
from oracles import LinearGaussian, excess_of_counts
from pooled_draws import moment_score, pooled, z_scores
from scipy.special import logsumexp

TRUTH = LinearGaussian.example()
MASK = np.array([[1, 1, 0, 1, 0], [0, 1, 0, 1, 1]], bool)
X = TRUTH.draw(np.random.default_rng(0), 2).astype("float32")
NUM_CHAINS = 8


def run(backend, kernel, num_samples=1_000, num_warmup=20):
    x = backend.array(np.where(MASK, X, np.nan).astype("float32"))
    return backend.run(
        kernel, x, seed=1, num_warmup=num_warmup, num_samples=num_samples, num_chains=NUM_CHAINS
    )


def kernel_of(backend, name):
    api = backend.api
    pair = backend.programs.linear_gaussian(TRUTH, guide_shift=0.3, guide_stretch=1.6)
    if name == "prior":
        return api.PriorResamplingKernel(*pair, num_particles=2, num_prior=6)
    if name.startswith("historical"):
        over_time = {"pick": api.history.pick_over_time} if name.endswith("over time") else {}
        options = {"num_particles": 2, "num_past": 2, "history_size": 4, **over_time}
        return api.HistoricalLAIRKernel(*pair, **options)
    if name.startswith("several draws"):
        how = {"resample": api.resampling.local(3)} if name.endswith("local") else {}
        how |= {"log_denominator": api.weighting.log_own_component} if name.endswith("own") else {}
        return api.MultiDrawLAIRKernel(*pair, num_particles=2, num_draws=3, **how)
    if name in SCHEDULES:
        options = {**SCHEDULES[name], "power": api.weighting.poly(50)}
        return api.ScheduledLAIRKernel(*pair, num_particles=3, **options)
    options = {
        "own component": {"log_denominator": api.weighting.log_own_component},
        "systematic": {"resample": api.resampling.systematic},
        "stratified": {"resample": api.resampling.stratified},
        "residual": {"resample": api.resampling.residual},
        "independent": {"resample": api.resampling.independent},
        "truncated": {"transform": api.weighting.truncate},
    }[name]
    return api.LAIRKernel(*pair, num_particles=3, num_prior=1, **options)


SCHEDULES = {
    "flattened at first": {"num_prior": 1},
    "prior now and then": {"num_prior": 2, "replenish_every": 3},
}
SLOW = ("stratified", "residual", "truncated", "several draws, own")
VARIANTS = [
    "prior", "own component", "systematic", "independent", "historical",
    "historical, over time", "several draws", "several draws, local", *SCHEDULES,
    *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW),
]  # fmt: skip


@pytest.mark.exact
@pytest.mark.parametrize("name", VARIANTS)
def test_evidence_and_pooled_law(backend, name):
    """Whatever resamples and transforms: E[w] = p(x_o), and the pooled draws are exact."""
    mcmc = run(backend, kernel_of(backend, name))
    log_weight = backend.info(mcmc)["log_weight"].astype(float)
    per_chain = logsumexp(log_weight, axis=(1, 2)) - np.log(np.prod(log_weight.shape[1:3]))
    draws = backend.api.completed(pooled(backend, mcmc, 500))
    for row in range(2):
        ratio = np.exp(per_chain[:, row] - TRUTH.log_evidence(X[row], MASK[row]))
        assert abs(ratio.mean() - 1) < 6 * ratio.std(ddof=1) / NUM_CHAINS**0.5 + 1e-5
    assert moment_score(TRUTH, draws, X, MASK) < 6


def test_prior_resampling_forgets_and_needs_proposals(backend):
    pair = backend.programs.linear_gaussian(TRUTH)

    def error(num_prior):
        kernel = backend.api.PriorResamplingKernel(*pair, num_prior=num_prior)
        draws = backend.draws(run(backend, kernel, 1_000, 0))["x"][:, :, 0, 0]  # row 0
        mean, _ = TRUTH.missing_given_observed(X[0], MASK[0])
        return np.abs(draws[..., ~MASK[0]].mean((0, 1)) - mean).max()

    assert error(2) > 5 * error(200)
    with pytest.raises(ValueError, match="num_prior must be an integer >= 1, got 0"):
        backend.api.PriorResamplingKernel(*pair, num_prior=0)


@pytest.mark.exact
def test_marginal_draws_ignore_the_data(backend):
    kernel = backend.api.MarginalKernel(*backend.programs.linear_gaussian(TRUTH))
    draws = backend.draws(run(backend, kernel, 1_000, 0))["x"]
    assert (draws[..., MASK] == X[MASK]).all()
    for row in range(2):
        missing = draws[:, :, row][..., ~MASK[row]].astype(float)
        of_missing = np.ix_(~MASK[row], ~MASK[row])
        assert np.abs(z_scores(missing, TRUTH.bias[~MASK[row]])).max() < 6
        centred = missing - TRUTH.bias[~MASK[row]]
        products = centred[..., :, None] * centred[..., None, :]
        assert np.abs(z_scores(products, TRUTH.covariance[of_missing])).max() < 6


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda log_weight: log_weight[..., :3], r"shape \(8, 2, 20\).*returned shape \(8, 2, 3\)"),
        (lambda log_weight: np.nan * log_weight, "without NaN"),
    ],
)
def test_what_is_no_transform(backend, transform, message):
    mcmc = run(backend, kernel_of(backend, "own component"), 5, 0)
    with pytest.raises(ValueError, match=message):
        pooled(backend, mcmc, 4, transform=transform)


def test_settings_that_are_no_plain_functions_go_to_a_file(backend, tmp_path):
    pair = backend.programs.linear_gaussian(TRUTH)
    kernel = backend.api.LAIRKernel(
        *pair, num_particles=np.int64(2), transform=partial(lambda a, log_weight: log_weight, 3)
    )
    idata = backend.api.to_inference_data(run(backend, kernel, 3, 0))
    idata.to_netcdf(tmp_path / "run.nc")
    assert idata["posterior"].attrs["transform"].startswith("functools.partial(")


def test_settings_are_recorded(backend, tmp_path):
    mcmc = run(backend, kernel_of(backend, "truncated"), 3, 0)
    idata = backend.api.to_inference_data(mcmc)
    idata.to_netcdf(tmp_path / "run.nc")
    attrs = idata["posterior"].attrs
    assert (attrs["transform"], attrs["resample"]) == ("truncate", "multinomial")
    assert attrs["log_denominator"] == "log_mixture"


def test_smoothed_weights_are_those_that_are_pooled(backend):
    """A transform that lets one proposal through alone: every pooled draw is that proposal."""
    mcmc = run(backend, kernel_of(backend, "own component"), 50, 0)
    chosen = 17

    def only(log_weight):
        assert log_weight.shape == (NUM_CHAINS, 2, 200)  # chains, rows, pooled proposals
        return np.where(np.arange(200) == chosen, log_weight, -np.inf)

    proposals = np.asarray(mcmc.get_extra_fields(group_by_chain=True)["info"].proposals["z"])
    z = np.asarray(pooled(backend, mcmc, 5, transform=only)["posterior"]["z"])
    expected = proposals.reshape(NUM_CHAINS, 200, 2, 2)[:, None, chosen]
    np.testing.assert_array_equal(z, np.broadcast_to(expected, z.shape))


def test_schedules_by_hand(backend):
    """Weights of three proposals, two of the guide and one of the prior; float32."""
    scheduled = module(backend, "scheduled_lair")
    log_q = np.log([[0.2, 0.4], [0.6, 0.3], [0.1, 0.5]])[..., None]  # (P, K, 1)
    log_prior = np.log([[0.3], [0.7], [0.2]])  # (P, 1)
    mixture = [[(0.2 + 0.4 + 0.3) / 3], [(0.6 + 0.3 + 0.7) / 3], [(0.1 + 0.5 + 0.2) / 3]]
    alone = [[(0.2 + 0.4) / 2 * 2 / 3], [(0.6 + 0.3) / 2 * 2 / 3], [np.inf]]
    for replenish, expected in ((True, mixture), (False, alone)):
        arrays = [chains(backend, real(backend, value)) for value in (log_q, log_prior)]
        flag = backend.array(np.array(replenish))
        value = scheduled.log_scheduled_mixture(*arrays, 1, replenish=flag)
        np.testing.assert_allclose(np.exp(one_chain(backend, value)), expected, rtol=1e-5)


def test_prior_proposals_come_at_every_third_iteration(backend):
    log_weight = backend.info(run(backend, kernel_of(backend, "prior now and then"), 9, 0))[
        "log_weight"
    ]  # (chain, iteration, proposal, row)
    absent = (log_weight == -np.inf).all((0, 3))
    expected = np.zeros((9, 5), bool)
    expected[np.arange(9) % 3 != 0, 3:] = True
    np.testing.assert_array_equal(absent, expected)


@pytest.mark.exact
def test_flattened_weights_choose_the_ancestors(backend):
    """Share of particles that keep the heaviest proposal: softmax of power * log w, |t| < 6."""
    pair = backend.programs.linear_gaussian(TRUTH, guide_shift=0.3, guide_stretch=1.6)
    kernel = backend.api.ScheduledLAIRKernel(*pair, num_particles=3, power=lambda t: 0.3 + 0 * t)
    mcmc = run(backend, kernel, 1_000, 0)
    info = mcmc.get_extra_fields(group_by_chain=True)["info"]
    log_weight, proposals = np.asarray(info.log_weight, float), np.asarray(info.proposals["z"])
    heaviest = log_weight.argmax(2)[:, :, None]  # (chain, iteration, 1, row)
    best = np.take_along_axis(proposals, heaviest[..., None], 2)
    kept = (backend.draws(mcmc)["z"] == best).all(-1).mean(2)
    expected = np.exp(0.3 * log_weight - logsumexp(0.3 * log_weight, axis=2, keepdims=True)).max(2)
    assert np.abs(z_scores(kept - expected, np.zeros(2))).max() < 6
    full = np.exp(log_weight - logsumexp(log_weight, axis=2, keepdims=True)).max(2)
    assert np.abs(z_scores(kept - full, np.zeros(2))).max() > 6


def fed(backend, num_rows, size, numbers):
    """A history that starts with the first number and was offered the others, in every row."""
    history = module(backend, "history")
    first, *others = (np.full((num_rows, 1), float(number)) for number in numbers)
    always = chains(backend, backend.array(np.ones(num_rows, bool)))
    start = chains(backend, real(backend, first[None]))
    state = history.start_history(start, size, binary=False)
    for i, rows in enumerate(others):
        x = chains(backend, real(backend, rows))
        state = seeded(backend, history.offer, i + 1, state, x, always)
    return state


def test_history_keeps_every_iteration_with_equal_probability(backend):
    """A history of 3 fed 30 numbered imputations holds each with probability 3 / 31 (2,000 rows).

    False alarm of the chi-square test: 1e-6.
    """
    state = fed(backend, 2_000, 3, [0.0, *range(1, 31)])
    held = one_chain(backend, state.x).astype(int)[..., 0]
    counts = np.stack([np.bincount(of_slot, minlength=31) for of_slot in held])
    assert excess_of_counts(counts[:1, 1:], np.full((1, 30), counts[0, 1:].sum() / 30)) > 1e-6
    assert excess_of_counts(counts[1:2, 1:], np.full((1, 30), counts[1, 1:].sum() / 30)) > 1e-6


def test_past_entries_in_use_are_different_ones(backend):
    history = module(backend, "history")
    entries = np.arange(4.0)[:, None, None] * np.ones((1, 2, 1))
    state = history.start_history(chains(backend, real(backend, entries)), 4, binary=False)
    x_obs, mask = real(backend, np.full((2, 1), 9.0)), np.array([[False], [True]])
    seen = []
    for seed in range(20):
        past = seeded(backend, history.pick_at_random, seed, state, 3, x_obs, backend.array(mask))
        past = one_chain(backend, past)[..., 0]
        assert (past[:, 1] == 9).all()
        assert len(set(past[:, 0])) == 3
        seen += list(past[:, 0])
    assert set(seen) == {0, 1, 2, 3}


def test_past_entries_over_time_are_one_of_each_stretch(backend):
    """Of 6 entries that came in out of order: 3 picks are one of each third, all alike likely.

    False alarm of the chi-square test: 1e-6.
    """
    history, num_rows = module(backend, "history"), 3_000
    came_in = np.array([4.0, 0.0, 5.0, 2.0, 1.0, 3.0])
    entries = 10 * came_in[:, None, None] * np.ones((1, num_rows, 1))
    state = history.start_history(chains(backend, real(backend, entries)), 6, binary=False)
    time = chains(backend, real(backend, came_in[:, None] * np.ones((1, num_rows))))
    x_obs, mask = real(backend, np.full((num_rows, 1), 9.0)), np.zeros((num_rows, 1), bool)
    mask[0] = True
    given = (state._replace(time=time), 3, x_obs, backend.array(mask))
    past = one_chain(backend, seeded(backend, history.pick_over_time, 0, *given))[..., 0]
    assert (past[:, 0] == 9).all()
    assert (past[:, 1:] // 20 == np.arange(3)[:, None]).all()
    counts = np.bincount((past[:, 1:] // 10).astype(int).ravel(), minlength=6)[None]
    assert excess_of_counts(counts, np.full((1, 6), num_rows / 2)) > 1e-6


def test_stretches_are_equally_long(backend):
    pair = backend.programs.linear_gaussian(TRUTH)
    options = {"num_past": 2, "history_size": 3, "pick": backend.api.history.pick_over_time}
    with pytest.raises(ValueError, match="num_past=2 must divide history_size=3"):
        run(backend, backend.api.HistoricalLAIRKernel(*pair, **options), 2, 0)


def test_entries_know_when_they_came_in(backend):
    """A history that was fed the numbers 2, 3, ... holds with each entry its number."""
    state = fed(backend, 50, 4, range(1, 20))
    held, time = one_chain(backend, state.x)[..., 0], one_chain(backend, state.time)
    np.testing.assert_array_equal(time, held)
    assert len(np.unique(time)) > 10
