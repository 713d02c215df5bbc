"""VAEs of each net and likelihood, their data, and weight files without a zero in them."""

from math import log, pi

import numpy as np
import pytest

from ppl_vae.weights import write_weights

__all__ = ["CASES", "each_case", "log_normal", "rows_of", "shaken", "write_shaken"]

CASES = {  # event_shape, latent_dim, hidden, likelihood
    "mlp-bernoulli": ((11,), 3, (16, 12), "bernoulli"),
    "mlp-normal": ((11,), 3, (16, 12), "normal"),
    "mlp-categorical": ((11,), 3, (16, 12), ("categorical", 4)),
    "matrix-bernoulli": ((4, 3), 3, (16,), "bernoulli"),
    "linear-normal": ((5,), 2, (), ("normal", 0.3)),
    "conv-bernoulli": ((1, 8, 8), 3, (4, 6), "bernoulli"),
    "conv-normal": ((3, 8, 4), 3, (4, 6), "normal"),
    "odd-conv-bernoulli": ((1, 7, 5), 3, (4, 6, 5), "bernoulli"),
    "odd-conv-normal": ((2, 7, 5), 3, (4, 6), "normal"),
    "odd-conv-categorical": ((2, 7, 5), 3, (4, 6), ("categorical", 3)),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def rows_of(case, num_rows, dtype=np.float32, seed=0):
    event_shape, latent_dim, _, likelihood = case
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(num_rows, latent_dim))
    if likelihood == "bernoulli":
        x = rng.integers(0, 2, (num_rows, *event_shape))
    elif "normal" in likelihood:
        x = rng.normal(size=(num_rows, *event_shape))
    else:
        x = rng.integers(0, likelihood[1], (num_rows, *event_shape))
    return x.astype(dtype), z.astype(dtype)


def shaken(weights, dtype=np.float32, seed=1):
    """Weights without a zero: initial biases and scales would hide a wrong name or order."""
    rng = np.random.default_rng(seed)
    return {k: (w + 0.3 * rng.normal(size=w.shape)).astype(dtype) for k, w in weights.items()}


def write_shaken(path, twin, case, dtype=np.float32):
    fitted = twin.build(*case)
    weights = shaken(twin.weights(fitted), dtype)
    vae = fitted[0] if twin.name == "numpyro" else fitted
    write_weights(path, weights, {"architecture": vae.architecture()})
    return weights


def log_normal(x, loc, scale):
    return -0.5 * ((x - loc) / scale) ** 2 - np.log(scale) - 0.5 * log(2 * pi)
