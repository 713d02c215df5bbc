"""Divergences layer by layer against closed form.

Scores beyond 5 of a normal law: false alarm 6e-7 a number; the seeds are fixed.
"""

import numpy as np
import pytest
from host_words import words
from kernel_parts import both_backends
from oracles import LinearGaussian
from seeded_calls import call

TRUTH = LinearGaussian.example()
RNG = np.random.default_rng(0)
ROWS = TRUTH.draw(RNG, 40).astype("float32")
MASK = RNG.random((40, 5)) < 0.6
X = np.where(MASK, ROWS, np.nan)


def divergences(backend, pair, x=X, *args, **options):
    options = {"num_particles": 500, **options}
    return call(backend, "kl_per_site", pair, x, *args, progress_bar=False, **options)["estimates"]


def layers(backend):
    """z2 ~ N(0, 1), z1 ~ N(z2 / 2, 0.8^2), x ~ N(z1, 0.5^2), y ~ N(z2, 1); guide bottom-up."""
    ppl = words(backend)

    def model(x, y):
        with ppl.plate("rows", len(x)):
            z2 = ppl.sample("z2", ppl.dist.Normal(0 * x[:, 0], 1.0))
            z1 = ppl.sample("z1", ppl.dist.Normal(0.5 * z2, 0.8))
            ppl.sample("y", ppl.dist.Normal(z2, 1.0), obs=y)
            ppl.sample("x", ppl.dist.Normal(z1[..., None] + 0 * x, 0.5).to_event(1), obs=x)

    def guide(x, y):
        with ppl.plate("rows", len(x)):
            z1 = ppl.sample("z1", ppl.dist.Normal(0.7 * x[:, 0], 0.6))
            ppl.sample("z2", ppl.dist.Normal(0.4 * z1, 0.9))

    return model, guide


@pytest.mark.exact
def test_one_site_is_the_closed_form(backend):
    """KL(N(m, C) || N(0, I)) of every complete row, C the guide's covariance."""
    pair = backend.programs.linear_gaussian(TRUTH, guide_shift=0.3, guide_stretch=1.6)
    found = divergences(backend, pair, ROWS)
    gain, covariance = TRUTH.posterior
    mean = (ROWS - TRUTH.bias) @ gain.T + 0.3
    c = covariance * 1.6**2
    expected = 0.5 * (np.trace(c) + (mean**2).sum(1) - 2 - np.linalg.slogdet(c)[1])
    scores = (found["kl"].sel(site="z") - expected) / found["kl_standard_error"].sel(site="z")
    assert np.abs(scores).max() < 5
    assert float(scores.std()) == pytest.approx(1, abs=0.4)


@pytest.mark.exact
def test_two_layers_are_the_closed_form(backend):
    rng = np.random.default_rng(0)
    y = rng.normal(size=40).astype("float32")
    found = divergences(backend, layers(backend), ROWS, y)
    m, t, u = 0.7 * ROWS[:, 0], 0.6, 0.9
    apart = 0.8**2 * (m**2 + t**2) + (0.5 * u) ** 2  # E (z1 - z2 / 2)^2
    kl_1 = -np.log(t) + np.log(0.8) - 0.5 + apart / (2 * 0.8**2)
    kl_2 = -np.log(u) - 0.5 + (0.16 * (m**2 + t**2) + u**2) / 2
    for site, expected in (("z1", kl_1), ("z2", kl_2)):
        at = found.sel(site=site)
        assert np.abs((at["kl"] - expected) / at["kl_standard_error"]).max() < 5
    squares = (ROWS - m[:, None]) ** 2
    of_x = -0.5 * (squares.sum(1) + 5 * t**2) / 0.25 - 5 * np.log(0.5) - 2.5 * np.log(2 * np.pi)
    of_y = -0.5 * ((y - 0.4 * m) ** 2 + 0.16 * t**2 + u**2) - 0.5 * np.log(2 * np.pi)
    error = found["expected_log_likelihood_standard_error"]
    assert np.abs((found["expected_log_likelihood"] - of_x - of_y) / error).max() < 5


def test_terms_add_up_to_the_bound(backend):
    """The ELBO is L_1 of `log_likelihood`, from the same draws; so is its error."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=40).astype("float32")
    found = divergences(backend, layers(backend), X, y, num_particles=40)
    total = found["expected_log_likelihood"] - found["kl"].sum("site")
    np.testing.assert_allclose(total, found["elbo"], rtol=1e-10)
    bound = call(backend, "log_likelihood", layers(backend), X, y, num_particles=(1, 40),
                 progress_bar=False)["estimates"].sel(num_particles=1)  # fmt: skip
    some = MASK.any(1)
    np.testing.assert_allclose(found["elbo"][some], bound["log_likelihood"][some], rtol=1e-4)
    np.testing.assert_allclose(
        found["elbo_standard_error"][some], bound["standard_error"][some], rtol=1e-3
    )


def test_memory_and_hidden_values_do_not_matter(backend):
    pair = backend.programs.linear_gaussian(TRUTH, guide_shift=0.3, guide_stretch=1.6)
    whole = divergences(backend, pair, num_particles=50)
    other = divergences(backend, pair, np.where(MASK, ROWS, 1e6), num_particles=50,
                        mask=backend.array(MASK), chunk_size=70)  # fmt: skip
    for name, value in whole.data_vars.items():
        np.testing.assert_allclose(other[name], value, rtol=1e-4, atol=1e-5)


def test_layout_and_bad_arguments():
    layouts = []
    for backend in both_backends():
        pair = backend.programs.linear_gaussian(TRUTH)
        found = divergences(backend, pair, num_particles=1)
        assert np.isinf(found["elbo_standard_error"]).all()
        layouts.append({k: (v.dims, v.shape, v.dtype.kind) for k, v in found.variables.items()})
        for name in ("num_particles", "chunk_size"):
            with pytest.raises(ValueError, match=f"{name} must be an integer >= 1, got 0"):
                divergences(backend, pair, **{name: 0})
    assert layouts[0] == layouts[1]
    assert layouts[0]["kl"][:2] == (("site", "row"), (1, 40))


def test_rows_have_noise_of_their_own(backend):
    """The guide does not look at x: rows with equal estimates would share their draws."""
    ppl = words(backend)
    model, _ = backend.programs.linear_gaussian(TRUTH)

    def guide(x):
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(0 * x[:, :2], 1.4).to_event(1))

    found = divergences(backend, (model, guide), num_particles=3)
    assert len(np.unique(found["kl"])) == len(X)
