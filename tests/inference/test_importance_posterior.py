"""Importance resampling against closed form, tables and the grid.

Scores beyond 5 of a normal law: false alarm 6e-7 a number; the seeds are fixed.
"""

import numpy as np
import pytest
from host_words import words
from kernel_parts import both_backends
from oracles import Discrete, LinearGaussian, excess_of_counts
from seeded_calls import call

from ppl_vae.importance import pareto_smooth, self_normalised, transformed

TRUTH = LinearGaussian.example()
NUM_ROWS = 40  # a block and a part of one
RNG = np.random.default_rng(0)
MASK = RNG.random((NUM_ROWS, 5)) < 0.6
MASK[:3] = [[1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0]]
ROWS = TRUTH.draw(RNG, NUM_ROWS).astype("float32")
X = np.where(MASK, ROWS, np.nan)


def sample(backend, pair, x=X, *args, **options):
    return call(backend, "importance_posterior", pair, x, *args, progress_bar=False, **options)


def posterior(x, mask):
    """Mean and covariance of p(z | x_o) of one row."""
    weight = TRUTH.weight[mask]
    covariance = np.linalg.inv(np.eye(2) + weight.T @ weight / TRUTH.scale**2)
    return covariance @ weight.T @ (x - TRUTH.bias)[mask] / TRUTH.scale**2, covariance


def safe(backend):
    """A guide that ignores x and is wider than the prior, so that all weights are bounded."""
    ppl = words(backend)
    model, _ = backend.programs.linear_gaussian(TRUTH)

    def guide(x):
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(0 * x[:, :2], 1.4).to_event(1))

    return model, guide


@pytest.fixture(scope="module")
def found(backend):
    return sample(backend, safe(backend), num_particles=10_000, num_samples=400)


@pytest.mark.exact
def test_means_and_spreads_are_the_closed_form(found):
    """Of a self-normalised mean the error is about sd / sqrt(ess)."""
    estimates = found["estimates"]
    for row in range(NUM_ROWS):
        mean, covariance = posterior(ROWS[row], MASK[row])
        sd, at = np.diagonal(covariance) ** 0.5, estimates.isel(row=row)
        error = sd / float(at["ess"]) ** 0.5
        assert np.abs((at["z_mean"] - mean) / error).max() < 5
        assert np.abs((at["z_sd"] - sd) / error).max() < 5


@pytest.mark.exact
def test_draws_have_the_exact_moments(backend, found):
    """All rows together; a draw's error is that of the pool and its own."""
    z, ess = found["posterior"]["z"].values[0], found["estimates"]["ess"].values
    completed = backend.api.completed(found)[0].astype(float)
    np.testing.assert_array_equal(completed[:, MASK], np.broadcast_to(X[MASK], (400, MASK.sum())))
    scores = []
    for row in range(NUM_ROWS):
        factor = (1 / 400 + 1 / ess[row]) ** 0.5
        mean, covariance = posterior(ROWS[row], MASK[row])
        scores.extend((z[:, row].mean(0) - mean) / np.diagonal(covariance) ** 0.5 / factor)
        missing = ~MASK[row]
        mean, covariance = TRUTH.missing_given_observed(ROWS[row], MASK[row])
        residual = completed[:, row, missing] - mean
        scores.extend(residual.mean(0) / np.diagonal(covariance) ** 0.5 / factor)
        whitened = np.linalg.solve(np.linalg.cholesky(covariance), residual.T) if len(mean) else 0
        scores.append((np.mean(whitened**2) - 1) / (2**0.5 * factor) if len(mean) else 0)
    assert np.abs(scores).max() < 5
    assert np.std(scores) == pytest.approx(1, abs=0.3)


@pytest.mark.exact
def test_estimates_and_statistics(found):
    estimates, stats = found["estimates"], found["sample_stats"]
    truth = np.array([TRUTH.log_evidence(x, m) for x, m in zip(ROWS, MASK, strict=True) if m.any()])
    some = MASK.any(1)
    scores = (estimates["log_likelihood"][some] - truth) / estimates["standard_error"][some]
    assert np.abs(scores).max() < 5
    assert (estimates["log_likelihood"].values[~some] == 0).all()
    assert (estimates["standard_error"].values[~some] == 0).all()
    assert (estimates["ess"] < 9_990).all()  # of the weights, also where nothing is observed
    assert (estimates["khat"] < 0.7).all()
    z = found["posterior"]["z"].values.astype(float)
    log_q = -0.5 * (z**2).sum(-1) / 1.4**2 - np.log(2 * np.pi * 1.4**2)
    np.testing.assert_allclose(stats["lp"] - stats["log_weight"], log_q, atol=1e-3)
    row_0 = TRUTH.bias + z[0, :, 0] @ TRUTH.weight.T - X[0]
    lp = -0.5 * (row_0**2).sum(-1) / TRUTH.scale**2 - 0.5 * (z[0, :, 0] ** 2).sum(-1)
    lp -= 5 * np.log(TRUTH.scale) + 3.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(stats["lp"][0, :, 0], lp, rtol=1e-4, atol=1e-3)


def test_discrete_latents_have_the_law_of_the_table(backend):
    """60 copies of a row, so that the pools of weights are independent, too."""
    truth = Discrete.example()
    x = np.array([1, 0, np.nan, 1, np.nan], "float32")
    observed = ~np.isnan(x)
    idata = sample(
        backend, backend.programs.discrete(truth), np.tile(x, (60, 1)),
        num_particles=2_000, num_samples=40,
    )  # fmt: skip
    table = truth.joint_given_observed(np.nan_to_num(x), observed)
    z = idata["posterior"]["z"].values.ravel().astype(int)
    bits = backend.api.completed(idata).reshape(-1, 5)[:, ~observed].astype(int)
    counts = np.zeros_like(table)
    np.add.at(counts, (z, 2 * bits[:, 0] + bits[:, 1]), 1)
    assert excess_of_counts(counts.reshape(1, -1), len(z) * table.reshape(1, -1)) > 1e-4
    np.testing.assert_allclose(
        idata["estimates"]["z_mean"].mean(), table.sum(1) @ np.arange(8), atol=0.05
    )


def test_agrees_with_the_grid_on_two_latents(backend):
    """A bent posterior: mean and spread of all weights, of the draws and of the quadrature."""
    ppl = words(backend)

    def model(x):
        with ppl.plate("rows", len(x)):
            first = ppl.sample("first", ppl.dist.Normal(0 * x[:, 0], 1.0))
            second = ppl.sample("second", ppl.dist.Normal(0.5 * first**2, 0.7))
            loc = second[..., None] * 0.7 + 0 * x
            ppl.sample("x", ppl.dist.Normal(loc, 0.5).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", len(x)):
            second = ppl.sample("second", ppl.dist.Normal(x[:, 0], 1.2))
            ppl.sample("first", ppl.dist.Normal(0.0 * second, 1.3))

    x = np.array([[0.3, np.nan, -0.2], [1.5, 1.0, np.nan], [-1.0, np.nan, np.nan]])
    x = x.astype("float32")
    grid = call(backend, "grid_posterior", (model, guide), x, bounds=(-6, 6))
    density = np.exp(grid.log_posterior.values) * (12 / 201) ** 2
    points = np.meshgrid(grid.z_0, grid.z_1, indexing="ij")
    idata = sample(backend, (model, guide), x, num_particles=20_000, num_samples=2_000)
    ess = idata["estimates"]["ess"].values
    for name, at in zip(("first", "second"), points, strict=True):
        mean = (density * at).sum((1, 2))
        sd = (density * (at - mean[:, None, None]) ** 2).sum((1, 2)) ** 0.5
        draws = idata["posterior"][name].values[0]
        estimates = idata["estimates"]
        assert (np.abs(estimates[f"{name}_mean"] - mean) < 5 * sd * ess**-0.5).all()
        assert (np.abs(estimates[f"{name}_sd"] - sd) < 5 * sd * ess**-0.5).all()
        error = sd * (1 / 2_000 + 1 / ess) ** 0.5
        assert (np.abs(draws.mean(0) - mean) < 5 * error).all()
        assert (np.abs(draws.std(0) - sd) < 5 * error).all()


def peaked(backend):
    """Of all particles of a row but one the weight is zero to all digits."""
    ppl = words(backend)

    def model(x):
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0 * x[:, :2], 1.0).to_event(1))
            ppl.sample("x", ppl.dist.Normal(z, 1e-6).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(0 * x, 1.0).to_event(1))

    return model, guide


def test_one_particle_may_have_all_the_weight(backend):
    """More draws than weights above zero: sampling without replacement cannot do that."""
    x = np.array([[0.3, 0.1], [0.0, 2.0]], "float32")
    idata = sample(backend, peaked(backend), x, num_particles=50, num_samples=200)
    z, estimates = idata["posterior"]["z"].values, idata["estimates"]
    np.testing.assert_array_equal(z, np.broadcast_to(z[:, :1], z.shape))
    np.testing.assert_allclose(estimates["z_mean"], z[0, 0], rtol=1e-6)
    np.testing.assert_allclose(estimates["z_sd"], 0, atol=1e-6)
    np.testing.assert_allclose(estimates["ess"], 1)
    assert idata["posterior"]["x_missing"].shape == (1, 200, 0)


def test_transform_decides_what_is_drawn(backend):
    def only_the_seventh(log_weights):
        assert log_weights.shape[1] == 50
        assert log_weights.dtype == np.float64
        return np.where(np.arange(50) == 7, 0.0, -np.inf) + 0 * log_weights

    plain = sample(backend, safe(backend), num_particles=50, num_samples=30)
    picked = sample(
        backend, safe(backend), num_particles=50, num_samples=30, transform=only_the_seventh
    )
    z = picked["posterior"]["z"].values
    np.testing.assert_array_equal(z, np.broadcast_to(z[:, :1], z.shape))
    np.testing.assert_allclose(picked["estimates"]["z_mean"], z[0, 0], rtol=1e-6)
    for name in ("log_likelihood", "ess", "khat"):  # of the weights as they were
        np.testing.assert_array_equal(picked["estimates"][name], plain["estimates"][name])

    for transform in (pareto_smooth, backend.api.weighting.temper(0.5)):
        changed = sample(
            backend, safe(backend), num_particles=50, num_samples=30, transform=transform
        )
        assert (changed["estimates"]["z_mean"] != plain["estimates"]["z_mean"]).any()
        assert np.isfinite(changed["posterior"]["z"]).all()
    flat = changed["estimates"]["z_sd"].values[0] > plain["estimates"]["z_sd"].values[0]
    assert flat.all()  # tempered weights are closer to the guide, which is wider


def test_memory_does_not_change_the_numbers(backend):
    x, options = X[:33], {"num_particles": 300, "num_samples": 20}
    whole = sample(backend, safe(backend), x, **options)
    for chunk_size in (7, 70, 100_000):
        chunked = sample(backend, safe(backend), x, chunk_size=chunk_size, **options)
        for group, rtol in (("estimates", 1e-4), ("posterior", 1e-5), ("sample_stats", 1e-4)):
            for name, value in whole[group].data_vars.items():
                np.testing.assert_allclose(chunked[group][name], value, rtol=rtol, atol=1e-4)
    other = sample(backend, safe(backend), x, seed=1, **options)
    assert (other["posterior"]["z"] != whole["posterior"]["z"]).all()


def test_hidden_values_have_no_influence(backend):
    options = {"num_particles": 100, "num_samples": 10}
    whole = sample(backend, safe(backend), **options)
    other = sample(backend, safe(backend), np.where(MASK, ROWS, 1e6), mask=backend.array(MASK),
                   **options)  # fmt: skip
    for group in ("estimates", "posterior", "sample_stats"):
        assert whole[group].equals(other[group])
    all_seen = sample(backend, safe(backend), ROWS, mask=backend.array(MASK | True), **options)
    complete = sample(backend, safe(backend), ROWS, **options)
    for group in ("estimates", "posterior", "sample_stats"):
        assert all_seen[group].equals(complete[group])


def test_rows_have_their_arguments_and_layers_are_drawn_together(backend):
    """first ~ N(label, 1), second ~ N(first, 0.01): the layers of one draw stay together."""
    ppl = words(backend)
    label = np.arange(NUM_ROWS).astype("float32")

    def model(x, label):
        with ppl.plate("rows", len(x)):
            first = ppl.sample("first", ppl.dist.Normal(label, 1.0))
            second = ppl.sample("second", ppl.dist.Normal(first, 0.01))
            ppl.sample("x", ppl.dist.Normal(second[..., None] + 0 * x, 50.0).to_event(1), obs=x)

    def guide(x, label):
        with ppl.plate("rows", len(x)):
            second = ppl.sample("second", ppl.dist.Normal(label, 1.2))
            ppl.sample("first", ppl.dist.Normal(second, 0.01))

    idata = sample(backend, (model, guide), X, label, num_particles=200, num_samples=50)
    draws = idata["posterior"]
    assert draws["first"].shape == (1, 50, NUM_ROWS)
    assert np.abs(draws["first"] - draws["second"]).max() < 0.07
    assert np.abs(draws["first"].mean(("chain", "draw")) - label).max() < 2
    np.testing.assert_array_equal(idata["constant_data"]["arg_0"], label)


def test_twins_arrange_their_results_alike():
    layouts = []
    for backend in both_backends():
        idata = sample(backend, safe(backend), num_particles=20, num_samples=5)
        layouts.append({
            (group, str(name)): (value.dims, value.shape, value.dtype.kind)
            for group in ("estimates", "posterior", "sample_stats", "observed_data")
            for name, value in idata[group].variables.items()
        })  # fmt: skip
    assert layouts[0] == layouts[1]
    assert layouts[0]["posterior", "x_missing"][1] == (1, 5, (~MASK).sum())
    assert layouts[0]["posterior", "z"][1] == (1, 5, NUM_ROWS, 2)
    assert layouts[0]["estimates", "z_sd"][0] == ("row", "z_dim_0")


def test_bad_arguments(backend):
    for name in ("num_particles", "num_samples", "chunk_size"):
        for number in (0, 1.5):
            with pytest.raises(ValueError, match=f"{name} must be an integer >= 1, got"):
                sample(backend, safe(backend), **{name: number})
    for transform in (lambda w: w[:, :2], lambda w: w * np.nan):
        with pytest.raises(ValueError, match=r"log-weights of shape \(32, 9\) \(row, particle\)"):
            sample(backend, safe(backend), X[:32], num_particles=9, transform=transform)
    with pytest.raises(ValueError, match=r"coords\['row'\] must have 40 labels, got 2"):
        sample(backend, safe(backend), num_particles=9, coords={"row": ["a", "b"]})


def test_self_normalised_moments_by_hand():
    log_weights = np.array([[0.0, -np.inf], [np.log(3), -1e9], [-np.inf, -1e9 + np.log(4)]])
    values = np.array([[[0.0], [7.0]], [[4.0], [1.0]], [[9.0], [2.0]]])
    mean, sd = self_normalised(log_weights, values)
    np.testing.assert_allclose(mean[:, 0], [3, 1.8])
    np.testing.assert_allclose(sd[:, 0], [3**0.5, 0.4])
    assert np.isnan(self_normalised(np.full((2, 1), -np.inf), np.ones((2, 1)))[0]).all()
    assert transformed(None, log_weights, "") is log_weights
