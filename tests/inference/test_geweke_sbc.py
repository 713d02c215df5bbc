"""Geweke's joint test of single steps, and simulation-based calibration of whole runs.

Rows are independent: one batch of rows is one batch of replicates. The model is skewed and
counts, so that symmetric errors do not cancel. False alarm of each test: 1e-5 over seeds.
"""

import numpy as np
import pytest
from kernel_parts import ac_mwg_state, bind, module, mwg_state, one_chain, seeded
from oracles import GammaPoisson, largest_score, z_scores
from scipy import stats

TRUTH = GammaPoisson()
NUM_ROWS, SWEEPS = 4_000, 12


def masks(rng, num_rows):
    mask = rng.random((num_rows, len(TRUTH.rate))) < 0.6
    mask[: num_rows // 10] = False  # nothing observed: the step must leave the prior alone
    return mask


def one_step(backend, kernel, seed, mask, x, z, past):
    """One step of a kernel, from x and z of numpy to x and z of numpy."""
    program = bind(backend, backend.programs.gamma_poisson(TRUTH), x, mask)
    method = module(backend, kernel)
    latents = {"z": backend.array(z.astype(np.float32))}
    if kernel == "mwg":
        state, options = mwg_state(backend, program, x, latents), {}
    else:
        state = ac_mwg_state(backend, program, x, latents, np.where(mask, x, past))
        options = {"prior_probability": 0.2}
    new, info = seeded(backend, method.step, seed, program, state, **options)
    assert 0.05 < np.asarray(info.acceptance_rate).mean() < 0.95
    return tuple(one_chain(backend, v).astype(float) for v in (new.x, new.z["z"]))


@pytest.mark.parametrize("kernel", ["mwg", "ac_mwg"])
def test_geweke_steps_keep_the_joint_law(backend, kernel):
    """Alternate z, x_m | x_o by the kernel and x | z by the model, from draws of p(z, x).

    AC-MWG's history is drawn anew from the prior predictive before every step.
    """
    rng = np.random.default_rng(1)
    mask = masks(rng, NUM_ROWS)
    z, x = TRUTH.draw(rng, NUM_ROWS)
    for sweep in range(SWEEPS):
        x = rng.poisson(z[:, None] * TRUTH.rate).astype(float)
        _, past = TRUTH.draw(rng, NUM_ROWS)
        x, z = one_step(backend, kernel, sweep, mask, x, z, past)

    z_true, x_true = TRUTH.draw(np.random.default_rng(2), 400_000)
    scores = z_scores(features(z, x)[:, None], features(z_true, x_true).mean(0), num_batches=1)
    assert np.abs(scores).max() < largest_score(len(scores), 5e-6)


def features(z, x):
    """Functions of the joint law whose means are compared, (B, features)."""
    z = z[:, None]
    return np.c_[z, z**2, z < 1, z < 3, np.log(z), x, x == 0, x > 4, x * np.log(z), x[:, :1] * x]


@pytest.mark.parametrize("name", ["MWGKernel", pytest.param("ACMWGKernel", marks=pytest.mark.slow)])
def test_ranks_of_the_true_latent_are_uniform(backend, name):
    """SBC: the rank of the true z among thinned draws of z | x_o; chi-square of 10 bins."""
    rng = np.random.default_rng(4)
    z, x = TRUTH.draw(rng, 2_000)
    mask = masks(rng, len(z))
    data = np.where(mask, x, np.nan).astype(np.float32)
    kernel = getattr(backend.api, name)(*backend.programs.gamma_poisson(TRUTH))
    mcmc = backend.run(
        kernel, backend.array(data), num_warmup=60, num_samples=190, num_chains=1, seed=1
    )
    kept = backend.draws(mcmc)["z"][0, 9::10]  # 19 draws: ranks 0 to 19
    rank = (kept < z).sum(0)
    assert stats.chisquare(np.bincount(rank // 2, minlength=10)).pvalue > 1e-5
