"""A chain goes on after the model was trained further: what its state keeps is computed anew."""

import numpy as np
import pytest
from host_words import words
from kernel_parts import real
from scipy import stats

X = np.array([[0.4, np.nan], [np.nan, np.nan], [-0.3, np.nan]])


def programs(backend, shift):
    """x ~ N(z + shift, 0.5^2); the guide is wide, so that some moves are refused."""
    ppl = words(backend)

    def model(x):
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0 * x[:, 0], 1.0))
            ppl.sample("x", ppl.dist.Normal(z[:, None] + shift + 0 * x, 0.5).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(0 * x[:, 0], 3.0))

    return model, guide


@pytest.mark.parametrize("name", ["MWGKernel", "ACMWGKernel", "HMCRefreshKernel"])
def test_densities_are_those_of_the_model_at_hand(backend, name):
    def kernel(shift):
        pair = programs(backend, shift)
        if name == "HMCRefreshKernel":
            return backend.api.HMCRefreshKernel(backend.api.MWGKernel(*pair), step_size=1e-4)
        return getattr(backend.api, name)(*pair)

    x = real(backend, X)
    before = backend.run(kernel(0.0), x, num_samples=20, num_chains=3)
    after = backend.run(kernel(5.0), x, num_samples=1, num_chains=3)
    state = before.last_state
    if backend.name == "numpyro":
        state = kernel(5.0).refresh(state, (x,), {})
    after.post_warmup_state = state
    after.num_samples = 30
    after.run(*([state.rng_key] if backend.name == "numpyro" else []), x)
    draws, info = backend.draws(after), backend.info(after)
    assert (info["accepted"][:, :5].mean() < 1) or name == "HMCRefreshKernel"
    z, completed = draws["z"], draws["x"]
    of_x = stats.norm.logpdf(X[:, 0], z + 5.0, 0.5)
    lp = stats.norm.logpdf(z) + np.where(np.isnan(X[:, 0]), 0.0, of_x)
    np.testing.assert_allclose(info["lp"], lp, atol=2e-3, rtol=1e-3)
    missing = completed[..., 1] - z - 5.0
    assert abs(missing.mean()) < 5 * 0.5 / np.sqrt(missing.size)
