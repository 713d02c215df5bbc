"""LAIR's variants and the baselines against closed form.

With 8 independent chains, |mean - truth| < 6 standard errors of the chains' means fails by chance
with probability 5e-4 per number (Student's t with 7 degrees of freedom); the seeds are fixed.
"""

import numpy as np
import pytest
from oracles import LinearGaussian
from scipy.special import logsumexp
from test_pooling import pooled, z_scores

TRUTH = LinearGaussian.example()
MASK = np.array([[1, 1, 0, 1, 0], [0, 1, 0, 1, 1]], bool)
X = TRUTH.draw(np.random.default_rng(0), 2).astype("float32")
NUM_CHAINS = 8


def run(backend, kernel, num_samples=2_000, num_warmup=20):
    x = backend.array(np.where(MASK, X, np.nan).astype("float32"))
    return backend.run(
        kernel, x, seed=1, num_warmup=num_warmup, num_samples=num_samples, num_chains=NUM_CHAINS
    )


def kernel_of(backend, name):
    api = backend.api
    pair = backend.programs.linear_gaussian(TRUTH, guide_shift=0.3, guide_stretch=1.6)
    if name == "prior":
        return api.PriorResamplingKernel(*pair, num_particles=2, num_prior=6)
    options = {
        "own component": {"log_denominator": api.weighting.log_own_component},
        "systematic": {"resample": api.resampling.systematic},
        "stratified": {"resample": api.resampling.stratified},
        "residual": {"resample": api.resampling.residual},
        "independent": {"resample": api.resampling.independent},
        "truncated": {"transform": api.weighting.truncate},
    }[name]
    return api.LAIRKernel(*pair, num_particles=3, num_prior=1, **options)


VARIANTS = [
    "prior", "own component", "systematic", "stratified", "residual", "independent", "truncated"
]  # fmt: skip


@pytest.mark.exact
@pytest.mark.parametrize("name", VARIANTS)
def test_evidence_and_pooled_law(backend, name):
    """Whatever resamples and transforms: E[w] = p(x_o), and the pooled draws are exact."""
    mcmc = run(backend, kernel_of(backend, name))
    log_weight = backend.info(mcmc)["log_weight"].astype(float)
    per_chain = logsumexp(log_weight, axis=(1, 2)) - np.log(np.prod(log_weight.shape[1:3]))
    draws = backend.api.completed(pooled(backend, mcmc, 1_000))
    for row in range(2):
        ratio = np.exp(per_chain[:, row] - TRUTH.log_evidence(X[row], MASK[row]))
        assert abs(ratio.mean() - 1) < 6 * ratio.std(ddof=1) / NUM_CHAINS**0.5 + 1e-5
        mean, covariance = TRUTH.missing_given_observed(X[row], MASK[row])
        missing = draws[:, :, row][..., ~MASK[row]].astype(float)
        assert np.abs(z_scores(missing, mean)).max() < 6
        assert np.abs(z_scores((missing - mean) ** 2, np.diag(covariance))).max() < 6


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


def test_settings_are_recorded(backend, tmp_path):
    mcmc = run(backend, kernel_of(backend, "truncated"), 3, 0)
    idata = backend.api.to_inference_data(mcmc)
    idata.to_netcdf(tmp_path / "run.nc")
    attrs = idata["posterior"].attrs
    assert (attrs["transform"], attrs["resample"]) == ("truncate", "multinomial")
    assert attrs["log_denominator"] == "log_mixture"
