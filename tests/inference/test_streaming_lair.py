"""Pooling while it runs has the law of pooling a stored run."""

import numpy as np
import pytest
from kernel_parts import chains, module, one_chain, seeded
from oracles import LinearGaussian
from pooled_draws import moment_score, pooled

TRUTH = LinearGaussian.example()
MASK = np.array([[1, 1, 0, 1, 0], [0, 1, 0, 1, 1]], bool)
X = TRUTH.draw(np.random.default_rng(0), 2).astype("float32")


@pytest.mark.exact
def test_slots_are_a_multinomial_sample_of_the_stream(backend):
    """Four iterations of three proposals, tagged by their number; 5 standard errors a frequency.

    With 20,000 slots a false alarm has probability 6e-7 per number. Slots are independent: pairs
    of neighbours hold each pair of tags as often as the product says.
    """
    streaming = module(backend, "streaming_lair")
    rng = np.random.default_rng(0)
    log_weight = rng.normal(size=(4, 3, 1)).astype(np.float32) * 2
    log_weight[2] = -np.inf  # an iteration without any weight
    tags = np.arange(12, dtype=np.float32).reshape(4, 3, 1)
    first = {"z": chains(backend, backend.array(np.full((1, 1), -1, np.float32)))}
    reservoir = streaming.start_reservoir(first, 20_000)
    for t in range(4):
        z = {"z": chains(backend, backend.array(tags[t]))}
        weight = chains(backend, backend.array(log_weight[t]))
        reservoir = seeded(backend, streaming.keep_best, t, reservoir, z, weight)
    held = np.asarray(one_chain(backend, reservoir.z["z"]))[:, 0].astype(int)
    weight = np.exp(log_weight.ravel().astype(float))
    expected = weight / weight.sum()
    frequency = np.bincount(held, minlength=12) / len(held)
    assert (np.abs(frequency - expected) <= 5 * np.sqrt(expected / len(held))).all()
    pairs = np.histogram2d(held[::2], held[1::2], bins=np.arange(13))[0] / (len(held) / 2)
    product = np.outer(expected, expected)
    assert (np.abs(pairs - product) <= 5 * np.sqrt(product / (len(held) / 2)) + 1e-9).all()


@pytest.mark.exact
def test_pooled_draws_have_the_exact_law(backend):
    """Few particles and a bad guide; 8 chains, 6 standard errors (false alarm 5e-4 per number)."""
    pair = backend.programs.linear_gaussian(TRUTH, guide_shift=0.3, guide_stretch=1.6)
    kernel = backend.api.StreamingLAIRKernel(*pair, num_particles=2, num_prior=1, num_slots=300)
    x = backend.array(np.where(MASK, X, np.nan).astype("float32"))
    mcmc = backend.run(kernel, x, seed=1, num_warmup=2_000, num_samples=1, num_chains=8)
    draws = backend.api.completed(pooled(backend, mcmc, 300))
    assert draws.shape == (8, 300, 2, 5)
    assert (draws[..., MASK] == X[MASK]).all()
    assert moment_score(TRUTH, draws, X, MASK) < 6


def test_what_is_kept_and_refused(backend):
    pair = backend.programs.linear_gaussian(TRUTH)
    kernel = backend.api.StreamingLAIRKernel(*pair, num_slots=5)
    x = backend.array(np.where(MASK, X, np.nan).astype("float32"))
    mcmc = backend.run(kernel, x, num_samples=3, num_chains=1)
    assert "proposals" not in mcmc.get_extra_fields()["info"]._fields
    idata = backend.api.to_inference_data(mcmc)
    assert idata["posterior"].attrs["num_slots"] == 5
    results = pooled(backend, mcmc, 5)
    assert results["posterior"]["z"].shape == (1, 5, 2, 2)
    assert results["posterior"].attrs["pooled_from"] == 3 * 5
    assert np.isnan(results["sample_stats"]["khat"]).all()  # 15 weights have no tail
    assert [f.pitfall for f in backend.api.diagnose(results)].count("heavy weights") == 0
    with pytest.raises(ValueError, match="at most the kernel's num_slots=5, got 6"):
        pooled(backend, mcmc, 6)
    with pytest.raises(ValueError, match="num_slots must be an integer >= 1, got 0"):
        backend.api.StreamingLAIRKernel(*pair, num_slots=0)
