"""Two latents in bounded intervals, one of them perhaps bounded by the other; truth on a grid."""

import importlib
from dataclasses import dataclass

import numpy as np
from host_words import words
from oracles import z_scores

GRID = (np.arange(400) + 0.5) / 400
BOUNDED_ROW, SHOWN = np.array([0.8, 0.1, 0.7]), np.array([True, False, True])


@dataclass(frozen=True)
class Bounded:
    """a ~ U(0, 1), b ~ U(0, a) or U(0, 1), x ~ N((a, b, a + b), s^2); on a grid."""

    nested: bool
    scale: float = 0.4

    def expectations(self, row, mask):
        """E of (a, b, a^2, b^2, a b, x_m, x_m^2) given what the mask shows; one x is missing."""
        a, b = np.meshgrid(GRID, GRID, indexing="ij")
        weight = np.where(b < a, 1 / a, 0.0) if self.nested else np.ones_like(a)
        if self.nested:
            weight[np.diag_indices(len(GRID))] = 0.5 / GRID
        loc = np.stack([a, b, a + b], -1)
        weight = weight * np.exp(-0.5 * (((row - loc)[..., mask] / self.scale) ** 2).sum(-1))
        missing = loc[..., ~mask][..., 0]
        values = [a, b, a * a, b * b, a * b, missing, missing**2 + self.scale**2]
        return np.array([(v * weight).sum() for v in values]) / weight.sum()

    def pair(self, backend):
        ppl = words(backend)

        def prior(x):
            a = ppl.sample("a", ppl.dist.Uniform(0 * x[:, 0], 1.0))
            b = ppl.sample("b", ppl.dist.Uniform(0 * x[:, 0], a if self.nested else 1.0))
            return a, b

        def model(x):
            with ppl.plate("rows", x.shape[0]):
                a, b = prior(x)
                x_of = stack(backend, [a, b, a + b])
                ppl.sample("x", ppl.dist.Normal(x_of, self.scale).to_event(1), obs=x)

        def guide(x):
            with ppl.plate("rows", x.shape[0]):
                a = ppl.sample("a", ppl.dist.Beta(2.0 + 0 * x[:, 0], 2.0))
                ppl.sample("b", ppl.dist.Uniform(0 * x[:, 0], a if self.nested else 1.0))

        return model, guide


def stack(backend, values):
    library = importlib.import_module({"numpyro": "jax.numpy", "pyro": "torch"}[backend.name])
    return library.stack(values, -1)


def bounded_scores(truth, a, b, x, num_batches, rows_are_replicates):
    """Scores of draws (chain, draw, row) against the grid, whose own error is below 1e-4."""
    missing = x[..., ~SHOWN][..., 0]
    values = np.stack([a, b, a * a, b * b, a * b, missing, missing**2], -1).astype(float)
    if rows_are_replicates:
        values = values.swapaxes(1, 2).reshape(-1, values.shape[1], values.shape[-1])
    else:
        values = values.mean(2)
    return z_scores(values, truth.expectations(BOUNDED_ROW, SHOWN), num_batches)
