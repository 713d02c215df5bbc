"""log p(x_o) and log p(x_u | x_o) against closed form.

Scores beyond 5 of a normal law: false alarm 6e-7 a number; the seeds are fixed.
"""

import numpy as np
import pytest
from host_words import words
from oracles import Discrete, LinearGaussian
from scipy import stats

TRUTH = LinearGaussian.example()
NUM_ROWS = 40  # a block and a part of one
RNG = np.random.default_rng(0)
MASK = RNG.random((NUM_ROWS, 5)) < 0.6
MASK[:3] = [[1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0]]
ROWS = TRUTH.draw(RNG, NUM_ROWS).astype("float32")
X = np.where(MASK, ROWS, np.nan)
LOG_EVIDENCE = np.array(
    [TRUTH.log_evidence(x, m) if m.any() else 0.0 for x, m in zip(ROWS, MASK, strict=True)]
)


def estimate(backend, name, pair, x=X, *args, seed=0, **options):
    fn, x = getattr(backend.api, name), backend.array(x)
    args = [backend.array(a) if isinstance(a, np.ndarray) else a for a in args]
    if backend.name == "numpyro":
        from jax import random

        idata = fn(random.key(seed), *pair, x, *args, progress_bar=False, **options)
    else:
        import pyro

        pyro.set_rng_seed(seed)
        idata = fn(*pair, x, *args, progress_bar=False, **options)
    return idata["estimates"]


def wide(backend):
    return backend.programs.linear_gaussian(TRUTH, guide_shift=0.3, guide_stretch=1.6)


def safe(backend):
    """A guide that ignores x and is wider than the prior, so that all weights are bounded."""
    ppl = words(backend)
    model, _ = backend.programs.linear_gaussian(TRUTH)

    def guide(x):
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(0 * x[:, :2], 1.4).to_event(1))

    return model, guide


def scores_of(found, truth):
    """(estimate - truth) / error; where nothing is to be estimated, 0 if it is the truth."""
    difference = np.asarray(found["log_likelihood"]) - truth
    error = np.asarray(found["standard_error"])
    assert (difference[error == 0] == 0).all()
    return difference[error > 0] / error[error > 0]


@pytest.mark.exact
def test_log_likelihood_is_the_closed_form(backend):
    found = estimate(backend, "log_likelihood", safe(backend), num_particles=20_000)
    assert found["log_likelihood"].dims == ("row",)
    error = np.asarray(found["standard_error"])
    scores = scores_of(found, LOG_EVIDENCE)
    np.testing.assert_array_equal(error == 0, ~MASK.any(1))
    assert np.abs(scores).max() < 5
    assert scores.std() == pytest.approx(1, abs=0.4)
    assert (error < 0.2).all()
    assert (np.asarray(found["khat"]) < 0.7).mean() > 0.9


@pytest.mark.exact
def test_exact_guide_knows_the_evidence_from_one_particle(backend):
    complete = estimate(
        backend,
        "log_likelihood",
        backend.programs.linear_gaussian(TRUTH),
        ROWS,
        num_particles=(1, 2),
    )
    truth = [TRUTH.log_evidence(x, np.ones(5, bool)) for x in ROWS]
    for k in (1, 2):
        values = complete["log_likelihood"].sel(num_particles=k)
        np.testing.assert_allclose(values, truth, atol=2e-5)
    np.testing.assert_allclose(complete["ess"], 2, atol=1e-3)


def test_bounds_grow_with_the_number_of_particles(backend):
    found = estimate(backend, "log_likelihood", wide(backend), num_particles=(1, 5, 50, 2_000))
    bounds = np.asarray(found["log_likelihood"]).sum(1)
    errors = np.sqrt((np.asarray(found["standard_error"]) ** 2).sum(1))
    assert list(found["num_particles"]) == [1, 5, 50, 2_000]
    assert (np.diff(bounds) > 3 * np.hypot(errors[1:], errors[:-1])).all()


@pytest.mark.exact
def test_elbo_is_l_1(backend):
    """E log w in closed form: -KL(q || p(z | x)) below log p(x), for complete rows."""
    _, covariance = TRUTH.posterior
    found = estimate(backend, "log_likelihood", wide(backend), ROWS, num_particles=(1, 3_000))
    shift = np.full(2, 0.3)
    kl = 0.5 * (2 * 1.6**2 + shift @ np.linalg.solve(covariance, shift) - 2 - 2 * np.log(1.6**2))
    expected = np.array([TRUTH.log_evidence(x, np.ones(5, bool)) for x in ROWS]) - kl
    at_1 = found.sel(num_particles=1)
    scores = (np.asarray(at_1["log_likelihood"]) - expected) / np.asarray(at_1["standard_error"])
    assert np.abs(scores).max() < 5


def test_memory_and_company_do_not_change_the_numbers(backend):
    whole = estimate(backend, "log_likelihood", wide(backend), num_particles=60)
    small = estimate(backend, "log_likelihood", wide(backend), num_particles=60, chunk_size=70)
    np.testing.assert_allclose(
        small["log_likelihood"], whole["log_likelihood"], rtol=1e-5, atol=1e-5
    )
    other = estimate(backend, "log_likelihood", wide(backend), num_particles=60, seed=1)
    same = np.asarray(other["log_likelihood"]) == np.asarray(whole["log_likelihood"])
    np.testing.assert_array_equal(same, ~MASK.any(1))


@pytest.mark.exact
@pytest.mark.filterwarnings("ignore:The (model|guide) cannot be run on copies")
def test_programs_of_so_many_rows_and_no_others(backend):
    """A plate of 40 rows, and latents of a shape that is written down: no block of them runs."""
    ppl, model = words(backend), safe(backend)[0]
    loc = backend.array(np.zeros((NUM_ROWS, 2), "float32"))

    def guide(x):
        with ppl.plate("rows", NUM_ROWS):
            ppl.sample("z", ppl.dist.Normal(loc, 1.4).to_event(1))

    found = estimate(backend, "log_likelihood", (model, guide), num_particles=4_000)
    assert np.abs(scores_of(found, LOG_EVIDENCE)).max() < 5
    for name in ("importance_posterior", "kl_per_site"):
        assert estimate(backend, name, (model, guide), num_particles=20).sizes["row"] == NUM_ROWS


def test_conditional_is_the_difference_of_two_terms(backend):
    given = MASK & (np.arange(5) < 3)
    found = estimate(
        backend, "conditional_log_likelihood", safe(backend), X, given, num_particles=20_000
    )
    np.testing.assert_allclose(found["log_likelihood"], found["joint"] - found["given"], rtol=1e-6)
    alone = [TRUTH.log_evidence(x, g) if g.any() else 0.0 for x, g in zip(ROWS, given, strict=True)]
    scores = scores_of(found, LOG_EVIDENCE - alone)
    assert np.abs(scores).max() < 5
    assert scores.std() == pytest.approx(1, abs=0.4)


def test_nothing_observed_has_probability_one(backend):
    """log p of no entry is 0 exactly, also given others; a narrow guide does not matter."""
    pair = backend.programs.linear_gaussian(TRUTH, guide_shift=0.3, guide_stretch=0.3)
    found = estimate(backend, "log_likelihood", pair, num_particles=(1, 30))
    empty = ~MASK.any(1)
    assert (found["log_likelihood"].values[:, empty] == 0).all()
    assert (found["log_likelihood"].values[:, ~empty] != 0).all()
    assert (found["standard_error"].values[:, empty] == 0).all()
    given = MASK.copy()
    given[5:] = False
    found = estimate(backend, "conditional_log_likelihood", pair, X, given, num_particles=30)
    np.testing.assert_array_equal(found["log_likelihood"].values[:5], 0)
    assert (found["given"].values[5:] == 0).all()
    some = MASK[5:].any(1)
    np.testing.assert_array_equal(
        found["log_likelihood"].values[5:][some], found["joint"].values[5:][some]
    )
    one = estimate(backend, "log_likelihood", pair, X[:2], num_particles=np.int64(3))
    assert one["log_likelihood"].dims == ("row",)


def test_another_observed_site_counts_where_no_entry_does(backend):
    """z ~ N(0, 1), y ~ N(z, 1/4) observed, x ~ N(z, 1/4): log p(y), and log p(x | y).

    Five standard errors: false alarm 6e-7 a row.
    """
    ppl = words(backend)
    y = np.array([0.3, -1.2], "float32")
    x = np.array([[0.5], [1.0]], "float32")

    def model(x, y):
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0 * y, 1.0))
            ppl.sample("y", ppl.dist.Normal(z, 0.5), obs=y)
            ppl.sample("x", ppl.dist.Normal(z[..., None] + 0 * x, 0.5).to_event(1), obs=x)

    def guide(x, y):
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(0.6 * y, 1.0))

    nothing, y = np.zeros(x.shape, bool), backend.array(y)
    unseen = estimate(
        backend, "log_likelihood", (model, guide), np.full_like(x, np.nan), y, num_particles=9_000
    )
    both = stats.multivariate_normal([0, 0], [[1.25, 1], [1, 1.25]])
    log_y = stats.norm.logpdf(np.asarray(y), scale=np.sqrt(1.25))
    error = np.abs(unseen["log_likelihood"].values - log_y)
    assert (error < 5 * unseen["standard_error"].values).all()
    found = estimate(
        backend, "conditional_log_likelihood", (model, guide), x, nothing, y, num_particles=9_000
    )
    expected = both.logpdf(np.c_[x, np.asarray(y)]) - log_y
    error = np.abs(found["log_likelihood"].values - expected)
    assert (error < 5 * found["standard_error"].values).all()
    drawn = estimate(
        backend, "importance_posterior", (model, guide), np.full_like(x, np.nan), y,
        num_particles=500, num_samples=10,
    )  # fmt: skip
    assert (drawn["log_likelihood"].values != 0).all()


def test_discrete_latents_and_further_arguments(backend):
    """A model with a label per row, cut along with the rows; enumerated."""
    truth, ppl = Discrete.example(), words(backend)
    label = (np.arange(NUM_ROWS) % 2).astype("float32")

    def model(x, label):
        assert len(label) == len(x)
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(label, 1.0))
            ppl.sample("x", ppl.dist.Normal(z[..., None] + 0 * x, 0.5).to_event(1), obs=x)

    def guide(x, label):
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(0.5 * label, 1.5))

    found = estimate(backend, "log_likelihood", (model, guide), X, label, num_particles=4_000)
    expected = [
        LinearGaussian(np.ones((5, 1)), np.full(5, y), 0.5).log_evidence(x, m) if m.any() else 0.0
        for x, m, y in zip(ROWS, MASK, label, strict=True)
    ]
    trusted = np.asarray(found["khat"]) < 0.7
    assert trusted.sum() > 20
    assert np.abs(scores_of(found.isel(row=trusted), np.array(expected)[trusted])).max() < 5

    bits = np.array([[1, 0, np.nan, 1, np.nan]], "float32")
    observed = ~np.isnan(bits[0])
    evidence = (truth.prior * truth.likelihood(np.nan_to_num(bits))[:, 0, observed].prod(1)).sum()
    pair = backend.programs.discrete(truth)
    found = estimate(backend, "log_likelihood", pair, bits, num_particles=20_000)
    error = float(found["standard_error"][0])
    assert abs(float(found["log_likelihood"][0]) - np.log(evidence)) < 5 * error < 0.1


def test_several_latent_sites(backend):
    """z_1, and z_2 given z_1 in model and guide; the marginal of x is normal."""
    ppl = words(backend)

    def model(x):
        with ppl.plate("rows", len(x)):
            first = ppl.sample("first", ppl.dist.Normal(0 * x[:, 0], 1.0))
            second = ppl.sample("second", ppl.dist.Normal(0.8 * first, 0.6))
            ppl.sample("x", ppl.dist.Normal(second[..., None] + 0 * x, 0.5).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", len(x)):
            second = ppl.sample("second", ppl.dist.Normal(0.6 * x[:, 0], 0.8))
            ppl.sample("first", ppl.dist.Normal(0.7 * second, 0.8))

    found = estimate(backend, "log_likelihood", (model, guide), ROWS, num_particles=4_000)
    marginal = LinearGaussian(np.ones((5, 1)), np.zeros(5), 0.5)
    expected = [marginal.log_evidence(x, np.ones(5, bool)) for x in ROWS]
    scores = (np.asarray(found["log_likelihood"]) - expected) / found["standard_error"]
    trusted = np.asarray(found["khat"]) < 0.6
    assert trusted.sum() > 8
    assert np.abs(np.asarray(scores)[trusted]).max() < 5


def test_results_go_to_a_file(backend, tmp_path):
    pair = wide(backend)
    call = lambda *key: backend.api.log_likelihood(  # noqa: E731
        *key, *pair, backend.array(X), num_particles=3, progress_bar=False,
        coords={"row": [f"r{i}" for i in range(NUM_ROWS)]},
    )  # fmt: skip
    if backend.name == "numpyro":
        from jax import random

        idata = call(random.key(0))
    else:
        idata = call()
    idata.to_netcdf(tmp_path / "estimates.nc")
    assert list(idata["estimates"]["row"].values[:2]) == ["r0", "r1"]
    assert idata["estimates"].attrs["num_particles"] == 3
    np.testing.assert_array_equal(np.isnan(idata["observed_data"]["x"]), ~MASK)


def test_bad_arguments(backend):
    for numbers in (0, (), (5, 0), 2.5, None, "5", (1, 2.5), True):
        with pytest.raises(ValueError, match="num_particles must be an integer >= 1"):
            estimate(backend, "log_likelihood", wide(backend), num_particles=numbers)
    with pytest.raises(ValueError, match="chunk_size must be an integer >= 1, got 0"):
        estimate(backend, "log_likelihood", wide(backend), num_particles=2, chunk_size=0)
    for given in (np.ones((NUM_ROWS, 5), bool), MASK[:3], MASK.astype(float)):
        with pytest.raises(ValueError, match="marks observed entries alone, got"):
            estimate(backend, "conditional_log_likelihood", wide(backend), X, given)
