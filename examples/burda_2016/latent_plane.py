"""A latent plane: the exact posterior on a grid beside q, with more particles and with fewer.

Two latents, so that p(z | x) can be had by quadrature. An encoder trained by the importance
weighted bound may be further from it than one trained by the evidence lower bound, which punishes a
q that is too wide. Draws resampled from q by their weights (SIR) come from the posterior all the
same.
"""

import time
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from burda import budget, over_images, print_rows, problem, sheet_of
from experiment import Results
from films import save_film, trainings
from scipy.stats import norm

NUM_SHOWN = 6  # images whose posteriors are drawn
BOUNDS = (-5.0, 5.0)
NUM_POINTS = 251
SIDE = 12  # of the sheet of images over the plane
NUM_SAMPLES = 200  # resampled for each image
NUM_DRAWS = 25  # decoded of each image that is shown, a sheet of 5 x 5


class Posteriors(NamedTuple):
    """Of the images in `problem`, by each of the ways to get at their posteriors."""

    grid: Any  # `grid_posterior`
    resampled: Any  # `importance_posterior`, InferenceData
    images_q: np.ndarray  # pixel probabilities at draws of q, (NUM_DRAWS, NUM_SHOWN, pixels)
    images_sir: np.ndarray  # and at draws resampled


class Snapshot(NamedTuple):
    """The plane at one moment of training."""

    epoch: int
    sheet: np.ndarray  # pixel probabilities over the plane, (SIDE^2, pixels)
    means: np.ndarray  # of q for the validation images, (row, 2)


def points():
    """Points of the sheet, at the normal law's quantiles, from the upper left, (SIDE^2, 2)."""
    axis = norm.ppf((np.arange(SIDE) + 0.5) / SIDE)
    return np.stack(np.meshgrid(axis, axis[::-1]), -1).reshape(-1, 2).astype(np.float32)


def draws_of_q(seed, loc, scale):
    """Latents of the images shown, (NUM_DRAWS, NUM_SHOWN, 2)."""
    noise = np.random.default_rng(seed).normal(size=(NUM_DRAWS, *loc.shape))
    return (loc + scale * noise).astype(np.float32)


def run(args, device, train, study):
    """Train, look and compare, one objective after the other; write rows, figures, animation.

    `train(method, num_particles, given)` yields a `Snapshot` with the program, `study(program, x)`
    returns `Posteriors`.
    """
    results, given = Results(args, device), problem(args)
    for method, snapshots, program, begin in trainings(results, train, given):
        film(snapshots, given, args.out / f"training_{method}.gif")
        found = study(program, given.x_test)
        posteriors(found, given).savefig(args.out / f"posteriors_{method}.png", dpi=120)
        reconstructions(found, given).savefig(args.out / f"reconstructions_{method}.png", dpi=120)
        found.resampled.to_netcdf(args.out / f"posterior_{method}.nc")
        ran = {"budget": budget(args, given), "seconds": time.perf_counter() - begin}
        results.add(over_images("z in the plane", method, values(found), **ran))
    print_rows(results.rows, args.out)


def values(found):
    """What is found for every image, by metric."""
    evidence = found.grid.log_evidence.values
    by_weights = found.resampled["estimates"].log_likelihood.values.squeeze()
    return {
        "log_likelihood by quadrature": evidence,
        "log_likelihood by weights": by_weights,
        "weights less quadrature": by_weights - evidence,
        "KL(q || posterior)": found.grid.kl_guide.values,
    }


def posteriors(found, given):
    """One column an image: itself, its exact posterior with resampled draws, and q."""
    fig, axes = plt.subplots(3, NUM_SHOWN, figsize=(1.9 * NUM_SHOWN, 5.6), layout="constrained")
    draws = found.resampled["posterior"]["z1"].values[0]  # (draw, row, 2)
    for i in range(NUM_SHOWN):
        image, exact, guide = axes[:, i]
        image.imshow(given.x_test[i].reshape(given.image_shape), cmap="gray_r")
        image.set(xticks=[], yticks=[])
        row = found.grid.isel(row=i)
        for ax, log_density in ((exact, row.log_posterior), (guide, row.log_guide)):
            density = np.exp(log_density.values).T
            ax.pcolormesh(row.z_0, row.z_1, density, cmap="Blues", shading="nearest")
            ax.set(**window(row), aspect="equal", xlabel="$z_0$")
        exact.plot(*draws[:100, i].T, ".", ms=1.5, color="C3")
        guide.set_title(f"KL = {float(row.kl_guide):.2f}", fontsize=9)
    for ax, label in zip(axes[:, 0], ("image", "p(z | x), SIR draws", "q(z | x)"), strict=True):
        ax.set_ylabel(label)
    return fig


def window(row):
    """Limits of the axes, a square around nearly all of the exact posterior and of q."""
    both = np.exp(row.log_posterior) + np.exp(row.log_guide)
    ends = []
    for axis, other in (("z_0", "z_1"), ("z_1", "z_0")):
        share = both.sum(other).cumsum(axis) / both.sum()
        ends.append(row[axis].values[[int((share < q).sum()) for q in (1e-3, 1 - 1e-3)]])
    (left, right), (low, high) = ends
    reach = max(right - left, high - low) / 2 + 0.05
    x, y = (left + right) / 2, (low + high) / 2
    return {"xlim": (x - reach, x + reach), "ylim": (y - reach, y + reach)}


def reconstructions(found, given):
    """Sheets of images decoded from q and from the resampled draws, one column an image."""
    fig, axes = plt.subplots(2, NUM_SHOWN, figsize=(2 * NUM_SHOWN, 4.2), layout="constrained")
    for i in range(NUM_SHOWN):
        for ax, images in zip(axes[:, i], (found.images_q, found.images_sir), strict=True):
            ax.imshow(sheet_of(images[:, i], given.image_shape), cmap="gray_r", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("decoded draws of q")
    axes[1, 0].set_ylabel("decoded SIR draws")
    return fig


def film(snapshots, given, path):
    """Write the plane's images and the encoder's means at every snapshot as one GIF."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 4.2), layout="constrained")
    picture = left.imshow(
        sheet_of(snapshots[0].sheet, given.image_shape), cmap="gray_r", vmin=0, vmax=1
    )
    left.set(xticks=[], yticks=[], xlabel="decoded plane, by the prior's quantiles")
    points = right.scatter(*snapshots[0].means.T, c=given.y_validation, cmap="tab10", s=6)
    right.set(xlim=BOUNDS, ylim=BOUNDS, xlabel="$z_0$", ylabel="$z_1$")
    fig.colorbar(points, ax=right, label="class")

    def show(snapshot):
        picture.set_data(sheet_of(snapshot.sheet, given.image_shape))
        points.set_offsets(snapshot.means)

    save_film(fig, show, snapshots, path)
