"""Guides that propose latents which the prior has not, where no likelihood is defined.

z ~ HalfNormal(1), x ~ N(0, z) of two entries; the guide is N(loc, 0.7), a fifth of it below 0.
"""

import numpy as np
import pytest
from host_words import clear_parameters, words
from kernel_parts import seeded
from objective_runs import losses
from scipy import stats

X = np.array([[0.4, np.nan], [-0.8, 1.1], [np.nan, np.nan]], "float32")
OUTSIDE = stats.norm.cdf(0, 0.6, 0.7)


def pair_of(ppl, *, trained=False):
    def model(x):
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z", ppl.dist.HalfNormal(1.0 + 0 * x[:, 0]))
            ppl.sample("x", ppl.dist.Normal(0 * x, z[:, None]).to_event(1), obs=x)

    def guide(x):
        loc = ppl.param("loc", 0 * x[0, 0] + 0.6) if trained else 0.6
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(loc + 0 * x[:, 0], 0.7))

    return model, guide


def log_evidence():
    """log p(x_o) of each row by quadrature over z > 0."""
    z = np.linspace(1e-4, 8, 200_001)
    rows = [row[~np.isnan(row)] for row in X]
    each = [np.prod(stats.norm.pdf(row[:, None], 0, z), 0) for row in rows]
    return np.log([np.trapezoid(stats.halfnorm.pdf(z) * density, z) for density in each])


def test_the_bound_counts_what_is_inside(backend):
    """Four standard errors of 40 seeds: 6e-5; the bias at K = 4,000 is a tenth of one."""
    objective = backend.api.IWAE(num_particles=4_000)
    values = -losses(backend, objective, pair_of(words(backend)), X, seeds=range(40))
    error = values.std(ddof=1) / len(values) ** 0.5
    assert abs(values.mean() - log_evidence().sum()) < 4 * error


@pytest.mark.parametrize("name", ["IWAE", "NormalisedIWAE", "DReG", "RWS", "Renyi", "CIWAE"])
def test_training_goes_on_where_particles_have_no_weight(backend, name):
    """One particle outside in 50 steps of 60 draws is certain; a gradient of it would be NaN."""
    clear_parameters(backend)
    options = {"alpha": 0.5} if name == "Renyi" else {"beta": 0.0} if name == "CIWAE" else {}
    objective = getattr(backend.api, name)(num_particles=20, **options)
    pair = pair_of(words(backend), trained=True)
    fitted = backend.fit(pair, X, objective=objective, num_steps=50, learning_rate=0.01)
    assert np.isfinite(np.asarray(fitted.losses)).all()


@pytest.mark.parametrize("name", ["PseudoGibbsKernel", "ClippedPseudoGibbsKernel"])
def test_pseudo_gibbs_stays_where_the_guide_leaves_the_prior(backend, name):
    """As often as it does, within four standard errors (6e-5), and says so by lp."""
    kernel = getattr(backend.api, name)(*pair_of(words(backend)))
    mcmc = backend.run(kernel, backend.array(X), num_samples=500, num_chains=4)  # from the start
    z, lp = backend.draws(mcmc)["z"], backend.info(mcmc)["lp"]
    left = np.isneginf(lp)
    assert (z > 0).all()
    assert np.isfinite(lp[~left]).all()
    assert abs(left.mean() - OUTSIDE) < 4 * (OUTSIDE * (1 - OUTSIDE) / left.size) ** 0.5
    stayed = (np.diff(z, axis=1) == 0) & (np.diff(backend.draws(mcmc)["x"], axis=1) == 0).all(-1)
    np.testing.assert_array_equal(stayed, left[:, 1:])


def test_a_population_without_any_weight_says_so(backend):
    kernel = backend.api.LAIRKernel(*pair_of(words(backend)), num_particles=1, num_prior=0)
    mcmc = backend.run(kernel, backend.array(X), num_samples=200, num_chains=4)
    info, z = backend.info(mcmc), backend.draws(mcmc)["z"]
    np.testing.assert_array_equal(info["diverging"], (z <= 0)[:, :, 0])
    assert np.isfinite(backend.draws(mcmc)["x"]).all()
    share = info["diverging"].mean()
    assert abs(share - OUTSIDE) < 4 * (OUTSIDE * (1 - OUTSIDE) / z.size) ** 0.5


def test_rows_without_any_weight_have_no_draws(backend):
    """A guide far below the prior's support."""
    ppl = words(backend)
    model, _ = pair_of(ppl)

    def guide(x):
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(0 * x[:, 0] - 100.0, 0.1))

    with pytest.warns(UserWarning, match="3 rows have no particle with a weight above zero"):
        found = seeded(
            backend, backend.api.importance_posterior, 0, model, guide, backend.array(X),
            num_particles=30, num_samples=5, progress_bar=False,
        )  # fmt: skip
    assert np.isnan(found["posterior"]["z"]).all()
    assert np.isneginf(found["estimates"]["log_likelihood"][:2]).all()  # the last shows nothing
