"""Wider guides: their densities against SciPy, and kernels that stay exact with them."""

import numpy as np
import pytest
from host_words import words
from kernel_parts import bind, chains, double_precision, module, one_chain, real
from oracles import LinearGaussian
from pooled_draws import moment_score
from scipy import stats

TRUTH = LinearGaussian.example()
MASK = np.array([[1, 1, 0, 1, 0], [0, 1, 0, 1, 1], [1, 1, 1, 1, 1]], bool)
X = TRUTH.draw(np.random.default_rng(0), 3)
Z = np.random.default_rng(1).normal(size=(3, 2))


@pytest.fixture(scope="module")
def ppl(backend):
    return words(backend)


def guide_of(ppl, family):
    def guide(x):
        with ppl.plate("rows", x.shape[0]):
            loc, scale = 0.5 * x[:, :2], 0.3 + 0 * x[:, :2]
            site = (
                ppl.dist.Normal(loc, scale)
                if family == "normal"
                else ppl.dist.StudentT(5.0 + 0 * loc, loc, scale)
            )
            ppl.sample("z", site.to_event(1))

    return guide


def log_density(backend, guide, model, z=Z):
    x, mask, z = (backend.array(a) for a in (X, MASK, z))
    program = module(backend, "program").Program(model, guide, x, mask)
    return one_chain(backend, program.log_proposal(chains(backend, {"z": z}), chains(backend, x)))


@pytest.mark.parametrize("family", ["normal", "student"])
@pytest.mark.parametrize("kind", ["tempered", "annealed", "annealed to 0.25"])
def test_densities(backend, ppl, family, kind):
    wider = {
        "tempered": lambda guide: backend.api.tempered(guide, 2.5),
        "annealed": backend.api.annealed,
        "annealed to 0.25": lambda guide: backend.api.annealed(guide, end_scale=0.25),
    }[kind]
    with double_precision(backend):
        guide, model = guide_of(ppl, family), backend.programs.linear_gaussian(TRUTH)[0]
        found = log_density(backend, wider(guide), model)
    missing = (1 - MASK.mean(1))[:, None]
    loc, scale = 0.5 * X[:, :2], np.full((3, 2), 0.3)
    if kind == "tempered":
        scale = 2.5 * scale
    else:
        end = 1.0 if kind == "annealed" else 0.25
        loc, scale = (1 - missing) * loc, (1 - missing) * scale + end * missing
    law = stats.norm(loc, scale) if family == "normal" else stats.t(5, loc, scale)
    np.testing.assert_allclose(found, law.logpdf(Z).sum(1), rtol=1e-10)


def test_one_number_a_row(backend, ppl):
    """x of shape (B,): the prior where it is missing, the guide where it is observed."""
    x, mask = np.array([0.4, -1.0, 2.0]), np.array([True, False, True])

    def model(x):
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0 * x, 1.0))
            ppl.sample("x", ppl.dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(0.5 * x, 0.3))

    law = stats.norm(np.where(mask, 0.5 * x, 0), np.where(mask, 0.3, 1))
    with double_precision(backend):
        program = bind(backend, (model, backend.api.annealed(guide)), x, mask)
        z, x_obs = (real(backend, a) for a in (Z[:, 0], np.where(mask, x, 0)))
        found = program.log_proposal(chains(backend, {"z": z}), chains(backend, x_obs))
    np.testing.assert_allclose(one_chain(backend, found), law.logpdf(Z[:, 0]), rtol=1e-12)


def test_beta_sites(backend, ppl):
    """Beta(a, b) at temperature 2: Beta(a / 4, b / 4); annealed, towards Beta(c, c)."""
    a, b = 1 + np.abs(X[:, :2]), 3 + np.abs(X[:, 2:4])
    missing = (1 - MASK.mean(1))[:, None]

    def guide(x):
        with ppl.plate("rows", x.shape[0]):
            site = ppl.dist.Beta(1 + abs(x[:, :2]), 3 + abs(x[:, 2:4]))
            ppl.sample("z", site.to_event(1))

    def annealed(end):
        return stats.beta(*((1 - missing) * c + missing * end for c in (a, b)))

    api, z = backend.api, stats.norm.cdf(Z)
    for wide, law in (
        (api.tempered(guide, 2.0), stats.beta(a / 4, b / 4)),
        (api.annealed(guide), annealed(1.0)),
        (api.annealed(guide, end_scale=0.25), annealed(0.25)),
    ):
        with double_precision(backend):
            found = log_density(backend, wide, backend.programs.linear_gaussian(TRUTH)[0], z)
        np.testing.assert_allclose(found, law.logpdf(z).sum(1), rtol=1e-10)
    law, wide = stats.beta(a, b), stats.beta(a / 4, b / 4)
    np.testing.assert_allclose(wide.mean(), law.mean())
    assert (wide.std() > 1.5 * law.std()).all()


@pytest.mark.exact
@pytest.mark.parametrize("kind", ["tempered", "annealed"])
def test_kernels_stay_exact(backend, ppl, kind):
    """AC-MWG with a wider guide; 32 chains, 6 standard errors (false alarm 1e-6 per number)."""
    gain = backend.array(TRUTH.posterior[0].T.astype("float32"))
    bias = backend.array(TRUTH.bias.astype("float32"))

    def guide(x):
        with ppl.plate("rows", x.shape[0]):
            loc = (x - bias) @ gain
            ppl.sample("z", ppl.dist.Normal(loc, 0.2 + 0 * loc).to_event(1))

    model = backend.programs.linear_gaussian(TRUTH)[0]
    wide = backend.api.tempered(guide, 3.0) if kind == "tempered" else backend.api.annealed(guide)
    x = backend.array(np.where(MASK, X, np.nan).astype("float32"))
    kernel = backend.api.ACMWGKernel(model, wide)
    mcmc = backend.run(kernel, x, seed=1, num_warmup=200, num_samples=500, num_chains=32)
    draws = backend.draws(mcmc)["x"]
    assert moment_score(TRUTH, draws, X, MASK) < 6


def test_what_cannot_be_widened(backend, ppl):
    def gamma(x):
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z", ppl.dist.Gamma(1 + 0 * x[:, :2], 2.0 + 0 * x[:, :2]).to_event(1))

    model = backend.programs.linear_gaussian(TRUTH)[0]
    for wide in (backend.api.annealed(gamma), backend.api.tempered(gamma, 2.0)):
        with pytest.raises(NotImplementedError, match="A Gamma cannot be widened"):
            log_density(backend, wide, model)
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        backend.api.tempered(gamma, 0)
    with pytest.raises(ValueError, match="end_scale must be positive, got 0"):
        backend.api.annealed(gamma, end_scale=0)
