"""Starts by gradient ascent, against the closed-form mode."""

import numpy as np
import pytest
from host_words import words
from kernel_parts import real
from oracles import Discrete, LinearGaussian

TRUTH = LinearGaussian.example()
MASK = np.array([[1, 1, 0, 1, 0], [0, 1, 0, 1, 1]], bool)
X = np.where(MASK, TRUTH.draw(np.random.default_rng(0), 2), np.nan).astype("float32")


def map_start(backend, pair, x=X, seed=0, **options):
    x = backend.array(x)
    if backend.name == "numpyro":
        from jax import random

        return backend.api.map_start(random.key(seed), *pair, x, **options)
    import pyro

    pyro.set_rng_seed(seed)
    return backend.api.map_start(*pair, x, **options)


def mode_of(row):
    """The mean of p(z | x_o), which is its mode."""
    observed = MASK[row]
    weight = TRUTH.weight[observed]
    precision = np.eye(weight.shape[1]) + weight.T @ weight / TRUTH.scale**2
    return np.linalg.solve(precision, weight.T @ (X[row] - TRUTH.bias)[observed]) / TRUTH.scale**2


def test_it_is_the_mode(backend):
    pair = backend.programs.linear_gaussian(TRUTH)
    handed = map_start(backend, pair, num_chains=3, num_steps=400)
    z, x = np.asarray(handed["z"]), np.asarray(handed["x"])
    assert (z.shape, x.shape) == ((3, 2, 2), (3, 2, 5))
    np.testing.assert_allclose(z, np.stack([[mode_of(0), mode_of(1)]] * 3), atol=2e-3)
    assert (x[:, MASK] == X[MASK]).all()
    assert (x[0, ~MASK] != x[1, ~MASK]).all()  # each chain draws its own missing entries


def test_more_particles_find_the_better_mode(backend):
    """The modes at z = -2 and, 22 nats higher, at z = 2 are far apart: one particle may miss it."""
    ppl = words(backend)
    slope = real(backend, [0.0, 0.5, 0.0])

    def model(x):
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.Normal(0 * x[:, 0], 1.0))[:, None]
            loc = 10 * (z**2 - 4) * (1 - 2 * slope) + z * slope
            ppl.sample("x", ppl.dist.Normal(loc, 0.3).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z", ppl.dist.Normal(0 * x[:, 0], 1.0))

    x = np.tile(np.array([0.0, 1.0, np.nan], "float32"), (40, 1))
    one, many = (
        np.asarray(map_start(backend, (model, guide), x, num_particles=n)["z"]).ravel()
        for n in (1, 12)
    )
    assert 0.2 < (one > 0).mean() < 0.8
    assert (many > 0).all()
    np.testing.assert_allclose(many, 2.0, atol=0.05)


def test_constrained_latents_stay_in_their_support(backend):
    ppl = words(backend)

    def model(x):
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.Uniform(0 * x[:, 0], 1.0))
            ppl.sample("x", ppl.dist.Normal(3 * z[:, None] + 0 * x, 0.5).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z", ppl.dist.Beta(1 + 0 * x[:, 0], 1.0))

    x = np.array([[1.2, np.nan], [9.0, np.nan], [-9.0, np.nan]], "float32")
    handed = map_start(backend, (model, guide), x, num_steps=300)
    z = np.asarray(handed["z"]).ravel()
    np.testing.assert_allclose(z, [0.4, 1, 0], atol=0.02)
    assert ((z >= 0) & (z <= 1)).all()


def test_chains_go_on_from_it(backend):
    pair = backend.programs.linear_gaussian(TRUTH)
    handed = map_start(backend, pair, num_chains=2, num_steps=5)
    for name in ("MWGKernel", "LAIRKernel"):
        mcmc = backend.run(
            getattr(backend.api, name)(*pair), backend.array(X),
            num_samples=2, num_chains=2, init_params=handed,
        )  # fmt: skip
        attrs = backend.api.to_inference_data(mcmc)["posterior"].attrs
        assert attrs["start"] == "map_start, 5 iterations"


def test_what_cannot_be_climbed(backend):
    x = np.array([[1, 0, np.nan, 1, 0]], "float32")
    with pytest.raises(ValueError, match=r"Latent sites \['z'\] of the model are discrete"):
        map_start(backend, backend.programs.discrete(Discrete.example()), x)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"num_particles": 0}, "num_particles must be an integer >= 1, got 0"),
        ({"num_steps": 2.5}, "num_steps must be an integer >= 1, got 2.5"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0 and finite, got -1.0"),
        ({"learning_rate": np.nan}, "learning_rate must be above 0 and finite, got nan"),
    ],
)
def test_numbers_out_of_range(backend, option, message):
    with pytest.raises(ValueError, match=message):
        map_start(backend, backend.programs.linear_gaussian(TRUTH), **option)


def test_bad_data_are_refused(backend):
    """What the kernels refuse would otherwise become starts that are NaN, or of another shape."""
    pair = backend.programs.linear_gaussian(TRUTH)
    for x, mask, error, message in (
        (X, np.ones_like(MASK), ValueError, "x is nan at row 0, feature 2, which is observed"),
        (np.where(MASK, np.inf, X), None, ValueError, "x is inf at row 0"),
        (X, MASK[0], ValueError, "the mask must have the shape of x"),
        (X, MASK.astype(int), TypeError, "the mask of x must be bool"),
        (X[:0], None, ValueError, "zero rows"),
    ):
        options = {} if mask is None else {"mask": backend.array(mask)}
        with pytest.raises(error, match=message):
            map_start(backend, pair, x, num_steps=2, **options)
    with pytest.raises(ValueError, match="no observed site 'y'"):
        map_start(backend, pair, site="y", num_steps=2)
