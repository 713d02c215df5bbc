"""The kernels as blocks of `numpyro.infer.Gibbs`: latents of rows by ours, a global by another."""

import numpy as np
import pytest
from oracles import LinearGaussian, batch_means_error

pytest.importorskip("numpyro")


@pytest.mark.exact
@pytest.mark.parametrize(
    ("name", "of_global"),
    [
        ("MWGKernel", "NUTS"),
        pytest.param("ACMWGKernel", "CustomGibbs", marks=pytest.mark.slow),
    ],
)
def test_the_posterior_of_a_global_mean(name, of_global):
    """x ~ N(W z + mean, s^2), mean ~ N(0, 2^2): a closed form; 4 standard errors, twice."""
    import jax.numpy as jnp
    from foreign_numpyro import global_mean
    from jax import random
    from numpyro.infer import MCMC, NUTS, CustomGibbs, Gibbs

    import ppl_vae.numpyro as api

    truth, rng = LinearGaussian.example(), np.random.default_rng(0)
    mask = rng.random((20, 5)) < 0.6
    mask[0] = False
    x = 1.0 + truth.draw(rng, 20) - truth.bias
    filled = np.where(mask, x, 0.0)
    gain, covariance = truth.posterior
    arrays = {
        "weight": truth.weight, "scale": truth.scale, "gain": gain, "shift": 0.1,
        "chol": 1.1 * np.linalg.cholesky(covariance),
    }  # fmt: skip
    model, guide, update_mean = global_mean(arrays, filled, mask)
    other = {"NUTS": NUTS(model), "CustomGibbs": CustomGibbs(update_mean)}[of_global]
    kernel = Gibbs([(getattr(api, name)(model, guide), ["z"]), (other, ["mean"])])
    mcmc = MCMC(
        kernel, num_warmup=300, num_samples=2_000, num_chains=2, chain_method="sequential",
        progress_bar=False,
    )  # fmt: skip
    mcmc.run(random.key(0), jnp.asarray(filled), mask=jnp.asarray(mask))
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["mean"])

    mean, variance = posterior_of_mean(truth.covariance, x, mask, prior_variance=4.0)
    for values, expected in ((draws, mean), ((draws - mean) ** 2, variance)):
        assert abs(values.mean() - expected) < 4 * batch_means_error(values)


def posterior_of_mean(covariance, x, mask, prior_variance):
    precision, weighted = 1 / prior_variance, 0.0
    for row, seen in zip(x, mask, strict=True):
        solved = np.linalg.solve(covariance[np.ix_(seen, seen)], np.ones(seen.sum()))
        precision, weighted = precision + solved.sum(), weighted + solved @ row[seen]
    return weighted / precision, 1 / precision
