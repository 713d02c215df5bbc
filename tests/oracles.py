"""Closed-form and enumerated answers, in numpy: what every sampler is tested against."""

from dataclasses import dataclass, field
from itertools import product
from typing import ClassVar

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class LinearGaussian:
    """z ~ N(0, I), x ~ N(W z + b, s^2 I); everything about it is known."""

    weight: np.ndarray  # (D, L)
    bias: np.ndarray  # (D,)
    scale: float

    @staticmethod
    def example(seed: int = 0, num_features: int = 5, latent_dim: int = 2) -> "LinearGaussian":
        rng = np.random.default_rng(seed)
        weight = rng.normal(size=(num_features, latent_dim))
        return LinearGaussian(weight, rng.normal(size=num_features), 0.6)

    @property
    def covariance(self) -> np.ndarray:
        return self.weight @ self.weight.T + self.scale**2 * np.eye(len(self.bias))

    @property
    def posterior(self) -> tuple[np.ndarray, np.ndarray]:
        """(A, S) with p(z | x) = N(A (x - b), S)."""
        precision = np.eye(self.weight.shape[1]) + self.weight.T @ self.weight / self.scale**2
        covariance = np.linalg.inv(precision)
        return covariance @ self.weight.T / self.scale**2, covariance

    def missing_given_observed(
        self, x: np.ndarray, mask: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of p(x_m | x_o) for one row."""
        c, m, o = self.covariance, ~mask, mask
        gain = c[np.ix_(m, o)] @ np.linalg.inv(c[np.ix_(o, o)])
        mean = self.bias[m] + gain @ (x[o] - self.bias[o])
        return mean, c[np.ix_(m, m)] - gain @ c[np.ix_(o, m)]

    def log_evidence(self, x: np.ndarray, mask: np.ndarray) -> float:
        """log p(x_o) for one row, in nats."""
        c = self.covariance[np.ix_(mask, mask)]
        r = (x - self.bias)[mask]
        quadratic = r @ np.linalg.solve(c, r)
        return float(-0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * c)[1]))

    def draw(self, rng: np.random.Generator, num_rows: int) -> np.ndarray:
        z = rng.normal(size=(num_rows, self.weight.shape[1]))
        noise = rng.normal(size=(num_rows, len(self.bias)))
        return z @ self.weight.T + self.bias + self.scale * noise


@dataclass(frozen=True)
class Discrete:
    """z on a few points, x a few bits: every law is a table."""

    prior: np.ndarray  # (Z,)
    bit: np.ndarray  # p(x_d = 1 | z), (Z, D)
    guide_weight: np.ndarray  # q(z | x) = softmax(x @ guide_weight + guide_bias), (D, Z)
    guide_bias: np.ndarray  # (Z,)

    @staticmethod
    def example(seed: int = 0, num_latents: int = 8, num_bits: int = 5) -> "Discrete":
        rng = np.random.default_rng(seed)
        return Discrete(
            rng.dirichlet(np.full(num_latents, 2.0)),
            rng.beta(0.5, 0.5, size=(num_latents, num_bits)).clip(0.05, 0.95),
            rng.normal(size=(num_bits, num_latents)),
            rng.normal(size=num_latents),
        )

    def with_exact_guide(self) -> "Discrete":
        """The same model with q(z | x) = p(z | x), which is of the guide's form."""
        weight = np.log(self.bit / (1 - self.bit)).T
        bias = np.log(self.prior) + np.log1p(-self.bit).sum(1)
        return Discrete(self.prior, self.bit, weight, bias)

    def completions(self, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """All rows that agree with x where mask is True."""
        rows = []
        for bits in product([0.0, 1.0], repeat=int((~mask).sum())):
            row = np.where(mask, x, 0.0)
            row[~mask] = bits
            rows.append(row)
        return np.array(rows)

    def likelihood(self, rows: np.ndarray) -> np.ndarray:
        """p(x_d | z) entry by entry, (Z, N, D)."""
        return np.where(rows[None] == 1, self.bit[:, None], 1 - self.bit[:, None])

    def joint_given_observed(self, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """p(z, x_m | x_o) as a table (Z, N) over `completions`."""
        joint = self.prior[:, None] * self.likelihood(self.completions(x, mask)).prod(-1)
        return joint / joint.sum()

    def guide(self, rows: np.ndarray) -> np.ndarray:
        """q(z | x), (N, Z)."""
        logits = rows @ self.guide_weight + self.guide_bias
        weights = np.exp(logits - logits.max(1, keepdims=True))
        return weights / weights.sum(1, keepdims=True)


@dataclass(frozen=True)
class TwoModes:
    """z ~ N(0, 1); x_0 ~ N(|z|, s^2) is observed, x_1 ~ N(4 sign(z), s^2) is not.

    Given x_0 the sign of z is free, p(x_1 | x_0) has two equal modes eight units apart, and a
    guide that reads the sign off x_1 never proposes the other one.
    """

    scale: float = 0.3
    guide_scale: float = 0.3
    share_of_positive: float = 0.5


@dataclass(frozen=True)
class GammaPoisson:
    """z ~ Gamma(shape, 1), x_d ~ Poisson(z rate_d): skewed, so that a sign error shows."""

    shape: float = 2.0
    rate: np.ndarray = field(default_factory=lambda: np.array([0.5, 1.5, 3.0]))
    guide_shift: float = 0.2
    guide_scale: float = 0.7

    def draw(self, rng: np.random.Generator, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
        """(z, x) of the model, (B,) and (B, D)."""
        z = rng.gamma(self.shape, size=num_rows)
        return z, rng.poisson(z[:, None] * self.rate).astype(float)


@dataclass(frozen=True)
class Spike:
    """z ~ N(0, 1), x_0 ~ N(z, 0.5^2), x_1 = factor z to all digits; z | x_0 ~ N(0.8 x_0, 0.2).

    In float32 the density of any other x_1 is zero: its exponent overflows.
    """

    spike_scale: float = 2e-19
    factor: ClassVar[np.float32] = np.float32(2**20)


def batch_means_error(draws: np.ndarray, num_batches: int = 25) -> np.ndarray:
    """Standard error of the mean of correlated draws (chain, draw, ...), by batch means."""
    chains, length = draws.shape[:2]
    size = length // num_batches
    batches = draws[:, : size * num_batches].reshape(chains, num_batches, size, *draws.shape[2:])
    means = batches.mean(2).reshape(chains * num_batches, *draws.shape[2:])
    return means.std(0, ddof=1) / np.sqrt(len(means))


def z_scores(draws: np.ndarray, truth: np.ndarray, num_batches: int = 5) -> np.ndarray:
    """(mean - truth) / standard error of draws (replicate, draw, ...); replicates independent.

    With num_batches * replicates >= 200 the scores are normal for all that the tests need.
    """
    difference = draws.mean((0, 1)) - truth
    return difference / np.maximum(batch_means_error(draws, num_batches), 1e-12)


def largest_score(num_scores: int, false_alarm: float = 1e-5) -> float:
    """The bound that `num_scores` true z-scores pass but for a share `false_alarm` of seeds."""
    return float(stats.norm.isf(false_alarm / (2 * num_scores)))


def excess_of_counts(counts: np.ndarray, expected: np.ndarray) -> float:
    """p-value of the chi-square test of rows of counts (S, cells) against expected counts.

    Cells of a row that expect fewer than 10 are merged into one.
    """
    statistic, freedom = 0.0, 0
    for seen, mean in zip(counts, expected, strict=True):
        few = mean < 10
        seen = np.append(seen[~few], seen[few].sum())
        mean = np.append(mean[~few], mean[few].sum())
        seen, mean = (seen[:-1], mean[:-1]) if mean[-1] < 1e-9 else (seen, mean)
        statistic += ((seen - mean) ** 2 / np.maximum(mean, 1e-9)).sum()
        freedom += len(mean) - 1
    return float(stats.chi2.sf(statistic, freedom))
