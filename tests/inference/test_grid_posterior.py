"""Quadrature against closed form; midpoint errors of smooth densities are far below 1e-4."""

import warnings

import numpy as np
import pytest
from host_words import words
from oracles import Discrete, LinearGaussian
from scipy import stats

RNG = np.random.default_rng(0)
MASK = np.array([[1, 1, 0], [0, 1, 0], [1, 1, 1], [0, 0, 0]], bool)


def grid(backend, pair, x, **options):
    if backend.name == "numpyro":
        from jax import random

        return backend.api.grid_posterior(random.key(0), *pair, backend.array(x), **options)
    return backend.api.grid_posterior(*pair, backend.array(x), **options)


def truth_of(num_latents):
    rng = np.random.default_rng(0)
    return LinearGaussian(rng.normal(size=(3, num_latents)), rng.normal(size=3), 0.6)


def posterior(truth, x, mask):
    """Mean and covariance of p(z | x_o) of one row."""
    weight = truth.weight[mask]
    precision = np.eye(weight.shape[1]) + weight.T @ weight / truth.scale**2
    covariance = np.linalg.inv(precision)
    return covariance @ weight.T @ (x - truth.bias)[mask] / truth.scale**2, covariance


@pytest.mark.parametrize("num_latents", [1, 2])
def test_equal_to_the_closed_form(backend, num_latents):
    truth = truth_of(num_latents)
    x = truth.draw(np.random.default_rng(1), 4).astype("float32")
    pair = backend.programs.linear_gaussian(truth, guide_shift=0.2, guide_stretch=0.8)
    found = grid(backend, pair, np.where(MASK, x, np.nan), bounds=(-7, 7), num_points=151)
    axes = [found[f"z_{i}"].values for i in range(num_latents)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    for row in range(4):
        mean, covariance = posterior(truth, x[row], MASK[row])
        evidence = truth.log_evidence(x[row], MASK[row]) if MASK[row].any() else 0.0
        at = found.isel(row=row)
        assert float(at.log_evidence) == pytest.approx(evidence, abs=1e-4)
        np.testing.assert_allclose(at.posterior_mean, mean, atol=1e-4)
        expected = stats.multivariate_normal(mean, covariance).logpdf(points)
        likely = expected > -20
        np.testing.assert_allclose(
            at.log_posterior.values[likely], np.asarray(expected)[likely], atol=2e-3
        )


@pytest.mark.parametrize("num_latents", [1, 2])
def test_divergence_of_the_guide(backend, num_latents):
    """KL(q || p) of normals, for the complete row, where p(z | x) is known to the guide."""
    truth = truth_of(num_latents)
    x = truth.draw(np.random.default_rng(1), 2).astype("float32")
    pair = backend.programs.linear_gaussian(truth, guide_shift=0.2, guide_stretch=0.8)
    found = grid(backend, pair, x, bounds=(-7, 7), num_points=301)
    _, covariance = truth.posterior
    shift = np.full(num_latents, 0.2)
    expected = 0.5 * (
        num_latents * (0.8**2 - 1 - np.log(0.8**2)) + shift @ np.linalg.solve(covariance, shift)
    )
    np.testing.assert_allclose(found.kl_guide, expected, rtol=2e-3)
    exact = grid(backend, backend.programs.linear_gaussian(truth), x, bounds=(-7, 7))
    np.testing.assert_allclose(exact.kl_guide, 0, atol=1e-4)


def test_two_scalar_sites_and_chunks(backend):
    """Sites first and second given first make a two-dimensional grid."""
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

    x = np.array([[0.3, 1.0, -0.2], [2.0, 1.0, 1.5]], "float32")
    marginal = LinearGaussian(np.ones((3, 1)), np.zeros(3), 0.5)
    expected = [marginal.log_evidence(row, np.ones(3, bool)) for row in x]
    for chunk_size in (10, 4_096):
        found = grid(backend, (model, guide), x, num_points=81, chunk_size=chunk_size)
        np.testing.assert_allclose(found.log_evidence, expected, atol=1e-3)
        total = np.exp(found.log_posterior).sum(("z_0", "z_1")) * (10 / 81) ** 2
        np.testing.assert_allclose(total, 1, rtol=1e-4)


def test_what_is_no_grid(backend):
    pair = backend.programs.linear_gaussian(truth_of(1))
    for options, message in (
        ({"bounds": (1, 0)}, r"bounds must be \(low, high\), finite and low < high, got \(1, 0\)"),
        ({"bounds": (-np.inf, np.inf)}, "finite and low < high, got"),
        ({"bounds": 5}, "two numbers, got 5"),
        ({"num_points": 0}, "num_points must be an integer >= 1, got 0"),
        ({"num_points": 10.5}, "num_points must be an integer >= 1, got 10.5"),
        ({"chunk_size": None}, "chunk_size must be an integer >= 1, got None"),
    ):
        with pytest.raises(ValueError, match=message):
            grid(backend, pair, np.zeros((2, 3), "float32"), **options)


@pytest.mark.parametrize("dtype", ["int32", "bool", "float64"])
def test_the_grid_is_of_numbers_whatever_the_data_are(backend, dtype):
    ppl = words(backend)

    def model(x):
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0.0 * x[:, 0], 1.0))
            likelihood = ppl.dist.Bernoulli(logits=z[:, None] + 0.0 * x).to_event(1)
            ppl.sample("x", likelihood, obs=1 * x)

    def guide(x):
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(0.0 * x[:, 0], 1.0))

    pair = model, guide
    x = np.array([[1, 0, 1], [0, 0, 1]])
    mask = backend.array(x == x)
    found = [grid(backend, pair, x.astype(d), mask=mask) for d in (dtype, "float32")]
    np.testing.assert_allclose(found[0].log_evidence, found[1].log_evidence, rtol=1e-5)


def test_three_latents_are_too_many(backend):
    pair = backend.programs.linear_gaussian(truth_of(3))
    with pytest.raises(ValueError, match="one or two latents a row, the model has 3"):
        grid(backend, pair, np.zeros((2, 3), "float32"))


def test_discrete_latents_have_no_cells(backend):
    """In NumPyro a density at a value between the categories would be a number, and a wrong one."""
    x = np.array([[1, 0, np.nan, 1, 0]], "float32")
    with pytest.raises(ValueError, match=r"Latent sites \['z'\] of the model are discrete"):
        grid(backend, backend.programs.discrete(Discrete.example()), x)


def test_what_lies_outside_of_the_grid_is_said(backend):
    truth = truth_of(1)
    x = truth.draw(np.random.default_rng(1), 3).astype("float32")
    pair = backend.programs.linear_gaussian(truth)
    with pytest.warns(UserWarning, match=r"The posterior of \d rows, .* goes on outside") as caught:
        found = grid(backend, pair, x, bounds=(4, 6), num_points=50)
    assert any("The guide of 3 rows" in str(w.message) for w in caught)
    assert found.sizes["z_0"] == 50
    with pytest.warns(UserWarning, match=r"does not sum to 1 .* take more `num_points`"):
        grid(backend, pair, x, bounds=(-50, 50), num_points=20)


@pytest.mark.parametrize("bounds", [(0, 1), (-1, 2)])
def test_a_bounded_prior_ends_with_its_support(backend, bounds):
    """The posterior has mass up to the grid's ends, and none beyond: nothing to warn of."""
    ppl = words(backend)

    def model(x):
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z", ppl.dist.Uniform(0 * x[:, 0], 1 + 0 * x[:, 0]))
            ppl.sample("x", ppl.dist.Normal(z[..., None] + 0 * x, 2.0).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Beta(1 + 0 * x[:, 0], 1 + 0 * x[:, 0]))

    x = np.array([[0.3, 1.0], [0.5, 0.5]], "float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = grid(backend, (model, guide), x, bounds=bounds, num_points=150)
    axis = found.z_0.values
    density = np.exp(-0.5 * ((x[:, None] - axis[:, None]) ** 2).sum(-1) / 4)
    density = np.where((axis > 0) & (axis < 1), density / (2 * np.pi * 4), 0)
    evidence = np.log(density.sum(1) * (axis[1] - axis[0]))
    np.testing.assert_allclose(found.log_evidence, evidence, atol=1e-5)
