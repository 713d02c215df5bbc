"""MNIST-GMM: a mixture of ten Gaussians fitted to small MNIST digits, a few pixels observed.

Digits of 14 x 14 pixels are mapped to the real line, one Gaussian is fitted to each class, and data
are drawn from their mixture: the class posterior p(c | x_o) is then known exactly. Draws of x_m are
scored by the average of p(c | x_o, x_m) over them, which for draws of p(x_m | x_o) is p(c | x_o).
"""

from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from clipping import doubled_range
from experiment import Method, Results, data_set, result
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from ppl_vae.datasets import mnist
from ppl_vae.inference_data import completed
from ppl_vae.metrics import jensen_shannon, kl_divergence

NUM_CLASSES = 10
SIDE = 14  # pixels
MARGIN = 0.15  # x -> logit(0.15 + 0.7 x)
EXTRA_SCALE = 0.3  # added in quadrature to every pixel: some are constant in a class
NUM_OBSERVED = np.linspace(2, 12, NUM_CLASSES).round().astype(int)  # pixels of each test row
SCORED = 500  # draws of each chain that are scored and kept, evenly spread


class Preset(NamedTuple):
    """Sizes of the nets, of their training, and of the runs."""

    methods: tuple[str, ...]
    num_train: int  # draws of the mixture
    latent_dim: int
    hidden: tuple[int, ...]
    num_steps: int
    batch_size: int
    num_warmup: int  # iterations of pseudo-Gibbs, where every method starts
    num_proposals: int  # per row and chain, the same for all methods
    num_chains: int


METHODS = {
    "marginal": Method("MarginalKernel", {}),
    "pseudo-Gibbs": Method("PseudoGibbsKernel", {}),
    "MWG": Method("MWGKernel", {}),
    "AC-MWG": Method("ACMWGKernel", {"prior_probability": 0.05}),
    "LAIR 4+1 resampled": Method("StreamingLAIRKernel", {"num_particles": 4, "num_prior": 1}, 5),
    "LAIR 19+1 resampled": Method("StreamingLAIRKernel", {"num_particles": 19, "num_prior": 1}, 20),
}
PRESETS = {
    "smoke": Preset(("MWG", "LAIR 4+1 resampled"), 500, 4, (16,), 28, 64, 5, 40, 2),
    "small": Preset(tuple(METHODS), 18_000, 25, (256, 256), 10_800, 200, 120, 5_000, 5),
    "paper": Preset(tuple(METHODS), 18_000, 25, (512, 512, 512), 540_000, 200, 120, 10_000, 5),
}


# --- the mixture ----------------------------------------------------------------------------


class Mixture(NamedTuple):
    """Gaussians of equal weight; C classes, D features."""

    means: np.ndarray  # (C, D)
    covariances: np.ndarray  # (C, D, D)


def small_digits(grey, rng):
    """Dequantise 28 x 28 digits in [0, 1], (rows, 784), average 2 x 2 pixels, take logits."""
    x = (grey * 255 + rng.random(grey.shape)) / 256
    x = x.reshape(-1, SIDE, 2, SIDE, 2).mean((2, 4)).reshape(len(x), -1)
    inside = MARGIN + (1 - 2 * MARGIN) * x
    return np.log(inside) - np.log1p(-inside)


def fit_mixture(x, labels):
    """Mean and covariance of each class, the variances enlarged by `EXTRA_SCALE` squared."""
    parts = [x[labels == c] for c in np.unique(labels)]
    extra = EXTRA_SCALE**2 * np.eye(x.shape[1])
    return Mixture(
        np.array([part.mean(0) for part in parts]),
        np.array([np.cov(part.T) + extra for part in parts]),
    )


def draw(rng, mixture, labels):
    """Draw one row of each label's Gaussian, (rows, D), float32."""
    x = np.empty((len(labels), mixture.means.shape[1]), np.float32)
    for c in np.unique(labels):
        rows = labels == c
        noise = rng.normal(size=(rows.sum(), x.shape[1]))
        x[rows] = mixture.means[c] + noise @ np.linalg.cholesky(mixture.covariances[c]).T
    return x


def log_posterior(mixture, x, observed=slice(None)):
    """Return log p(c | x of the observed features), (..., C); x is (..., D).

    A part of a Gaussian is Gaussian, so that the rest is integrated out by leaving it out.
    """
    log_density = []
    for mean, covariance in zip(*mixture, strict=True):
        root = np.linalg.cholesky(covariance[observed][:, observed])
        centred = (x[..., observed] - mean[observed]).reshape(-1, len(root))
        white = solve_triangular(root, centred.T, lower=True)
        log_density.append(-0.5 * (white**2).sum(0) - np.log(np.diag(root)).sum())
    log_density = np.array(log_density).T.reshape(*x.shape[:-1], len(mixture.means))
    return log_density - logsumexp(log_density, -1, keepdims=True)


# --- the problem ----------------------------------------------------------------------------


class Problem(NamedTuple):
    """Training draws, and ten test rows with few pixels observed."""

    mixture: Mixture
    x_train: np.ndarray  # (rows, 196), float32
    truth: np.ndarray  # (10, 196), one row a class
    x: np.ndarray  # the same, NaN where missing
    posterior: np.ndarray  # p(c | x_o), (10, 10)

    @property
    def limits(self):
        """What the guide sees is clipped to these."""
        return doubled_range(self.x_train)


def problem(args, num_train):
    """Fit the mixture to MNIST's training set and draw from it.

    The observed pixels are random ones of the middle 8 x 8, where the classes differ.
    """
    data, rng = data_set(args, mnist), np.random.default_rng(args.seed)
    mixture = fit_mixture(small_digits(data.x_train.astype(float), rng), data.y_train)
    x_train = draw(rng, mixture, rng.integers(NUM_CLASSES, size=num_train))
    truth = draw(rng, mixture, np.arange(NUM_CLASSES))
    middle = np.arange(SIDE**2).reshape(SIDE, SIDE)[3:11, 3:11].ravel()
    x, posterior = np.full_like(truth, np.nan), np.empty((NUM_CLASSES, NUM_CLASSES))
    for row, count in enumerate(NUM_OBSERVED):
        observed = rng.choice(middle, count, replace=False)
        x[row, observed] = truth[row, observed]
        posterior[row] = np.exp(log_posterior(mixture, truth[row].astype(float), observed))
    return Problem(mixture, x_train, truth, x, posterior)


def class_probabilities(draws, mixture):
    """Average p(c | x_o, x_m) over each chain's draws (chain, draw, row, D), (chain, row, C).

    No average is below exp(-700), so that the divergences stay finite.
    """
    log_p = log_posterior(mixture, draws.astype(float))
    average = logsumexp(log_p, 1) - np.log(draws.shape[1])
    return np.exp(np.maximum(average, -700))


def scores(probabilities, posterior):
    """Return {metric: (value, standard error)}: means over rows, errors over chains."""
    truth = np.broadcast_to(posterior, probabilities.shape)
    each = {
        "jsd": jensen_shannon(truth, probabilities),
        "forward kl": kl_divergence(truth, probabilities),
        "reverse kl": kl_divergence(probabilities, np.maximum(truth, 1e-300)),
    }
    values = {name: of_rows.mean(1) for name, of_rows in each.items()}
    return {name: (v.mean(), v.std(ddof=1) / len(v) ** 0.5) for name, v in values.items()}


# --- the run --------------------------------------------------------------------------------


def run(args, device, sampler):
    """Run all methods that an earlier call has not finished; write rows, draws and the figure.

    `sampler(problem)` trains a VAE and returns `sample(name, method, seed)`, which returns
    InferenceData.
    """
    results, preset = Results(args, device), PRESETS[args.preset]
    given, sample = problem(args, preset.num_train), None
    ran = {"budget": f"{preset.num_proposals} proposals a row and chain"}
    for number, name in enumerate(preset.methods):
        if results.has(name):
            print(f"{name}: done before")
            continue
        print(f"{name}:", flush=True)
        sample = sample or sampler(given)
        idata = sample(name, METHODS[name], args.seed + 1_000 * (number + 1))
        step = max(1, idata["posterior"].sizes["draw"] // SCORED)
        idata = idata.isel(draw=slice(step - 1, None, step))
        idata.to_netcdf(args.out / f"{name.replace(' ', '_')}.nc")
        found = scores(class_probabilities(completed(idata), given.mixture), given.posterior)
        ran["seconds"] = float(idata["posterior"].attrs["wall_time"])
        results.add([result("ten digits", name, metric, *found[metric], **ran) for metric in found])
    print_table(results.rows)
    figure(args.out, given, preset.methods).savefig(args.out / "mnist_gmm.png", dpi=120)
    print(f"\nRows, draws and the figure are in {args.out}/")


def print_table(rows):
    """Print the divergences of the class posterior, in nats."""
    names = ("jsd", "forward kl", "reverse kl")
    print(f"\n{'class posterior, nats':22}" + "".join(f"{name:>22}" for name in names))
    for method in dict.fromkeys(row["method"] for row in rows):
        found = {row["metric"]: row for row in rows if row["method"] == method}
        cells = [f"{found[n]['value']:.4f} +- {found[n]['standard_error']:.4f}" for n in names]
        print(f"{method:22}" + "".join(f"{cell:>22}" for cell in cells))


def figure(out, given, methods):
    """Class posteriors of the ten rows, exact and of each method; and what was observed."""
    import arviz

    panels = {"exact": given.posterior}
    for name in methods:
        draws = completed(arviz.from_netcdf(out / f"{name.replace(' ', '_')}.nc"))
        panels[name] = class_probabilities(draws, given.mixture).mean(0)
    fig = plt.figure(figsize=(1.9 * len(panels) + 1.2, 5.0), layout="constrained")
    top, bottom = fig.subfigures(2, 1, height_ratios=[1, 1.5])
    limits = given.truth.min(), given.truth.max()
    for row, axes in enumerate(top.subplots(2, NUM_CLASSES).T):
        for ax, x in zip(axes, (given.truth[row], given.x[row]), strict=True):
            ax.imshow(x.reshape(SIDE, SIDE), "gray", vmin=limits[0], vmax=limits[1])
            ax.set(xticks=[], yticks=[], facecolor="#e8833a")
        axes[0].set_title(f"row {row}", fontsize="small")
    top.suptitle("test rows: truth, and what is observed (the rest is orange)", fontsize="medium")
    for place, (ax, (name, panel)) in enumerate(
        zip(bottom.subplots(1, len(panels), sharey=True), panels.items(), strict=True)
    ):
        image = ax.imshow(panel, "viridis", vmin=0, vmax=1)
        ax.set(title=name.replace(" resampled", "\nresampled"), xlabel="class")
        ax.set(xticks=range(0, 10, 3), yticks=range(10))
        if place == 0:
            ax.set_ylabel("row")
    bottom.colorbar(image, label="probability of the class", shrink=0.7)
    return fig
