"""The toy grid of the paper: its data, its 14 conditionals, the exact answer, and the scores.

A mixture of 13 Gaussians on a diamond in the plane, and a VAE with one latent in (0, 1), of which
component c has the part [c / 13, (c + 1) / 13]. One coordinate is observed, the other is drawn.
Every chain of every method starts at the edge of what is scored, the missing coordinate at -3, with
the paper's one step of pseudo-Gibbs. Pitfall III is about such starts, far from what is likely. The
first hundredth of each run is warm-up, and not scored.
"""

from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from experiment import Method, result
from scipy.special import logsumexp
from scipy.stats import norm

from ppl_vae.inference_data import completed
from ppl_vae.metrics import jensen_shannon

NUM_COMPONENTS = 13
ROWS = {-2: (0,), -1: (1, 0, -1), 0: (-2, -1, 0, 1, 2), 1: (0.5, 0, -0.5), 2: (0,)}
SPACING = np.array([1.0143858, 0.95904905])
MEANS = np.array([(column, row) for row, columns in ROWS.items() for column in columns]) * SPACING
SCALES = np.repeat([0.135251, 0.118345, 0.101439, 0.084532, 0.067626], [1, 3, 5, 3, 1])
SCALES = np.stack([SCALES, SCALES * SPACING[1] / SPACING[0]], 1)

VALUES = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
PITFALLS = {"x2=0": "I", "x1=0": "II", "x2=1": "III"}
CONDITIONS = [PITFALLS.get(f"x{i}={v:g}", f"x{i}={v:g}") for i in (2, 1) for v in VALUES]
X = np.array(
    [(np.nan, v) for v in VALUES] + [(v, np.nan) for v in VALUES], np.float32
)  # one row a condition
GRID = np.linspace(-3, 3, 5_000)
START = np.where(np.isnan(X), np.float32(GRID[0]), X)
BOUNDS = (1e-6, 1 - 1e-6)  # of z: at 0 and 1 a Beta distribution's density may be infinite
Z_GRID = np.linspace(*BOUNDS, 500)


class Preset(NamedTuple):
    """Sizes of the nets, of their training, and of the runs."""

    width: int
    num_blocks: int
    num_steps: int
    batch_size: int
    num_latents: int  # draws of z per point in training
    learning_rate: float
    num_refit_steps: int  # of the encoder alone, by draws from the trained VAE
    num_proposals: int  # per row, the same for all methods
    num_replicates: int  # independent runs, for the standard errors


PRESETS = {
    "smoke": Preset(16, 1, 30, 64, 4, 1e-3, 30, 400, 2),
    "small": Preset(128, 3, 10_000, 256, 2, 4e-3, 5_000, 50_000, 5),
    "paper": Preset(512, 4, 13_500, 1_024, 50, 2e-4, 0, 50_000, 10),
}


METHODS = {
    "pseudo-Gibbs": Method("PseudoGibbsKernel", {}),
    "MWG": Method("MWGKernel", {}),
    "AC-MWG": Method("ACMWGKernel", {"prior_probability": 0.01}),
    "AC-MWG eps=0": Method("ACMWGKernel", {"prior_probability": 0.0}),
    "LAIR 4+1": Method("LAIRKernel", {"num_particles": 4, "num_prior": 1}, 5),
    "LAIR 19+1": Method("LAIRKernel", {"num_particles": 19, "num_prior": 1}, 20),
    "LAIR 5+0": Method("LAIRKernel", {"num_particles": 5, "num_prior": 0}, 5),
}

# Jensen-Shannon divergences of the authors' stored notebook, pitfalls I, II, III.
PAPER = {
    "pseudo-Gibbs": (0.0215, 0.4156, 0.0793),
    "MWG": (0.4253, 0.4156, 0.6931),
    "AC-MWG": (0.0147, 0.0196, 0.00055),
    "LAIR 4+1": (0.0133, 0.0163, 0.0010),
    "LAIR 4+1 resampled": (0.0138, 0.0155, 0.00049),
    "LAIR 19+1": (0.0131, 0.0162, 0.00043),
    "LAIR 19+1 resampled": (0.0130, 0.0146, 0.00036),
}


def draw(rng, num_rows):
    """Draw points of the mixture and their components, (rows, 2) and (rows,)."""
    component = rng.integers(NUM_COMPONENTS, size=num_rows)
    noise = rng.normal(size=(num_rows, 2))
    return (MEANS[component] + SCALES[component] * noise).astype(np.float32), component


def latents(rng, component, num_latents):
    """Draw latents in the parts of the components (rows,), shape (num_latents, rows, 1)."""
    u = rng.uniform(size=(num_latents, len(component), 1))
    z = (component[:, None] + u) / NUM_COMPONENTS
    return np.clip(z, *BOUNDS).astype(np.float32)  # as float32 some would be 1


def show_loss(bar, step, loss):
    """Show it beside the progress bar, and stop if it is not finite."""
    if not np.isfinite(loss):
        raise FloatingPointError(f"The loss is {loss:.3g} at step {step}, or a little before it.")
    bar.set_postfix(loss=f"{loss:.3f}")


def exact_densities(loc, scale):
    """Density of the missing coordinate on `GRID` by quadrature in z, (conditions, grid).

    `loc` and `scale` are the decoder's at `Z_GRID`, each (500, 2).
    """
    densities = []
    for row in X:
        observed, missing = np.flatnonzero(~np.isnan(row))[0], np.flatnonzero(np.isnan(row))[0]
        log_weight = norm.logpdf(row[observed], loc[:, observed], scale[:, observed])
        weight = np.exp(log_weight - logsumexp(log_weight))
        each = norm.pdf(GRID[:, None], loc[:, missing], scale[:, missing])
        densities.append(each @ weight)
    return np.array(densities)


def kernel_density(draws):
    """Gaussian kernel density of draws on `GRID`, bandwidth 0.05 of their standard deviation.

    The draws are counted into the grid's cells, 25 to a bandwidth of 0.03, before smoothing.
    """
    step = GRID[1] - GRID[0]
    edges = np.append(GRID - step / 2, GRID[-1] + step / 2)
    counts = np.histogram(draws, edges)[0] / len(draws) / step
    bandwidth = max(0.05 * draws.std(ddof=1), step / 4)
    reach = int(np.ceil(8 * bandwidth / step))
    weights = norm.pdf(np.arange(-reach, reach + 1) * step, scale=bandwidth)
    return np.convolve(counts, weights / weights.sum(), mode="same")


def divergences(idata, truth):
    """Jensen-Shannon divergence of each replicate and condition, (replicates, conditions)."""
    draws = completed(idata)  # (replicate, draw, row, 2)
    return _divergences(np.moveaxis(draws[..., np.isnan(X)], -1, 0), truth)


def divergences_of_exact_draws(rng, truth, preset):
    """The same of as many independent draws of the exact answer: the score's own error."""
    shape, step = (preset.num_replicates, preset.num_proposals), GRID[1] - GRID[0]
    draws = [rng.choice(GRID, shape, p=density / density.sum()) for density in truth]
    return _divergences(draws + rng.uniform(-step / 2, step / 2, (len(truth), *shape)), truth)


def _divergences(draws, truth):
    """Of draws (condition, replicate, draw)."""
    return np.array(
        [
            [jensen_shannon(kernel_density(chain), density) for chain in chains]
            for chains, density in zip(draws, truth, strict=True)
        ]
    ).T


def run(args, results, sample, decode):
    """Run all methods that an earlier call has not finished; write rows, draws and the figure.

    `sample(method, seed)` yields names ("LAIR 4+1", "LAIR 4+1 resampled") with InferenceData;
    `decode(z)` returns the decoder's loc and scale as arrays.
    """
    truth = exact_densities(*decode(Z_GRID[:, None].astype(np.float32)))
    preset = PRESETS[args.preset]
    budget = f"{preset.num_proposals} proposals a row"
    if not results.has("exact draws"):
        values = divergences_of_exact_draws(np.random.default_rng(args.seed), truth, preset)
        of_draws = f"{preset.num_proposals} draws a row"
        results.add(_rows("exact draws", values, budget=of_draws))
    for number, (name, method) in enumerate(METHODS.items()):
        if results.has(name):
            print(f"{name}: done before")
            continue
        print(f"{name}:", flush=True)
        rows = []
        for label, idata in sample(name, method, args.seed + 1_000 * (number + 1)):
            idata.to_netcdf(args.out / f"{label.replace(' ', '_')}.nc")
            seconds = float(idata["posterior"].attrs["wall_time"])
            rows += _rows(label, divergences(idata, truth), budget=budget, seconds=seconds)
        results.add(rows)
    print_table(results.rows)
    figure(args.out, truth).savefig(args.out / "toy_grid.png", dpi=120)
    print(f"\nRows, draws and the figure are in {args.out}/")


def _rows(label, values, **ran):
    """One row of `results.json` per condition."""
    error = values.std(0, ddof=1) / len(values) ** 0.5
    paper = dict(zip(("I", "II", "III"), PAPER.get(label, (None,) * 3), strict=True))
    return [
        result(condition, label, "jsd", mean, of_mean, paper=paper.get(condition), **ran)
        for condition, mean, of_mean in zip(CONDITIONS, values.mean(0), error, strict=True)
    ]


def print_table(rows):
    """Print the divergences of the three pitfalls, the paper's beside ours."""
    print(f"\n{'JSD, nats (paper)':22}" + "".join(f"{name:>28}" for name in ("I", "II", "III")))
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for pitfall in ("I", "II", "III"):
            (row,) = (r for r in rows if (r["method"], r["condition"]) == (method, pitfall))
            paper = "-" if row["paper_value"] is None else f"{row['paper_value']:g}"
            cells.append(f"{row['value']:.4f} +- {row['standard_error']:.4f} ({paper})")
        print(f"{method:22}" + "".join(f"{cell:>28}" for cell in cells))


def figure(out, truth):
    """The three pitfalls, one column each: exact density and each method's, all replicates."""
    import arviz

    files = [out / f"{name.replace(' ', '_')}.nc" for name in METHODS]
    fig, axes = plt.subplots(len(files), 3, figsize=(10, 1.6 * len(files)), layout="constrained")
    for line, (file, name) in enumerate(zip(files, METHODS, strict=True)):
        idata = arviz.from_netcdf(file)
        missing = completed(idata)[..., np.isnan(X)]
        for column, pitfall in enumerate(("I", "II", "III")):
            row, ax = CONDITIONS.index(pitfall), axes[line, column]
            ax.fill_between(GRID, truth[row], color="0.8", label="exact")
            for chain in missing[..., row]:
                ax.plot(GRID, kernel_density(chain), lw=0.7)
            ax.set(xlim=(-3, 3), ylim=(0, 1.3 * truth[row].max()), yticks=[])
            if line == 0:
                observed = next(k for k, v in PITFALLS.items() if v == pitfall)
                ax.set_title(f"pitfall {pitfall}: {observed}")
            if line == len(files) - 1:
                ax.set_xlabel("missing coordinate")
        axes[line, 0].set_ylabel(name)
    return fig
