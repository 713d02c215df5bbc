"""Table 1 of the paper, cell by cell: test log-likelihood and active units.

A cell is a number of stochastic layers, an objective and its number of particles k. "VAE" is the
mean of k log weights, "IWAE" the log of their mean, "DReG" the latter's doubly reparameterised
gradient; at k = 1 the first two are one and the same training.
"""

import time
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from burda import budget, problem
from experiment import Results, result

LAYERS, OBJECTIVES, PARTICLES = (1, 2), ("VAE", "IWAE", "DReG"), (1, 5, 50)
SMOKE = {"layers": (2,), "objectives": ("IWAE",), "particles": (5,)}  # unless others are asked for

# Log-likelihoods: the paper's table 1; DReG is not in it.
PAPER = {
    (1, "VAE"): (-86.76, -86.47, -86.35),
    (1, "IWAE"): (-86.76, -85.54, -84.78),
    (2, "VAE"): (-85.33, -85.01, -84.78),
    (2, "IWAE"): (-85.33, -83.89, -82.90),
}


class Cell(NamedTuple):
    """One training of the table."""

    layers: int
    objective: str
    particles: int

    @property
    def method(self):
        """Its name in the results."""
        return f"{self.objective} k={self.particles}"

    @property
    def name(self):
        """Its name in files."""
        return f"{self.layers}_{self.objective}_{self.particles}"

    @property
    def paper(self):
        """The paper's log-likelihood, or None."""
        row = PAPER.get((self.layers, self.objective))
        return row and row[PARTICLES.index(self.particles)]


def cells(args):
    """The cells asked for, each once; at k = 1 IWAE is VAE."""
    every = [
        Cell(layers, "VAE" if (objective, k) == ("IWAE", 1) else objective, k)
        for layers in args.layers
        for k in args.particles
        for objective in args.objectives
    ]
    return list(dict.fromkeys(every))


class Score(NamedTuple):
    """What the test set says of one trained program."""

    whole: Any  # `log_likelihood` for one particle and for many
    pruned: Any  # the same without the inactive units
    units: Any  # `active_units`

    def mean(self, estimates, number):
        """The mean log-likelihood per image, by the first or the last number of particles."""
        return float(estimates["estimates"].log_likelihood.isel(num_particles=number).mean())


def run(args, device, train, score):
    """Train and score all cells that an earlier call has not finished; write rows and figure.

    `train(cell, given)` returns trained programs, `score(fitted, seed, given)` a `Score`.
    """
    results, given = Results(args, device), problem(args)
    for cell in cells(args):
        condition = f"{cell.layers} layer" + "s" * (cell.layers > 1)
        if results.has(cell.method, condition):
            print(f"{cell.method}, {condition}: done before")
            continue
        print(f"{cell.method}, {condition}:", flush=True)
        begin = time.perf_counter()
        replicas = train(cell, given)
        scores = [score(fitted, args.seed + i, given) for i, fitted in enumerate(replicas)]
        ran = {
            "budget": f"{len(replicas)} times {budget(args, given)}",
            "seconds": time.perf_counter() - begin,
        }
        scores[0].whole.to_netcdf(args.out / f"log_likelihood_{cell.name}.nc")
        results.add(_rows(args, cell, condition, scores, **ran))
    print_table(results.rows)
    figure(results.rows).savefig(args.out / "table.png", dpi=120)
    print(f"\nRows and the figure are in {args.out}/")


def _rows(args, cell, condition, scores, **ran):
    """The rows of `results.json` of one cell; errors are those of the mean over trainings."""
    values = {
        "log_likelihood": [score.mean(score.whole, -1) for score in scores],
        "log_likelihood, pruned": [score.mean(score.pruned, -1) for score in scores],
        "elbo": [score.mean(score.whole, 0) for score in scores],
    }
    for site in scores[0].units.site.values:
        of_site = [int(score.units.num_active.sel(site=site)) for score in scores]
        values[f"active units {site}"] = of_site
    paper = {"log_likelihood": cell.paper} if args.dataset == "mnist" else {}
    return [
        result(
            condition, cell.method, metric, np.mean(each), _error_of_mean(each),
            paper=paper.get(metric), **ran,
        )
        for metric, each in values.items()
    ]  # fmt: skip


def _error_of_mean(values):
    """The standard error over trainings, or None where there is one only."""
    return float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else None


def print_table(rows):
    """Print log-likelihoods and active units, the paper's log-likelihood beside ours."""
    print(f"\n{'':8} {'':10} {'log p(x)':>18} {'paper':>8} {'ELBO':>9} {'pruned':>9}  active units")
    for condition, method in dict.fromkeys((r["condition"], r["method"]) for r in rows):
        of = {
            row["metric"]: row
            for row in rows
            if (row["condition"], row["method"]) == (condition, method)
        }
        main, units = of["log_likelihood"], [of[name] for name in of if name.startswith("active")]
        error = "" if main["standard_error"] is None else f" +- {main['standard_error']:.2f}"
        print(
            f"{condition:8} {method:10} {main['value']:10.2f}{error:8}"
            f" {main['paper_value'] or '-':>8}"
            f" {of['elbo']['value']:9.2f}"
            f" {of['log_likelihood, pruned']['value']:9.2f}  "
            + " + ".join(f"{row['value']:.1f}" for row in units)
        )


def figure(rows):
    """Log-likelihood against k, one line an objective, one panel a number of layers."""
    rows = [row for row in rows if row["metric"] == "log_likelihood"]
    conditions = list(dict.fromkeys(row["condition"] for row in rows))
    fig, axes = plt.subplots(1, len(conditions), squeeze=False, sharey=True, layout="constrained")
    for ax, condition in zip(axes[0], conditions, strict=True):
        of = {row["method"]: row for row in rows if row["condition"] == condition}
        if "VAE k=1" in of:
            of["IWAE k=1"] = of["VAE k=1"]  # one and the same training
        for objective in OBJECTIVES:
            at = {k: of[f"{objective} k={k}"] for k in PARTICLES if f"{objective} k={k}" in of}
            if at:
                values, errors = (
                    [row[name] or 0.0 for row in at.values()]
                    for name in ("value", "standard_error")
                )
                ax.errorbar(list(at), values, errors, marker="o", label=objective)
        ax.set(title=condition, xscale="log", xlabel="particles k in training")
        ax.set_xticks(PARTICLES, PARTICLES, minor=False)
        ax.minorticks_off()
    axes[0, 0].set_ylabel("test log p(x), nats per image")
    axes[0, 0].legend()
    return fig
