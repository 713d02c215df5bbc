"""The latent space of two stochastic layers: z1 of four dimensions, z2 of two above it.

Posterior means of both layers by self-normalised importance sampling, drawn in the plane: z1
standardised and then rotated to its two principal components, z2 rotated to its own.
"""

from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from burda import over_images, print_rows, problem
from experiment import Results

LATENT_DIMS = (4, 2)
TRAININGS = {"VAE": 1, "IWAE": 50}  # particles


class Latents(NamedTuple):
    """Of every test image."""

    resampled: Any  # `importance_posterior`, InferenceData
    kl: Any  # `kl_per_site`

    def means(self, site):
        """Posterior means of a layer, (row, L)."""
        return self.resampled["estimates"][f"{site}_mean"].values


def run(args, device, train_and_look):
    """Train and look, one objective after the other; write rows, draws and figures.

    `train_and_look(method, num_particles, given)` returns `Latents`.
    """
    results, given = Results(args, device), problem(args)
    for method, num_particles in TRAININGS.items():
        if results.has(method):
            print(f"{method}: done before")
            continue
        print(f"{method}, k = {num_particles}:", flush=True)
        found = train_and_look(method, num_particles, given)
        planes = {
            "z1": principal(standardised(found.means("z1"))),
            "z2": principal(found.means("z2")),
        }
        figure(planes, given.y_test).savefig(args.out / f"latents_{method}.png", dpi=120)
        found.resampled.to_netcdf(args.out / f"posterior_{method}.nc")
        results.add(_rows(args, method, found, planes, given.y_test))
    print_rows(results.rows, args.out)


def standardised(means):
    """Each dimension with mean 0 and standard deviation 1; one that is constant stays 0."""
    scale = means.std(0)
    return (means - means.mean(0)) / np.where(scale > 0, scale, 1)


def principal(means):
    """The first two principal components, (row, 2)."""
    centred = means - means.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    return centred @ axes[:2].T


def neighbours_agree(points, labels, k=5):
    """Share of each point's k nearest others that are of its class, (row,)."""
    distance = ((points[:, None] - points) ** 2).sum(-1)
    np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, 1)[:, :k]
    return (labels[nearest] == labels[:, None]).mean(1)


def _rows(args, method, found, planes, labels):
    estimates, kl = found.resampled["estimates"], found.kl["estimates"].kl
    values = {
        "log_likelihood": estimates.log_likelihood.values,
        "effective weights": estimates.ess.values,
        **{f"KL of {site}": kl.sel(site=site).values for site in planes},
        **{f"neighbours of one class, {s}": neighbours_agree(p, labels) for s, p in planes.items()},
    }
    return over_images(args, "z1 of 4, z2 of 2", method, values)


def figure(planes, labels):
    """The two layers' planes, one colour a class."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    for ax, (site, points) in zip(axes, planes.items(), strict=True):
        drawn = ax.scatter(*points.T, c=labels, cmap="tab10", s=6)
        ax.set(
            title=f"posterior means of {site}",
            xlabel="first principal component",
            ylabel="second principal component",
        )
    fig.colorbar(drawn, ax=axes, label="class")
    return fig
