"""Two separated modes of equal mass: MWG stays in the one it starts in, AC-MWG and LAIR do not.

Given x_0 the sign of z is free, and x_1 is +4 or -4 with it. The guide reads the sign off x_1.
"""

import numpy as np
import pytest
from oracles import TwoModes, largest_score, z_scores

from ppl_vae.diagnosis import diagnose

COPIES = 150
X = np.tile(np.array([[1.0, np.nan]], np.float32), (COPIES, 1))
TRUTH = TwoModes()


def run(backend, name, **options):
    kernel = getattr(backend.api, name)(*backend.programs.two_modes(TRUTH), **options)
    return backend.run(kernel, backend.array(X), num_warmup=200, num_samples=300, num_chains=2)


def in_upper_mode(backend, mcmc):
    """Whether each draw lies in the mode x_1 > 0, (replicate, draw)."""
    x_1 = backend.draws(mcmc)["x"][..., 1]
    assert np.abs(np.abs(x_1) - 4).max() < 8 * TRUTH.scale, "a draw between the modes"
    if x_1.ndim == 4:  # a population's members are draws of one iteration
        x_1 = x_1.reshape(2, -1, COPIES)
    return x_1.swapaxes(1, 2).reshape(2 * COPIES, -1) > 0


def test_mwg_never_leaves_its_mode(backend):
    mcmc = run(backend, "MWGKernel")
    assert set(np.unique(in_upper_mode(backend, mcmc).mean(1))) == {0.0, 1.0}
    findings = {f.pitfall: f for f in diagnose(backend.api.to_inference_data(mcmc))}
    assert findings["one mode each"].rows.size > COPIES / 4  # about half: chains in two modes


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ACMWGKernel", {"prior_probability": 0.2}),
        ("ACMWGKernel", {"prior_probability": 0.2, "history_size": 1}),
        ("LAIRKernel", {"num_particles": 4, "num_prior": 1}),
    ],
)
def test_modes_get_their_masses(backend, name, options):
    """Masses 0.5 within 300 replicates' standard error (false alarm 1e-5), and chains do cross."""
    upper = in_upper_mode(backend, run(backend, name, **options)).astype(float)
    assert np.abs(z_scores(upper, 0.5, num_batches=1)) < largest_score(1)
    assert np.median(np.minimum(upper.mean(1), 1 - upper.mean(1))) > 0.15
