"""LAIR's pooled resampling and its estimate of log p(x_o), against closed form.

With 8 independent chains, |mean - truth| < 5 standard errors of the chains' means fails by chance
with probability below 2e-3 per number (Student's t with 7 degrees of freedom); the seeds are fixed.
"""

import numpy as np
import pytest
from host_words import bernoulli_pair, words
from kernel_parts import seeded
from oracles import LinearGaussian
from pooled_draws import moment_score, pooled, z_scores
from scipy.special import logsumexp

from ppl_vae.diagnostics import summary
from ppl_vae.importance import pareto_khat

TRUTH = LinearGaussian.example()
MASK = np.array([[1, 1, 0, 1, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]], bool)
X = TRUTH.draw(np.random.default_rng(0), 3).astype("float32")
NUM_CHAINS = 8


@pytest.fixture(scope="module")
def mcmc(backend):
    """A run with few particles and a bad guide, whose plain draws are visibly biased."""
    model, guide = backend.programs.linear_gaussian(TRUTH, guide_shift=0.3, guide_stretch=1.6)
    kernel = backend.api.LAIRKernel(model, guide, num_particles=2, num_prior=1)
    x = backend.array(np.where(MASK, X, np.nan).astype("float32"))
    return backend.run(kernel, x, seed=1, num_warmup=50, num_samples=5_000, num_chains=NUM_CHAINS)


@pytest.mark.exact
def test_pooled_draws_have_the_exact_law(backend, mcmc):
    draws = backend.api.completed(pooled(backend, mcmc, 2_000))
    assert moment_score(TRUTH, draws, X, MASK) < 5


@pytest.mark.exact
def test_plain_draws_are_biased_where_pooled_ones_are_not(backend, mcmc):
    draws = backend.draws(mcmc)["x"][:, :, :, 0]  # (chain, draw, particle, feature)
    mean, _ = TRUTH.missing_given_observed(X[0], MASK[0])
    flat = draws.reshape(NUM_CHAINS, -1, 5)[..., ~MASK[0]].astype(float)
    assert np.abs(z_scores(flat, mean)).max() > 10


@pytest.mark.exact
def test_mean_weight_estimates_the_evidence(backend, mcmc):
    log_weight = backend.info(mcmc)["log_weight"].astype(float)
    per_chain = logsumexp(log_weight, axis=(1, 2)) - np.log(np.prod(log_weight.shape[1:3]))
    for row in range(3):
        truth = TRUTH.log_evidence(X[row], MASK[row])
        ratio = np.exp(per_chain[:, row] - truth)
        error = ratio.std(ddof=1) / np.sqrt(NUM_CHAINS)
        assert abs(ratio.mean() - 1) < 5 * error + 1e-5


def test_khat_of_all_weights_is_reported_per_chain_and_row(backend, mcmc):
    expected = backend.info(mcmc)["log_weight"].reshape(NUM_CHAINS, -1, 3)
    for idata in (backend.api.to_inference_data(mcmc), pooled(backend, mcmc, 10)):
        khat = idata["sample_stats"]["khat"]
        assert khat.dims == ("chain", "row")
        np.testing.assert_allclose(khat, pareto_khat(expected, axis=1))
        assert (khat < 0.7).all()  # the prior's part bounds the weights


def test_khat_tells_weights_without_bound(backend):
    """A guide of a fifth of the posterior's scale, and no prior part: w = p / q has no variance."""
    model, guide = backend.programs.linear_gaussian(TRUTH, guide_stretch=0.2)
    x = backend.array(np.where(MASK, X, np.nan).astype("float32"))
    khat = []
    for num_prior in (0, 2):
        kernel = backend.api.LAIRKernel(model, guide, num_particles=2, num_prior=num_prior)
        mcmc = backend.run(kernel, x, num_warmup=20, num_samples=2_000, num_chains=2)
        khat.append(summary(backend.api.to_inference_data(mcmc))["khat_worst"].values)
    assert (khat[0] > 0.7).all()
    assert (khat[1] < 0.7).all()


def test_bad_arguments(backend, mcmc):
    with pytest.raises(ValueError, match="num_samples must be an integer >= 1, got 0"):
        pooled(backend, mcmc, 0)
    model, guide = backend.programs.linear_gaussian(TRUTH)
    x = backend.array(np.where(MASK, X, np.nan).astype("float32"))
    other = backend.run(backend.api.MWGKernel(model, guide), x, num_samples=4, num_chains=2)
    with pytest.raises(TypeError, match="LAIRKernel, got MWGKernel"):
        pooled(backend, other, 10)


def test_pool_before_a_run_or_of_results(backend):
    kernel = backend.api.LAIRKernel(*bernoulli_pair(words(backend)))
    if backend.name == "numpyro":
        fresh = backend.api.MCMC(kernel, num_warmup=1, num_samples=2)
    else:
        fresh = backend.api.MCMC(kernel, 2, num_warmup=1)
    with pytest.raises(ValueError, match="There are no draws yet: call `run` first"):
        seeded(backend, backend.api.pool, 0, fresh, 5)
    mcmc = backend.run(
        kernel, backend.array(np.array([[0, np.nan]], "float32")), num_samples=3, num_chains=2
    )
    with pytest.raises(TypeError, match="pool expects the run of a LAIRKernel, got InferenceData"):
        seeded(backend, backend.api.pool, 0, backend.api.to_inference_data(mcmc), 5)
