"""Omniglot, whole quadrants missing: data, scores and figures.

Handwritten characters of 28 x 28 pixels, black or white; the test characters are of alphabets that
the training set lacks. One, two or three quadrants of each test image are hidden, chosen at random.
Scores: F1 of the missing pixels (higher is better) and the Frechet distance between completed and
true images in the space of the encoder's mean (FID, lower is better).

The paper has another split and nets that are larger and longer trained, so that its numbers are
not to be compared with these; they can only be read off plots besides.
"""

from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from experiment import Method, Results, data_file, result

from ppl_vae.datasets import binarise
from ppl_vae.inference_data import completed
from ppl_vae.masks import quadrants, with_nan
from ppl_vae.metrics import f1, frechet_distance
from ppl_vae.plots import image_grid

ORIGIN = (
    "It holds train_x and test_x, uint8 (rows, 28, 28), ink high: the background and evaluation "
    "sets of github.com/brendenlake/omniglot, scaled down by averaging areas."
)
CONDITIONS = {"1/4": 1, "2/4": 2, "3/4": 3}  # share of the image that is missing: quadrants


class Preset(NamedTuple):
    """Sizes of the nets, of their training, and of the runs."""

    methods: tuple[str, ...]
    num_test: int  # images; each appears under every condition
    latent_dim: int
    residual: bool  # nets of resnet_*.py, or the library's own
    hidden: tuple[int, ...]  # channels of the convolutions
    num_steps: int
    batch_size: int
    num_warmup: int  # iterations of pseudo-Gibbs or LAIR, where the chains start
    num_proposals: int  # per row and chain, the same for all methods
    num_draws: int  # kept of each chain, its last ones; the last is scored
    num_chains: int


LAIR = {"num_particles": 4, "num_prior": 1}
METHODS = {
    "marginal": Method("MarginalKernel", {}),
    "pseudo-Gibbs": Method("PseudoGibbsKernel", {}),
    "MWG": Method("MWGKernel", {}),
    "AC-MWG": Method("ACMWGKernel", {"prior_probability": 0.05}),
    "AC-MWG'": Method("ACMWGKernel", {"prior_probability": 0.05}, start="LAIR"),
    "LAIR 4+1 resampled": Method("StreamingLAIRKernel", LAIR, 5),
    "MWG'": Method("MWGKernel", {}, start="LAIR"),
}
PRESETS = {
    "smoke": Preset(("AC-MWG'", "LAIR 4+1 resampled"), 4, 2, False, (4,), 10, 32, 3, 10, 2, 2),
    "small": Preset(tuple(METHODS), 32, 16, False, (8, 16), 1_000, 100, 20, 150, 5, 3),
    "paper": Preset(
        tuple(METHODS), 1_000, 50, True, (64, 128, 256, 512), 400_000, 200, 120, 5_000, 5, 5
    ),
}


class Problem(NamedTuple):
    """Binary images, float32, (rows, 1, 28, 28)."""

    x_train: np.ndarray
    truth: np.ndarray  # the test images, once for each condition
    x: np.ndarray  # the same, NaN where missing
    condition: np.ndarray  # its name for each row


def problem(args, num_test):
    """Read and binarise the images, and hide quadrants of the test images."""
    path = data_file(args, "omniglot28.npz", ORIGIN)
    with np.load(path) as file:
        train, test = (binarise(file[name] / 255)[:, None] for name in ("train_x", "test_x"))
    rng = np.random.default_rng(args.seed)
    truth = test[rng.choice(len(test), num_test, replace=False)]
    masks = [quadrants(rng, truth.shape, count) for count in CONDITIONS.values()]
    truth = np.concatenate([truth] * len(masks))
    condition = np.repeat(list(CONDITIONS), num_test)
    return Problem(train, truth, with_nan(truth, np.concatenate(masks)), condition)


def scores(draws, given, embed):
    """Return {(condition, metric): (value, standard error)} of completed rows.

    The last draw of each chain is scored; errors are over chains.
    """
    found = {}
    for condition in CONDITIONS:
        rows = given.condition == condition
        truth, missing = given.truth[rows], np.isnan(given.x[rows])
        last = draws[:, -1, rows]
        values = {
            "f1": [f1(x[missing], truth[missing]) for x in last],
            "fid": [frechet_distance(x, truth, embed) for x in last],
        }
        for metric, of_chains in values.items():
            error = np.std(of_chains, ddof=1) / len(of_chains) ** 0.5
            found[condition, metric] = np.mean(of_chains), error
    return found


def run(args, device, sampler):
    """Run all methods that an earlier call has not finished; write rows, draws and figures.

    `sampler(problem)` trains a VAE and returns `sample(name, method, seed)`, which returns
    InferenceData of the last draws, and `embed(x)`, the encoder's mean of complete images.
    """
    results, preset = Results(args, device), PRESETS[args.preset]
    given, trained = problem(args, preset.num_test), None
    ran = {"budget": f"{preset.num_proposals} proposals a row and chain"}
    for number, name in enumerate(preset.methods):
        if results.has(name):
            print(f"{name}: done before")
            continue
        print(f"{name}:", flush=True)
        sample, embed = trained = trained or sampler(given)
        idata = sample(name, METHODS[name], args.seed + 1_000 * (number + 1))
        idata.to_netcdf(_file(args.out, name))
        found = scores(completed(idata), given, embed)
        ran["seconds"] = float(idata["posterior"].attrs["wall_time"])
        results.add([result(c, name, metric, *found[c, metric], **ran) for c, metric in found])
    print_table(results.rows)
    figures(args.out, given, preset.methods)
    print(f"\nRows, draws and figures are in {args.out}/")


def _file(out, name):
    return out / f"{name.replace(' ', '_').replace(chr(39), '_prime')}.nc"


def print_table(rows):
    """Print F1 and FID, a column for each condition."""
    columns = [(metric, condition) for metric in ("f1", "fid") for condition in CONDITIONS]
    print(f"\n{'':20}" + "".join(f"{f'{m} {c}':>18}" for m, c in columns))
    found = {(row["method"], row["metric"], row["condition"]): row for row in rows}
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = [found[(method, *column)] for column in columns]
        cells = [f"{cell['value']:.3f} +- {cell['standard_error']:.3f}" for cell in cells]
        print(f"{method:20}" + "".join(f"{cell:>18}" for cell in cells))


def figures(out, given, methods):
    """Write one grid of draws a method, and the last draw of all methods side by side."""
    import arviz

    rows = [i for c in CONDITIONS for i in np.flatnonzero(given.condition == c)[:3]]
    columns = {"truth": given.truth, "observed": given.x}
    for name in methods:
        file = _file(out, name)
        draws = completed(arviz.from_netcdf(file))
        grid = image_grid(given.truth, ~np.isnan(given.x), draws, rows=rows)
        grid.savefig(out / f"omniglot_{file.stem}.png")
        columns[name.replace(" resampled", "\nresampled")] = draws[0, -1]
    size = (1.05 * len(columns), 1.05 * len(rows))
    fig, axes = plt.subplots(len(rows), len(columns), figsize=size, layout="constrained")
    for line, row in zip(axes, rows, strict=True):
        for ax, x in zip(line, columns.values(), strict=True):
            ax.imshow(x[row, 0], "gray", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[], facecolor="#e8833a")
        line[0].set_ylabel(f"{given.condition[row]} missing", fontsize="small")
    for ax, title in zip(axes[0], columns, strict=True):
        ax.set_title(title, fontsize="small")
    fig.savefig(out / "omniglot.png", dpi=120)
