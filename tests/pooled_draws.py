"""Draws pooled over a run of LAIR, and their distance from the truth."""

import numpy as np


def pooled(backend, mcmc, num_samples, **options):
    if backend.name == "numpyro":
        from jax import random

        return backend.api.pool(random.key(2), mcmc, num_samples, **options)
    return backend.api.pool(mcmc, num_samples, **options)


def z_scores(draws, truth):
    """(mean - truth) over its standard error, from independent chains (chain, draw, ...)."""
    means = draws.mean(1)
    return (means.mean(0) - truth) / (means.std(0, ddof=1) / np.sqrt(len(means)))


def moment_score(truth, draws, x, mask):
    """The largest z-score of means and covariances of missing entries against closed form.

    Of draws (chain, draw, row, entry) of independent chains, for the rows that have any.
    """
    largest, incomplete = 0.0, np.flatnonzero(~mask.all(1))
    assert len(incomplete)
    for row in incomplete:
        mean, covariance = truth.missing_given_observed(x[row], mask[row])
        centred = draws[:, :, row][..., ~mask[row]].astype(float) - mean
        products = centred[..., :, None] * centred[..., None, :]
        for score in (z_scores(centred, 0.0), z_scores(products, covariance)):
            largest = max(largest, np.abs(score).max())
    return largest
