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
