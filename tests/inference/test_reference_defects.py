"""Defects of the LAIR paper's research code, each a test that our samplers do not have it.

Those that other files test: latents that do not belong to their imputation, blending that poisons
a chain, and a history that holds what the current latents made (test_invariants.py); MNAR draws
with a fresh x_m (test_mnar.py); the first of ordered ancestors kept (test_resampling.py); dtypes
(test_invariants.py).
"""

import numpy as np
import pytest
from host_words import words
from kernel_parts import bind, chains, decoded, double_precision, module, one_chain, real
from oracles import Discrete, LinearGaussian
from scipy.special import logsumexp

TRUTH = LinearGaussian.example()
MASK = np.array([[1, 1, 0, 1, 0], [0, 1, 0, 1, 1]], bool)
X = np.where(MASK, TRUTH.draw(np.random.default_rng(0), 2), np.nan).astype("float32")


def lair(backend, **options):
    return backend.api.LAIRKernel(*backend.programs.linear_gaussian(TRUTH), **options)


def test_what_is_stored_does_not_change_the_draws(backend):
    """Thinned, or with the proposals left out, a run has the draws of the whole run."""
    whole = backend.run(lair(backend), backend.array(X), num_samples=8, num_chains=2)
    draws = backend.draws(whole)
    assert draws["x"].shape == (2, 8, 4, 2, 5)
    if backend.name == "numpyro":
        from jax import random

        thin = backend.api.MCMC(
            lair(backend), num_warmup=0, num_samples=8, num_chains=2, thinning=2,
            chain_method="vectorized", progress_bar=False,
        )  # fmt: skip
        thin.run(random.key(0), X, extra_fields=("~z.z",))
        kept = backend.draws(thin)
        np.testing.assert_array_equal(kept["x"], draws["x"][:, 1::2])
        assert "z" not in kept
    else:
        import pyro

        seen = []
        pyro.set_rng_seed(0)
        mcmc = backend.api.MCMC(
            lair(backend), 1, num_warmup=7, num_chains=2, disable_progbar=True,
            hook_fn=lambda kernel, z, stage, i: seen.append(z["x"].clone()),
        )  # fmt: skip
        mcmc.run(backend.array(X))
        np.testing.assert_array_equal(np.stack(seen, 1), draws["x"])
        np.testing.assert_array_equal(backend.draws(mcmc)["x"][:, 0], draws["x"][:, -1])


def test_rejected_entries_stay_as_they_were(backend):
    """A missingness model that no proposal satisfies but the start: nothing ever moves."""
    ppl, start = words(backend), np.array([1.0, 0.0, 1.0, 1.0, 1.0], "float32")

    def only_start(x, mask=None):
        same = 1.0 * (abs(x - backend.array(start)).sum(-1) < 0.5)
        with ppl.plate("rows", len(x)):
            probability = 1e-30 + same[..., None] * (0.5 - 1e-30)
            ppl.sample("mask", ppl.dist.Bernoulli(probability + 0 * x).to_event(1), obs=1.0 * mask)

    mask = np.array([True, False, True, False, False])
    kernel = backend.api.MNARMWGKernel(*backend.programs.discrete(Discrete.example()), only_start)
    x = np.tile(np.where(mask, start, np.nan).astype("float32"), (6, 1))
    rows = backend.array(np.tile(start, (2, 6, 1)))
    mcmc = backend.run(
        kernel, backend.array(x), num_samples=30, num_chains=2, init_params={"x": rows}
    )
    info, draws = backend.info(mcmc), backend.draws(mcmc)
    moved = (draws["x"] != start).any(-1)
    assert not moved.any()
    assert (~info["accepted_x"]).sum() > 50
    assert info["accepted"].any()  # the latents do move


def test_warm_up_gives_every_chain_a_start_of_its_own(backend):
    """Five populations of 4 + 1 start five chains of MWG, each from its own population."""
    warm = backend.run(lair(backend), backend.array(X), num_samples=20, num_chains=5)
    z = np.asarray(warm.last_state.z["z"])  # (chain, particle, row, latent)
    kernel = backend.api.MWGKernel(*backend.programs.linear_gaussian(TRUTH))
    started = np.asarray(begin(backend, kernel, warm.last_state.hand_over(), 5).z["z"])
    for chain in range(5):
        of_own = (started[chain] == z[chain]).all(-1).any(0)
        of_others = (started[chain] == np.delete(z, chain, 0)).all(-1).any((0, 1))
        assert of_own.all()
        assert not of_others.any()


def test_ratio_of_a_state_with_itself_is_zero(backend):
    """Old and new terms are over the same entries: log ratio (z, z) = 0 for MWG and AC-MWG."""
    with double_precision(backend):
        x = np.nan_to_num(X).astype(float)
        program = bind(backend, backend.programs.linear_gaussian(TRUTH), x, MASK)
        z = chains(backend, {"z": real(backend, np.array([[0.3, -1.0], [2.0, 0.1]]))})
        at = decoded(backend, program, z)
        rows = chains(backend, real(backend, x + 0.7 * ~MASK))
        for ratio in (
            module(backend, "mwg").log_ratio(program, rows, at, at),
            module(backend, "ac_mwg").log_ratio(program, rows, at, at, 0.05),
        ):
            np.testing.assert_array_equal(one_chain(backend, ratio), 0)


def test_collapsed_ratio_ignores_missing_entries_of_both_states(backend):
    with double_precision(backend):
        ratios = []
        for far in (0.0, 50.0):
            x = np.where(MASK, X, far).astype(float)
            program = bind(backend, backend.programs.linear_gaussian(TRUTH), x, MASK)
            decode = module(backend, "mwg").decode
            old, new = (
                decode(program, chains(backend, {"z": real(backend, np.full((2, 2), v))}))
                for v in (0.2, -0.4)
            )
            past = chains(backend, real(backend, np.where(MASK, X, 1.0)))
            ratio = module(backend, "ac_mwg").log_ratio(program, past, new, old, 0.05)
            ratios.append(one_chain(backend, ratio))
        np.testing.assert_array_equal(*ratios)


def uniform_prior(backend):
    """z ~ U(0, 1), x_d ~ N(3 z, 0.5^2), a guide on (0, 1)."""
    ppl = words(backend)

    def model(x):
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.Uniform(0 * x[:, 0], 1.0))
            ppl.sample("x", ppl.dist.Normal(3 * z[..., None] + 0 * x, 0.5).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z", ppl.dist.Beta(1.5 + 0 * x[:, 0], 1.5))

    return model, guide


@pytest.mark.exact
def test_evidence_under_a_prior_that_is_not_normal(backend):
    """log p(x_o) by LAIR against quadrature in z; |t| < 6 of 8 chains: false alarm 5e-4."""
    x = np.array([[1.2, np.nan, 1.9], [np.nan, -0.2, np.nan]], "float32")
    kernel = backend.api.LAIRKernel(*uniform_prior(backend))
    mcmc = backend.run(kernel, backend.array(x), num_samples=500, num_chains=8)
    log_weight = backend.info(mcmc)["log_weight"].astype(float)
    per_chain = logsumexp(log_weight, axis=(1, 2)) - np.log(np.prod(log_weight.shape[1:3]))
    z = (np.arange(20_000) + 0.5) / 20_000
    log_normal = -0.5 * ((x[..., None] - 3 * z) / 0.5) ** 2 - np.log(0.5 * np.sqrt(2 * np.pi))
    truth = logsumexp(np.nansum(log_normal, 1), axis=1) - np.log(20_000)
    ratio = np.exp(per_chain - truth)
    assert (np.abs(ratio.mean(0) - 1) < 6 * ratio.std(0, ddof=1) / 8**0.5).all()


@pytest.mark.exact
def test_the_start_is_the_prior_predictive(backend):
    """x_m ~ p(x_m), mean and covariance of 4,000 starts; |z| < 5 of 27 numbers: 2e-5."""
    x = np.full((4_000, 5), np.nan, "float32")
    x[:, 1] = 0.0
    kernel = backend.api.PseudoGibbsKernel(*backend.programs.linear_gaussian(TRUTH))
    if backend.name == "numpyro":
        from jax import random

        state = kernel.init(random.key(0), 0, None, (x,), {})
        start = np.asarray(state.z["x"])
    else:
        import pyro

        pyro.set_rng_seed(0)
        start = np.asarray(kernel.init(1, None, (backend.array(x),), {}).z["x"])[0]
    missing = [0, 2, 3, 4]
    centred = start[:, missing] - TRUTH.bias[missing]
    products = centred[..., :, None] * centred[..., None, :]
    covariance = TRUTH.covariance[np.ix_(missing, missing)]
    for value, truth in ((centred, 0), (products, covariance)):
        score = (value.mean(0) - truth) / (value.std(0) / 4_000**0.5)
        assert np.abs(score).max() < 5


def test_results_say_how_the_chains_were_warmed_up(backend):
    warm = backend.run(lair(backend), backend.array(X), num_warmup=5, num_samples=3, num_chains=2)
    kernel = backend.api.MWGKernel(*backend.programs.linear_gaussian(TRUTH))
    cases = {
        "prior predictive": None,
        "init_params": warm.last_state.z,
        "LAIRKernel, 8 iterations": warm.last_state.hand_over(),
    }
    for start, handed in cases.items():
        mcmc = backend.run(
            kernel, backend.array(X), num_warmup=7, num_samples=2, num_chains=2, init_params=handed
        )
        attrs = backend.api.to_inference_data(mcmc)["posterior"].attrs
        assert (attrs["start"], attrs["num_warmup"]) == (start, 7)


def test_imputations_are_carried_from_one_training_epoch_to_the_next(backend):
    """DeMissVAE's seam: LAIR goes on under new weights from the imputations of the old ones."""
    old = lair(backend)
    mcmc = backend.run(old, backend.array(X), num_samples=2, num_chains=3)
    before = np.asarray(mcmc.last_state.z["x"])
    new = backend.api.LAIRKernel(*backend.programs.linear_gaussian(TRUTH, guide_stretch=1.3))
    state = begin(backend, new, mcmc.last_state.hand_over(), 3)
    np.testing.assert_array_equal(state.z["x"], before)


def begin(backend, kernel, handed, num_chains):
    """The first state of some chains."""
    if backend.name == "numpyro":
        from jax import random

        keys = random.split(random.key(9), num_chains)
        return kernel.init(keys, 0, handed, (X,), {})
    return kernel.init(num_chains, handed, (backend.array(X),), {})
