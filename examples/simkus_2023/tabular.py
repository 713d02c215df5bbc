"""Real tables with half of the entries missing: data, peers, scores and the figure.

Each table is standardised by its training rows, which are complete; of the test rows half of the
entries are hidden at random (MCAR). The imputed rows are compared with the true ones: as samples of
a joint law (Sinkhorn divergence, squared MMD) and entry by entry (RMSE, CRPS, coverage).
"""

import time
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from clipping import doubled_range
from experiment import Method, Results, data_file, result
from matplotlib.ticker import LogLocator
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer

from ppl_vae import metrics
from ppl_vae.datasets import csv_table
from ppl_vae.inference_data import completed
from ppl_vae.masks import mcar_fraction, with_nan

NOT_REAL = {"banknote_authentication": ("class",), "winequality-red": ("quality",)}
ORIGIN = "The tables are of the UCI repository; CSV files with one line of column names."
SCALE_FLOOR = 0.05  # of the decoder, in standard deviations; the default 0.01 makes spiky densities


TABLES = ("concrete", "winequality-red", "power-plant", "banknote_authentication")
METHODS = {
    "marginal": Method("MarginalKernel", {}),
    "pseudo-Gibbs": Method("PseudoGibbsKernel", {}),
    "MWG": Method("MWGKernel", {}),
    "AC-MWG": Method("ACMWGKernel", {"prior_probability": 0.05}),
    "LAIR 4+1 resampled": Method("StreamingLAIRKernel", {"num_particles": 4, "num_prior": 1}, 5),
}


class Table(NamedTuple):
    """One table, standardised, float32."""

    name: str
    x_train: np.ndarray  # (training rows, D), complete
    truth: np.ndarray  # (B, D)
    x: np.ndarray  # (B, D), NaN where missing

    @property
    def limits(self):
        """What the guide sees is clipped to these."""
        return doubled_range(self.x_train)


def load(args, name, num_test):
    """Read a table, split and standardise it, and hide half of the test entries."""
    path = data_file(args, f"tabular/{name}.csv", ORIGIN)
    table = csv_table(path)
    x = table.x[:, [column not in NOT_REAL.get(name, ()) for column in table.columns]]
    rng = np.random.default_rng(args.seed)
    x = x[rng.permutation(len(x))]
    test, train = x[:num_test], x[num_test:]
    loc, scale = train.mean(0), train.std(0)
    train, test = (((part - loc) / scale).astype(np.float32) for part in (train, test))
    return Table(name, train, test, with_nan(test, mcar_fraction(rng, test.shape)))


# --- peers ----------------------------------------------------------------------------------


def column_mean(table, seed, num_chains):
    """The training mean, which is zero; completed rows, (chain, draw, row, D)."""
    return np.nan_to_num(table.x)[None, None]


def nearest_neighbours(table, seed, num_chains):
    """The mean of the five training rows that are nearest in the observed entries."""
    return KNNImputer().fit(table.x_train).transform(table.x)[None, None]


def chained_equations(table, seed, num_chains):
    """Draws of scikit-learn's IterativeImputer, Bayesian ridge regressions, four to a chain.

    It sees the complete training rows above the test rows, as it learns from what it imputes.
    """
    both = np.concatenate([table.x_train, table.x])
    draws = [
        IterativeImputer(sample_posterior=True, random_state=seed + i).fit_transform(both)
        for i in range(4 * num_chains)
    ]
    num_train = len(table.x_train)
    return np.array(draws)[:, num_train:].reshape(num_chains, 4, *table.x.shape)


PEERS = {"mean": column_mean, "kNN": nearest_neighbours, "IterativeImputer": chained_equations}

# --- sizes ---------------------------------------------------------------------------------


class Preset(NamedTuple):
    """Tables, sizes of the nets and of their training, and of the runs."""

    tables: tuple[str, ...]
    methods: tuple[str, ...]
    num_test: int
    latent_dim: int
    hidden: tuple[int, ...]
    num_steps: int
    batch_size: int
    num_warmup: int  # iterations of pseudo-Gibbs, where the chains start
    num_proposals: int  # per row and chain, the same for all methods
    num_draws: int  # kept of each chain, its last ones
    num_chains: int


PRESETS = {
    "smoke": Preset(
        TABLES[:1], (*PEERS, "MWG", "LAIR 4+1 resampled"), 20, 4, (16,), 30, 64, 5, 20, 4, 2
    ),
    "small": Preset(
        TABLES[:3], (*PEERS, *METHODS), 200, 8, (128, 128), 3_000, 128, 100, 2_000, 200, 5
    ),
    "paper": Preset(
        TABLES, (*PEERS, *METHODS), 250, 16, (256, 256), 200_000, 512, 100, 3_000, 500, 5
    ),
}

# --- scores ---------------------------------------------------------------------------------


def scores(draws, table):
    """Return {metric: (value, standard error)} of completed rows, (chain, draw, row, D).

    Of the joint laws: the last draw of each chain, error over chains. Of the entries: all draws of
    all chains, error over test rows. None where a peer has one imputation only.
    """
    draws, missing = draws.astype(float), np.isnan(table.x)
    last = draws[:, -1]
    found = {
        "sinkhorn": _over([metrics.sinkhorn(x, table.truth, blur=0.2) for x in last]),
        "mmd": _over([metrics.mmd(x, table.truth) for x in last]),
    }
    pooled, truth = (
        draws.reshape(-1, *table.x.shape)[:, missing],
        table.truth[missing].astype(float),
    )
    row = np.nonzero(missing)[0]
    squared, error = _over_rows((pooled.mean(0) - truth) ** 2, row)
    found["rmse"] = squared**0.5, error / (2 * squared**0.5 or 1)
    if len(pooled) > 1:
        found["crps"] = _over_rows(metrics.crps(pooled, truth), row)
    if len(pooled) >= 100:
        low, high = np.quantile(pooled, [0.05, 0.95], axis=0)
        found["coverage of 90 %"] = _over_rows((low <= truth) & (truth <= high), row)
    return found


def _over(values):
    """Mean, and standard error where there are several."""
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else None
    return np.mean(values), error


def _over_rows(values, row):
    """Mean over entries, and its standard error; entries of one row are not independent."""
    mean = values.mean()
    residual = np.bincount(row, values - mean)
    return mean, (residual**2).sum() ** 0.5 / len(values)


# --- the run --------------------------------------------------------------------------------


def run(args, device, sampler):
    """Run all that an earlier call has not finished; write rows, draws and the figure.

    `sampler(table)` trains a VAE and returns `sample(name, method, seed)`, which returns
    InferenceData of the last draws.
    """
    results, preset = Results(args, device), PRESETS[args.preset]
    for name in preset.tables:
        table, sample = load(args, name, preset.num_test), None
        for number, method in enumerate(preset.methods):
            if results.has(method, name):
                print(f"{name}, {method}: done before")
                continue
            print(f"{name}, {method}:", flush=True)
            seed = args.seed + 1_000 * (number + 1)
            if method in PEERS:
                begin = time.perf_counter()
                draws = PEERS[method](table, seed, preset.num_chains)
                ran = {"budget": "-", "seconds": time.perf_counter() - begin}
            else:
                sample = sample or sampler(table)
                idata = sample(method, METHODS[method], seed)
                idata.to_netcdf(args.out / f"{name}_{method.replace(' ', '_')}.nc")
                draws, seconds = completed(idata), float(idata["posterior"].attrs["wall_time"])
                budget = f"{preset.num_proposals} proposals a row and chain"
                ran = {"budget": budget, "seconds": seconds}
            found = scores(draws, table)
            results.add([result(name, method, metric, *found[metric], **ran) for metric in found])
    print_table(results.rows)
    figure(results.rows).savefig(args.out / "tabular.png", dpi=120)
    print(f"\nRows, draws and the figure are in {args.out}/")


def print_table(rows):
    """Print all scores, a line for each table and method."""
    names = list(dict.fromkeys(row["metric"] for row in rows))
    print(f"\n{'':44}" + "".join(f"{name:>18}" for name in names))
    found = {(row["condition"], row["method"], row["metric"]): row for row in rows}
    for condition, method in dict.fromkeys((c, m) for c, m, _ in found):
        cells = []
        for name in names:
            row = found.get((condition, method, name))
            error = row and row["standard_error"]
            cells.append("-" if row is None else f"{row['value']:.3f}")
            cells[-1] += "" if error is None else f" +- {error:.3f}"
        print(f"{condition:24}{method:20}" + "".join(f"{cell:>18}" for cell in cells))


def figure(rows):
    """One panel per table and metric, one line per method; lower is better."""
    tables = list(dict.fromkeys(row["condition"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))[::-1]
    titles = {"sinkhorn": "Sinkhorn divergence", "mmd": "MMD²", "rmse": "RMSE", "crps": "CRPS"}
    fig, axes = plt.subplots(
        len(tables), 4, figsize=(12, 2.4 * len(tables)), layout="constrained", sharey=True,
        squeeze=False,
    )  # fmt: skip
    for line, table in zip(axes, tables, strict=True):
        for ax, name in zip(line, titles, strict=True):
            for row in (r for r in rows if (r["condition"], r["metric"]) == (table, name)):
                colour = "C0" if row["method"] in METHODS else "0.5"
                place, error = methods.index(row["method"]), row["standard_error"]
                ax.errorbar(row["value"], place, xerr=error, fmt="o", color=colour, capsize=3)
            ax.set(yticks=range(len(methods)), ylim=(-0.5, len(methods) - 0.5))
            ax.grid(axis="y", color="0.9")
            if name == "mmd":
                ax.axvline(0, color="0.2", lw=0.8)  # unbiased estimates may be below zero
            elif name in ("rmse", "crps"):
                ax.set_xlim(0, None)
            else:
                ax.set(xscale="log", xlim=np.array(ax.dataLim.intervalx) * (0.6, 1.5))
                ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                ax.xaxis.set_major_formatter("{x:g}")
                ax.xaxis.set_minor_formatter("")
        line[0].set_yticklabels(methods)
        line[0].set_ylabel(table)
    for ax, title in zip(axes[0], titles.values(), strict=True):
        ax.set_title(title)
    return fig
