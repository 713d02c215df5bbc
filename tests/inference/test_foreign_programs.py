"""Programs that were not written for this library: every kernel must take them as they are.

The statistical checks compare means and variances of about 10 missing entries with closed forms at
4 standard errors of independent chains; over all of them a correct library fails with probability
below 0.02 at a random seed, and the seeds are fixed.
"""

import importlib
from dataclasses import dataclass

import numpy as np
import pytest
from kernel_parts import double_precision

KERNELS = {
    "PseudoGibbsKernel": {},
    "MWGKernel": {},
    "ACMWGKernel": {"prior_probability": 0.1},
    "LAIRKernel": {"num_particles": 6},
}


@dataclass(frozen=True)
class Marginal:
    """p(x): a mixture of Gaussians of one covariance."""

    probs: np.ndarray  # (C,)
    means: np.ndarray  # (C, D)
    covariance: np.ndarray  # (D, D)

    def moments(self, x, mask):
        """Mean and variance of the missing entries of one row, given the observed ones."""
        c, m, o = self.covariance, ~mask, mask
        gain = c[np.ix_(m, o)] @ np.linalg.inv(c[np.ix_(o, o)])
        r = x[o] - self.means[:, o]
        log_p = np.log(self.probs) - 0.5 * np.einsum(
            "ci,ij,cj->c", r, np.linalg.inv(c[np.ix_(o, o)]), r
        )
        share = np.exp(log_p - log_p.max())
        share /= share.sum()
        each = self.means[:, m] + r @ gain.T
        mean = share @ each
        within = np.diag(c[np.ix_(m, m)] - gain @ c[np.ix_(o, m)])
        return mean, within + share @ (each - mean) ** 2


RNG = np.random.default_rng(3)
WEIGHT = RNG.normal(size=(5, 2))
MEANS = 1.5 * RNG.normal(size=(3, 5))
PROBS = np.array([0.5, 0.3, 0.2])
SCALE = 0.7
X = RNG.normal(size=(3, 5))
MASK = np.array([[1, 1, 0, 0, 1], [0, 1, 0, 1, 1], [1, 0, 1, 0, 0]], bool)
LABELS = np.array([0, 2, 1])


def posterior(weight, noise):
    """(gain, covariance) of p(z | x) for x = W z + noise."""
    covariance = np.linalg.inv(np.eye(2) + weight.T @ np.linalg.solve(noise, weight))
    return covariance @ np.linalg.solve(noise, weight).T, covariance


def gaussian(noise=None, *, stretch=1.15, shift=0.15):
    """Arrays of a program with one Gaussian latent, whose guide is off by stretch and shift."""
    noise = SCALE**2 * np.eye(5) if noise is None else noise
    gain, covariance = posterior(WEIGHT, noise)
    arrays = {
        "weight": WEIGHT, "means": MEANS, "probs": PROBS, "scale": SCALE, "gain": gain,
        "shift": shift, "chol": stretch * np.linalg.cholesky(covariance),
        "noise_chol": np.linalg.cholesky(noise),
    }  # fmt: skip
    return arrays, WEIGHT @ WEIGHT.T + noise


def hierarchy(*, stretch, shift):
    link, scale2 = np.array([[1.0, 0.4], [-0.5, 0.8]]), 0.6
    bias, noise = MEANS[0], SCALE**2 * np.eye(5)
    # The exact posterior in two steps: z1 | x, with z2 integrated out, then z2 | z1, x.
    gain1, covariance1 = posterior(WEIGHT @ link, scale2**2 * WEIGHT @ WEIGHT.T + noise)
    precision2 = np.eye(2) / scale2**2 + WEIGHT.T @ WEIGHT / SCALE**2
    covariance2 = np.linalg.inv(precision2)
    arrays = {
        "link": link, "scale2": scale2, "weight": WEIGHT, "bias": bias, "scale": SCALE,
        "gain1": gain1, "shift": shift, "chol1": stretch * np.linalg.cholesky(covariance1),
        "gain2": covariance2 @ WEIGHT.T / SCALE**2, "from_z1": covariance2 @ link / scale2**2,
        "chol2": stretch * np.linalg.cholesky(covariance2),
    }  # fmt: skip
    of_z2 = link @ link.T + scale2**2 * np.eye(2)
    one = np.ones(1)
    return arrays, Marginal(one, bias[None], WEIGHT @ of_z2 @ WEIGHT.T + noise)


@pytest.fixture(scope="module")
def foreign(backend):
    return importlib.import_module(f"foreign_{backend.name}")


def data(backend, x=X, mask=MASK):
    return backend.array(np.where(mask, x, np.nan).astype("float32"))


def kernel(backend, name, program, **options):
    model, guide, needs = program
    return getattr(backend.api, name)(model, guide, **needs, **{**KERNELS[name], **options})


def pool(backend, mcmc, num_samples=200):
    if backend.name == "pyro":
        return backend.api.pool(mcmc, num_samples)
    from jax import random

    return backend.api.pool(random.key(9), mcmc, num_samples)


def completed_draws(backend, mcmc):
    """Rows, (C, S, B, D); populations are pooled, since single iterations have a bias in 1 / K."""
    if "ess_weights" in backend.info(mcmc):
        return backend.api.completed(pool(backend, mcmc))
    return backend.draws(mcmc)["x"]


def check_moments(backend, mcmc, marginals):
    """Compare draws with closed forms; chains are independent, so they give the error."""
    draws = completed_draws(backend, mcmc)
    for row, marginal in enumerate(marginals):
        mean, variance = marginal.moments(X[row], MASK[row])
        missing = draws[:, :, row, ~MASK[row]]
        for of_chain, truth in (
            (missing.mean(1), mean),
            (((missing - mean) ** 2).mean(1), variance),
        ):
            error = of_chain.std(0, ddof=1) / np.sqrt(len(of_chain))
            np.testing.assert_array_less(np.abs(of_chain.mean(0) - truth), 4 * error)


def run(backend, sampler, *args, **kwargs):
    """As long as the kernel needs: LAIR starts well and has many proposals an iteration."""
    quick = type(sampler).__name__ in ("LAIRKernel", "PseudoGibbsKernel")
    warmup, samples = (20, 60) if quick else (200, 100)
    return backend.run(
        sampler,
        data(backend),
        *args,
        num_warmup=warmup,
        num_samples=samples,
        num_chains=48,
        **kwargs,
    )


@pytest.mark.exact
@pytest.mark.parametrize("name", KERNELS)
def test_hierarchy_is_exact(backend, foreign, name):
    exact = name == "PseudoGibbsKernel"  # it is exact only with the exact posterior as guide
    arrays, marginal = hierarchy(stretch=1.0 if exact else 1.2, shift=0.0 if exact else 0.15)
    mcmc = run(backend, kernel(backend, name, foreign.hierarchy(arrays)))
    check_moments(backend, mcmc, [marginal] * 3)


@pytest.mark.exact
def test_hierarchy_with_a_bad_guide_misleads_pseudo_gibbs(backend, foreign):
    arrays, marginal = hierarchy(stretch=1.3, shift=0.2)
    program = foreign.hierarchy(arrays)
    mcmc = run(backend, kernel(backend, "PseudoGibbsKernel", program))
    with pytest.raises(AssertionError):
        check_moments(backend, mcmc, [marginal] * 3)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("mixed_latents", "MWGKernel"),
        ("mixed_latents", "LAIRKernel"),
        ("mixture", "ACMWGKernel"),
        ("mixture", "LAIRKernel"),
        ("correlated", "MWGKernel"),
        ("correlated", "ACMWGKernel"),
    ],
)
def test_other_likelihoods_and_latents_are_exact(backend, foreign, name, case):
    noise = None
    if case == "correlated":
        root = np.random.default_rng(1).normal(size=(5, 5))
        noise = 0.3 * root @ root.T + 0.2 * np.eye(5)
    arrays, covariance = gaussian(noise)
    marginal = Marginal(PROBS, MEANS, covariance)
    if case == "correlated":
        marginal = Marginal(np.ones(1), MEANS[:1], covariance)
    program = getattr(foreign, case)(arrays)
    mcmc = run(backend, kernel(backend, name, program))
    check_moments(backend, mcmc, [marginal] * 3)


@pytest.mark.exact
@pytest.mark.parametrize(("name", "how"), [("MWGKernel", "positional"), ("LAIRKernel", "keyword")])
def test_labels_go_along_with_their_rows(backend, foreign, name, how):
    arrays, covariance = gaussian()
    sampler = kernel(backend, name, foreign.labelled(arrays))
    args, kwargs = ((backend.array(LABELS),), {}) if how == "positional" else ((), {"y": LABELS})
    mcmc = run(backend, sampler, *args, **kwargs)
    one = np.ones(1)
    check_moments(backend, mcmc, [Marginal(one, MEANS[[y]], covariance) for y in LABELS])
    idata = backend.api.to_inference_data(mcmc)
    kept = idata["constant_data"]["arg_0" if how == "positional" else "y"]
    assert kept.dims == ("row",)
    np.testing.assert_array_equal(kept, LABELS)


@pytest.mark.exact
@pytest.mark.parametrize("name", KERNELS)
def test_mask_is_handed_to_those_that_ask(backend, foreign, name):
    """The guide is p(z | x_o), the model masks its own likelihood: all kernels are exact."""
    arrays, covariance = gaussian()
    options = {"prior_probability": 0.0} if name == "ACMWGKernel" else {}
    sampler = kernel(backend, name, foreign.mask_aware(arrays), **options)
    mcmc = run(backend, sampler)
    check_moments(backend, mcmc, [Marginal(np.ones(1), MEANS[:1], covariance)] * 3)
    if name == "ACMWGKernel":
        np.testing.assert_allclose(backend.info(mcmc)["acceptance_rate"], 1.0, atol=1e-3)


NETS = {}


def net(foreign, case, x):
    """Train once for all kernels, with the host's own SVI."""
    key = foreign.__name__, case
    if key not in NETS:
        NETS[key] = getattr(foreign, case)(x)
    return NETS[key]


@pytest.mark.parametrize(
    ("case", "name"),
    [
        *(("published_vae", name) for name in KERNELS),
        ("conv_net", "MWGKernel"),
        ("conv_net", "LAIRKernel"),
    ],
)
def test_nets_of_others(backend, foreign, name, case):
    rng = np.random.default_rng(0)
    shape = (6, 12) if case == "published_vae" else (6, 1, 8, 8)
    x = (rng.random(shape) < 0.5).astype("float32")
    mask = rng.random(shape) < 0.5
    program = net(foreign, case, x)
    site = program[2].get("site", "x")
    sampler = kernel(backend, name, program)
    mcmc = backend.run(sampler, data(backend, x, mask), num_samples=8, num_chains=2)
    draws = backend.draws(mcmc)[site]
    assert draws.shape[-len(shape) :] == shape
    np.testing.assert_array_equal(
        draws[..., mask], np.broadcast_to(x[mask], draws[..., mask].shape)
    )
    assert set(np.unique(draws)) == {0.0, 1.0}
    assert (draws[..., ~mask].std((0, 1)) > 0).any()
    lp = backend.info(mcmc)["lp"]
    assert np.isfinite(lp).all()


@pytest.mark.parametrize(
    ("case", "name"),
    [("hierarchy", "ACMWGKernel"), ("mixture", "MWGKernel"), ("mixed_latents", "LAIRKernel")],
)
def test_one_row(backend, foreign, name, case):
    arrays = hierarchy(stretch=1.3, shift=0.2)[0] if case == "hierarchy" else gaussian()[0]
    sampler = kernel(backend, name, getattr(foreign, case)(arrays))
    mcmc = backend.run(sampler, data(backend)[:1], num_samples=5, num_chains=2)
    draws = backend.draws(mcmc)["x"]
    assert draws.shape[-2:] == (1, 5)
    assert np.isfinite(draws).all()
    assert (draws[..., ~MASK[0]].std((0, 1)) > 0).all()


@pytest.mark.parametrize("name", ["ACMWGKernel", "LAIRKernel"])
def test_float64(backend, foreign, name):
    with double_precision(backend):
        program = foreign.hierarchy(hierarchy(stretch=1.3, shift=0.2)[0])
        x = backend.array(np.where(MASK, X, np.nan))
        mcmc = backend.run(kernel(backend, name, program), x, num_samples=5, num_chains=2)
        draws, info = backend.draws(mcmc), backend.info(mcmc)
    assert {d.dtype for d in draws.values()} == {np.dtype("float64")}
    assert info["lp"].dtype == np.float64
    np.testing.assert_array_equal(
        draws["x"][..., MASK], np.broadcast_to(X[MASK], draws["x"][..., MASK].shape)
    )
