"""The latent space of two stochastic layers: z1 of four dimensions, z2 of two above it.

Posterior means of both layers by self-normalised importance sampling, drawn in the plane: z1
standardised and then rotated to its two principal components, z2 rotated to its own. The film of a
training shows images of the same draws from the prior, and of ten z1 for each of ten z2.
"""

import time
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from burda import budget, over_images, print_rows, problem, sheet_of
from experiment import Results
from films import save_film, trainings
from scipy.spatial import cKDTree

LATENT_DIMS = (4, 2)
SIDE = 10  # of the sheets of images


class Latents(NamedTuple):
    """Of every test image."""

    resampled: Any  # `importance_posterior`, InferenceData
    kl: Any  # `kl_per_site`

    def means(self, site):
        """Posterior means of a layer, (row, L)."""
        return self.resampled["estimates"][f"{site}_mean"].values


class Snapshot(NamedTuple):
    """What the prior makes of `noise` at one moment of training: pixel probabilities."""

    epoch: int
    images: np.ndarray  # (SIDE^2, pixels)
    families: np.ndarray  # one z2 a line, (SIDE^2, pixels)


def noise(seed):
    """Standard normal noise of z1 and z2, for `Snapshot.images` and for `Snapshot.families`."""
    rng = np.random.default_rng(seed)
    z1, z2 = (rng.normal(size=(SIDE**2, n)).astype(np.float32) for n in LATENT_DIMS)
    return {"z1": z1, "z2": z2}, {"z1": z1, "z2": np.repeat(z2[:SIDE], SIDE, 0)}


def run(args, device, train, look):
    """Train and look, one objective after the other; write rows, draws, figures and films.

    `train(method, num_particles, given)` yields a `Snapshot` with the program, `look(program, x)`
    returns `Latents`.
    """
    results, given = Results(args, device), problem(args)
    for method, snapshots, program, begin in trainings(results, train, given):
        film(args.seed, snapshots, given, args.out / f"training_{method}.gif")
        found = look(program, given.x_test)
        planes = {
            "z1": principal(standardised(found.means("z1"))),
            "z2": principal(found.means("z2")),
        }
        figure(planes, given.y_test).savefig(args.out / f"latents_{method}.png", dpi=120)
        found.resampled.to_netcdf(args.out / f"posterior_{method}.nc")
        ran = {"budget": budget(args, given), "seconds": time.perf_counter() - begin}
        of_images = values(found, planes, given.y_test)
        results.add(over_images("z1 of 4, z2 of 2", method, of_images, **ran))
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
    _, nearest = cKDTree(points).query(points, k + 1)
    others = nearest != np.arange(len(points))[:, None]
    others[others.all(1), -1] = False  # more than k others are at the very same place
    nearest = nearest[others].reshape(-1, k)
    return (labels[nearest] == labels[:, None]).mean(1)


def values(found, planes, labels):
    """What is found for every image, by metric."""
    estimates, kl = found.resampled["estimates"], found.kl["estimates"].kl
    return {
        "log_likelihood": estimates.log_likelihood.values,
        "effective weights": estimates.ess.values,
        **{f"KL of {site}": kl.sel(site=site).values for site in planes},
        **{f"neighbours of one class, {s}": neighbours_agree(p, labels) for s, p in planes.items()},
    }


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


def film(seed, snapshots, given, path):
    """Write the prior's images, pixels drawn from them, and the families as one GIF."""
    titles = ("draws of the prior", "their pixels, drawn", "one z2 a line")
    fig, axes = plt.subplots(1, 3, figsize=(11, 4.2), layout="constrained")
    pictures = []
    for ax, title in zip(axes, titles, strict=True):
        blank = sheet_of(np.zeros_like(snapshots[0].images), given.image_shape)
        pictures.append(ax.imshow(blank, cmap="gray_r", vmin=0, vmax=1))
        ax.set(title=title, xticks=[], yticks=[])
    uniform = np.random.default_rng(seed).random(snapshots[0].images.shape)

    def show(snapshot):
        drawn = uniform < snapshot.images
        for picture, images in zip(
            pictures, (snapshot.images, drawn, snapshot.families), strict=True
        ):
            picture.set_data(sheet_of(images, given.image_shape))

    save_film(fig, show, snapshots, path)
