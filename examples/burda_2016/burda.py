"""What the experiments on importance-weighted autoencoders share: data and sizes.

Images hold grey values, drawn anew as black or white pixels whenever training looks at them; those
of the test set are drawn once. The training set gives 400 images to validation, and nothing of the
test set is read before training has ended.

The seconds of a result are those of training and evaluation in the call that finished it.
"""

from typing import NamedTuple

import experiment
import numpy as np

from ppl_vae.datasets import binarise_stochastic, digits, fashion_mnist, mnist
from ppl_vae.presets import PRESETS as OPTIMISERS

NUM_VALIDATION = 400
DATASETS = ("mnist", "fashion-mnist", "omniglot", "digits")
OMNIGLOT = (
    "It holds train_x and test_x, uint8 (rows, 28, 28), ink high: the background and evaluation "
    "sets of github.com/brendenlake/omniglot, scaled down by averaging areas."
)


class Preset(NamedTuple):
    """Sizes of the data, the nets, the training and the evaluation."""

    num_train: int
    num_test: int
    width: int  # of the hidden layers next to the data; half of it between two latents
    latent_dim: int  # of the programs with one stochastic layer
    latent_dims: tuple[int, int]  # of those with two, z1 and z2
    num_stages: int  # of the learning rate; stage i has 3^i epochs
    num_seeds: int
    num_particles: int  # of the test log-likelihood


PRESETS = {
    "smoke": Preset(200, 20, 16, 4, (6, 4), 1, 2, 50),
    "small": Preset(2_000, 300, 200, 50, (100, 50), 4, 3, 1_000),
    "paper": Preset(59_600, 10_000, 200, 50, (100, 50), 8, 3, 5_000),
}


class Problem(NamedTuple):
    """Images as rows, float32, and labels."""

    x_train: np.ndarray  # grey
    x_validation: np.ndarray  # black or white, as all that follow
    x_test: np.ndarray
    y_train: np.ndarray
    y_validation: np.ndarray
    y_test: np.ndarray

    @property
    def image_shape(self):
        """Height and width."""
        side = int(self.x_train.shape[1] ** 0.5)
        return side, side


def arguments(name, backend, description, smoke=None, **some_of):
    """The command line of one of these experiments; the smoke preset needs no files."""
    one_of = {"dataset": DATASETS, "optimiser": tuple(OPTIMISERS)}
    smoke = {"dataset": "digits", **(smoke or {})}
    return experiment.arguments(name, backend, description, True, one_of, some_of, smoke)


def problem(args):
    """Read the images, choose those to train, validate and test on, and binarise the last two."""
    preset, rng = PRESETS[args.preset], np.random.default_rng(args.seed)
    x_train, x_test, y_train, y_test = _read(args)
    rows = rng.permutation(len(x_train))
    train, validation = rows[:-NUM_VALIDATION][: preset.num_train], rows[-NUM_VALIDATION:]
    test = rng.permutation(len(x_test))[: preset.num_test]
    return Problem(
        x_train[train],
        binarise_stochastic(rng, x_train[validation]),
        binarise_stochastic(rng, x_test[test]),
        *(y_train[train], y_train[validation], y_test[test]),
    )


def _read(args):
    if args.dataset == "digits":
        return digits()
    if args.dataset == "omniglot":
        path = experiment.data_file(args, "omniglot28.npz", OMNIGLOT)
        with np.load(path) as file:
            x = [file[name].reshape(-1, 784) / np.float32(255) for name in ("train_x", "test_x")]
            return *x, file["train_y"], file["test_y"]
    read = {"mnist": mnist, "fashion-mnist": fashion_mnist}[args.dataset]
    return experiment.data_set(args, read)


def hidden_widths(args, latent_dims):
    """Two hidden layers of full width next to the data, of half the width between latents."""
    width = PRESETS[args.preset].width
    return [(width, width)] + [(width // 2, width // 2)] * (len(latent_dims) - 1)


def schedule(args, num_rows, num_stages=None, epochs=None):
    """The staged learning rate of the optimiser, and how many steps to train.

    By default for the preset's stages; `epochs` ends the training before its time.
    """
    optimiser = OPTIMISERS[args.optimiser]
    steps_per_epoch = num_rows // optimiser.batch_size
    rates = optimiser.stages(steps_per_epoch)
    num_steps = rates.ends[(num_stages or PRESETS[args.preset].num_stages) - 1]
    return rates, num_steps if epochs is None else min(num_steps, epochs * steps_per_epoch)


def last_stage(args, num_rows):
    """The learning rate of the preset's last stage, and its steps."""
    rates, _ = schedule(args, num_rows)
    number = PRESETS[args.preset].num_stages - 1
    return rates.values[number], rates.lengths[number]


def budget(args, given, num_stages=None, goes_on=False):
    """How long a program was trained, in words; if it `goes_on`, the last stage is done twice."""
    stages = OPTIMISERS[args.optimiser].stages(steps_per_epoch=1)
    last = (num_stages or PRESETS[args.preset].num_stages) - 1
    num_epochs = stages.ends[last] + goes_on * stages.lengths[last]
    return f"{num_epochs} epochs of {len(given.x_train)} {args.dataset} images"


def over_images(condition, method, values, **ran):
    """Rows of `results.json` with the means over images of each metric, and their errors."""
    return [
        experiment.result(
            condition, method, metric, each.mean(), each.std(ddof=1) / len(each) ** 0.5, **ran
        )
        for metric, each in values.items()
    ]


def print_rows(rows, out):
    """Print what was found."""
    for row in rows:
        error = row["standard_error"]
        print(
            f"{row['condition']:23} {row['method']:12} {row['metric']:34} {row['value']:10.4g}"
            + (f" +- {error:.2g}" if error is not None else "")
        )
    print(f"\nRows and figures are in {out}/")


def sheet_of(images, shape):
    """The first n^2 images, (rows, pixels), as one image of n x n."""
    side = int(len(images) ** 0.5)
    square = images[: side**2].reshape(side, side, *shape)
    return square.swapaxes(1, 2).reshape(side * shape[0], -1)
