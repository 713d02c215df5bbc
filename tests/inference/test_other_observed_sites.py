"""A second observed site, and a `factor`: part of what is conditioned on, not of the prior.

z ~ N(0, 1), y ~ N(2 z, 1), a factor 0.5 z, and x ~ N(w z, 0.7^2) of three entries. The posterior is
normal in closed form; log p(x_o, y) follows by quadrature.
"""

import numpy as np
import pytest
from host_words import FILLED, bernoulli_pair, words
from kernel_parts import double_precision, real, seeded
from scipy import stats

W, SCALE = np.array([1.0, -0.5, 0.8]), 0.7
X = np.array([[np.nan, 0.3, np.nan], [0.5, np.nan, -0.2], [np.nan, np.nan, np.nan]])
Y = np.array([1.5, 0.2, 2.0])
GRID = np.linspace(-8, 8, 4_001)


def programs(backend):
    ppl = words(backend)

    def model(x, y):
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0 * x[:, 0], 1.0))
            ppl.sample("y", ppl.dist.Normal(2 * z, 1.0), obs=y)
            ppl.factor("half", 0.5 * z)
            loc = z[:, None] * real(backend, W)
            ppl.sample("x", ppl.dist.Normal(loc, SCALE).to_event(1), obs=x)

    def guide(x, y):
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(0.3 * x[:, 0], 1.0))

    return model, guide


def log_likelihood_at(z):
    """log p(x_o, y | z) with the factor, (rows, points)."""
    log_p = stats.norm.logpdf(Y[:, None], 2 * z) + 0.5 * z
    each = stats.norm.logpdf(X[:, :, None], W[:, None] * z, SCALE)
    return log_p + np.where(np.isnan(X)[:, :, None], 0.0, each).sum(1)


LOG_JOINT = log_likelihood_at(GRID) + stats.norm.logpdf(GRID)
LOG_EVIDENCE = np.log(np.exp(LOG_JOINT).sum(1) * (GRID[1] - GRID[0]))
MEAN = (np.exp(LOG_JOINT - LOG_EVIDENCE[:, None]) * GRID).sum(1) * (GRID[1] - GRID[0])

KERNELS = {
    "mwg": ("MWGKernel", {}),
    "ac-mwg": ("ACMWGKernel", {"prior_probability": 0.5}),
    "hmc": ("HMCRefreshKernel", {}),
    "lair": ("LAIRKernel", {"num_particles": 6, "num_prior": 6}),
    "stratified": ("LAIRKernel", {"num_particles": 6, "num_prior": 6, "own": True}),
    "many draws": ("MultiDrawLAIRKernel", {"num_particles": 3, "num_prior": 3}),
    "history": ("HistoricalLAIRKernel", {"num_particles": 3, "num_prior": 3}),
    "schedule": ("ScheduledLAIRKernel", {"num_particles": 3, "num_prior": 3}),
    "prior": ("PriorResamplingKernel", {"num_prior": 12}),
}


def kernel_of(backend, name, pair):
    kernel, options = KERNELS[name]
    options = dict(options)
    if options.pop("own", False):
        options["log_denominator"] = backend.api.weighting.log_own_component
    if kernel == "HMCRefreshKernel":
        return backend.api.HMCRefreshKernel(backend.api.MWGKernel(*pair), step_size=0.3)
    return getattr(backend.api, kernel)(*pair, **options)


@pytest.mark.parametrize("name", KERNELS)
def test_the_law_is_given_both_sites(backend, name):
    """Mean of z against quadrature, 40 copies of each row; |t| of 40 copies below 5 (1e-5)."""
    copies = 40
    x, y = np.tile(X, (copies, 1)), np.tile(Y, copies)
    with double_precision(backend):
        pair = programs(backend)
        mcmc = backend.run(
            kernel_of(backend, name, pair), real(backend, x), real(backend, y),
            num_warmup=50, num_samples=150, num_chains=1,
        )  # fmt: skip
        if "LAIR" in KERNELS[name][0] or name == "prior":  # pooled: without the bias of few
            idata = seeded(backend, backend.api.pool, 3, mcmc, 400)
            z = idata["posterior"]["z"].values
        else:
            z = backend.draws(mcmc)["z"]
    mean = z.reshape(-1, copies, len(X)).mean(0)
    error = mean.std(0, ddof=1) / np.sqrt(copies)
    assert (np.abs(mean.mean(0) - MEAN) < 5 * error).all(), (mean.mean(0), MEAN, error)
    assert (5 * error < 0.2).all()  # what the prior alone would change is larger


def test_mean_weights_and_lp_are_those_of_both_sites(backend):
    """LAIR's mean weight estimates p(x_o, y); lp is log p(x_o, y, z)."""
    copies = 40
    x, y = np.tile(X, (copies, 1)), np.tile(Y, copies)
    with double_precision(backend):
        kernel = backend.api.LAIRKernel(*programs(backend), num_particles=6, num_prior=6)
        mcmc = backend.run(
            kernel, real(backend, x), real(backend, y), num_warmup=20, num_samples=100
        )
        weight = np.exp(backend.info(mcmc)["log_weight"]).mean((0, 1, 2)).reshape(copies, len(X))
        draws, lp = backend.draws(mcmc)["z"], backend.info(mcmc)["lp"]
    error = weight.std(0, ddof=1) / np.sqrt(copies)
    assert (np.abs(weight.mean(0) - np.exp(LOG_EVIDENCE)) < 5 * error).all()
    assert (error < 0.05 * np.exp(LOG_EVIDENCE)).all()
    z = draws[0, -1, 0, : len(X)]
    expected = np.diagonal(log_likelihood_at(z)) + stats.norm.logpdf(z)
    np.testing.assert_allclose(lp[0, -1, 0, : len(X)], expected, rtol=1e-6)


@pytest.mark.parametrize("objective", ["ELBO", "IWAE", "DReG", "AnalyticELBO"])
def test_kl_weight_leaves_other_observed_sites_alone(backend, objective):
    """At weight 0 every particle's term is log p(x_o, y | z); with many particles, its mean."""
    with double_precision(backend):
        pair = programs(backend)
        x, y = (real(backend, np.tile(a, (4_000, *[1] * (a.ndim - 1)))) for a in (X, Y))
        loss = getattr(backend.api, objective)(num_particles=1, kl_weight=0.0)
        values = [float(seeded(backend, host_loss(backend, loss, pair), s, x, y)) for s in range(5)]
    guide_mean = 0.3 * np.nan_to_num(X[:, 0])
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    expected = 0.0
    for row, mean in enumerate(guide_mean):
        expected -= (log_likelihood_at(mean + nodes)[row] * weights).sum() / weights.sum()
    found = np.array(values) / 4_000
    error = found.std(ddof=1) / np.sqrt(len(found))
    assert abs(found.mean() - expected) < 10 * error, (found, expected)
    assert error < 0.1  # log p(y | z) is several nats


def host_loss(backend, loss, pair):
    if backend.name == "numpyro":
        return lambda key, x, y: loss.loss(key, {}, *pair, x, y)
    return lambda x, y: loss.loss(*pair, x, y)


@pytest.mark.parametrize("use", ["MWGKernel", "ELBO", "log_likelihood"])
def test_a_factor_in_a_guide_is_refused_by_name(backend, use):
    ppl = words(backend)
    model, _ = bernoulli_pair(ppl)

    def guide(x):
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.Normal(x[:, :1], 1.0).to_event(1))
            ppl.factor("penalty", -(z[..., 0] ** 2))

    x = backend.array(FILLED)
    call = {
        "MWGKernel": lambda: backend.run(backend.api.MWGKernel(model, guide), x),
        "ELBO": lambda: backend.fit((model, guide), x, num_steps=1),
        "log_likelihood": lambda: seeded(backend, backend.api.log_likelihood, 0, model, guide, x),
    }[use]
    with pytest.raises(ValueError, match=r"Sites \['penalty'\] of the guide are observed, or fact"):
        call()
