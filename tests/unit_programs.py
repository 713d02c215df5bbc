"""Programs whose latent units are partly dead, of one layer and of two, in closed form."""

import numpy as np
from host_words import words
from kernel_parts import real
from oracles import LinearGaussian
from seeded_calls import call

RNG = np.random.default_rng(0)
NUM_ROWS = 300
DEAD = [1, 3]
WEIGHT = RNG.normal(size=(8, 5))
WEIGHT[:, DEAD] = 0
TRUTH = LinearGaussian(WEIGHT, RNG.normal(size=8), 0.6)
X = TRUTH.draw(RNG, NUM_ROWS).astype("float32")


def units_of(backend, pair, x=X, *args, **options):
    return call(backend, "active_units", pair, x, *args, progress_bar=False, **options)


def log_p(backend, pair, x=X, **options):
    idata = call(backend, "log_likelihood", pair, x, progress_bar=False, **options)
    return idata["estimates"]["log_likelihood"], idata["estimates"]["standard_error"]


def normal_pair(backend, truth=TRUTH, stretch=1.0):
    """z with independent entries in model and guide, as units that are cut must have."""
    ppl, weight, bias = words(backend), real(backend, truth.weight), real(backend, truth.bias)
    gain, covariance = truth.posterior
    gain, sd = real(backend, gain), real(backend, stretch * np.diagonal(covariance) ** 0.5)
    zeros = real(backend, np.zeros(truth.weight.shape[1]))

    def model(x):
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(zeros, 1.0).to_event(1))
            ppl.sample("x", ppl.dist.Normal(z @ weight.T + bias, truth.scale).to_event(1), obs=x)

    def guide(x):
        loc = (x - bias) @ gain.T
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(loc, sd).to_event(1))

    return model, guide


# Two layers: z2 ~ N(0, I), z1 ~ N(V z2, s1^2 I), x ~ N(W z1 + b, s^2 I). Of z2 two units do not
# reach z1; of z1 one unit is not read by x, nor does it depend on z2.
UPPER = RNG.normal(size=(4, 3))
UPPER[:, 1] = 0
UPPER[2] = 0
LOWER = RNG.normal(size=(6, 4))
LOWER[:, 2] = 0
SCALE_1, SCALE_X = 0.7, 2.0
PRIOR_1 = UPPER @ UPPER.T + SCALE_1**2 * np.eye(4)
X_2 = (
    RNG.normal(size=(NUM_ROWS, 3)) @ (LOWER @ UPPER).T
    + SCALE_1 * RNG.normal(size=(NUM_ROWS, 4)) @ LOWER.T
    + SCALE_X * RNG.normal(size=(NUM_ROWS, 6))
).astype("float32")
COVARIANCE_1 = np.linalg.inv(np.linalg.inv(PRIOR_1) + LOWER.T @ LOWER / SCALE_X**2)
MEAN_1 = X_2 @ LOWER @ COVARIANCE_1 / SCALE_X**2  # of z1 given x
GAIN_2 = UPPER.T @ np.linalg.inv(PRIOR_1)  # z2 given z1 has mean GAIN_2 z1
COVARIANCE_2 = np.eye(3) - GAIN_2 @ UPPER


def layers(backend):
    """Guide bottom-up: means exact, spreads those of the entries, stretched."""
    ppl = words(backend)
    upper, lower = real(backend, UPPER), real(backend, LOWER)
    gain_1 = real(backend, COVARIANCE_1 @ LOWER.T / SCALE_X**2)
    gain_2 = real(backend, GAIN_2)
    sd_1, sd_2 = (real(backend, np.diagonal(c) ** 0.5) for c in (COVARIANCE_1, COVARIANCE_2))
    zeros = real(backend, np.zeros(3))

    def model(x):
        with ppl.plate("rows", len(x)):
            z2 = ppl.sample("z2", ppl.dist.Normal(zeros, 1.0).to_event(1))
            z1 = ppl.sample("z1", ppl.dist.Normal(z2 @ upper.T, SCALE_1).to_event(1))
            ppl.sample("x", ppl.dist.Normal(z1 @ lower.T, SCALE_X).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", len(x)):
            z1 = ppl.sample("z1", ppl.dist.Normal(x @ gain_1.T, sd_1).to_event(1))
            ppl.sample("z2", ppl.dist.Normal(z1 @ gain_2.T, sd_2).to_event(1))

    return model, guide
