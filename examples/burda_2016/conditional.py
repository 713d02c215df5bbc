"""Images given their class: the prior of the latents learned for each class, or the same for all.

p(x | y) = integral of p(x | z, y) p(z | y) dz,  with p(z | y) learned or Normal(0, I)
"""

import time
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from burda import budget, over_images, print_rows, problem, sheet_of
from experiment import Results

PRIORS, PARTICLES = ("learned", "standard"), (1, 5, 50)
NUM_CLASSES = 10
NUM_EACH = 10  # images drawn of each class


class Conditional(NamedTuple):
    """What one trained program says."""

    log_likelihood: Any  # of the images `with_every_class`
    images: np.ndarray  # means of x, one line a class, one column a latent, (100, pixels)


def noise(seed, num_latents):
    """The same ten latents for every class, before the prior shifts and scales them."""
    columns = np.random.default_rng(seed).normal(size=(NUM_EACH, num_latents))
    return np.tile(columns, (NUM_CLASSES, 1)).astype(np.float32)


def with_every_class(x):
    """Each image with each class, (rows NUM_CLASSES, pixels) and (rows NUM_CLASSES,)."""
    return np.repeat(x, NUM_CLASSES, 0), np.tile(np.arange(NUM_CLASSES), len(x))


def classes():
    """The class of each of the images that are drawn."""
    return np.repeat(np.arange(NUM_CLASSES), NUM_EACH)


def run(args, device, train_and_look):
    """Train and score every prior with every k; write rows and sheets.

    `train_and_look(prior, num_particles, given)` returns a `Conditional`.
    """
    results, given = Results(args, device), problem(args)
    for prior in args.priors:
        for k in args.particles:
            method = f"CIWAE k={k}"
            if results.has(method, f"{prior} prior"):
                print(f"{method}, {prior} prior: done before")
                continue
            print(f"{method}, {prior} prior:", flush=True)
            begin = time.perf_counter()
            found = train_and_look(prior, k, given)
            picture = sheet(args.seed, found.images, given)
            picture.savefig(args.out / f"classes_{prior}_{k}.png", dpi=120)
            ran = {"budget": budget(args, given), "seconds": time.perf_counter() - begin}
            of_images = values(found, given.y_test)
            results.add(over_images(f"{prior} prior", method, of_images, **ran))
    print_rows(results.rows, args.out)


def values(found, labels):
    """What is found for every image, by metric."""
    each = found.log_likelihood["estimates"].log_likelihood.values.reshape(-1, NUM_CLASSES)
    return {
        "log_likelihood": each[np.arange(len(labels)), labels],
        "class accuracy": (each.argmax(1) == labels).astype(float),
    }


def sheet(seed, images, given):
    """Ten images of each class, one line a class, one column a latent: pixels drawn, and means."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 5), layout="constrained")
    drawn = np.random.default_rng(seed).random(images.shape) < images
    height, width = given.image_shape
    for ax, title, shown in zip(axes, ("pixels drawn", "means"), (drawn, images), strict=True):
        ax.imshow(sheet_of(shown, given.image_shape), cmap="gray_r", vmin=0, vmax=1)
        ax.set_xticks((np.arange(NUM_EACH) + 0.5) * width - 0.5, range(1, NUM_EACH + 1))
        ax.set_yticks((np.arange(NUM_CLASSES) + 0.5) * height - 0.5, range(NUM_CLASSES))
        ax.set(title=title, xlabel="latent", ylabel="class")
    return fig
