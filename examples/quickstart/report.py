"""What the two quickstart scripts share: scores, a verdict, the table and the pictures."""

import argparse
import json
from pathlib import Path

import numpy as np

from ppl_vae import diagnostics, plots
from ppl_vae.inference_data import completed

COLUMNS = (
    "backend", "kernel", "rmse", "log_score", "coverage_90", "acceptance", "rhat_worst",
    "rhat_median", "ess_per_second", "seconds",
)  # fmt: skip


def arguments(backend):
    """The command line of a quickstart script."""
    parser = argparse.ArgumentParser(description=f"The quickstart in {backend}.")
    parser.add_argument("--steps", type=int, default=3_000, help="training steps")
    parser.add_argument("--rows", type=int, default=100, help="test images to complete")
    parser.add_argument("--warmup", type=int, default=200, help="iterations dropped per chain")
    parser.add_argument("--samples", type=int, default=1_000, help="iterations kept per chain")
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=_path, default=Path("out/quickstart"))
    args = parser.parse_args()
    args.options = {name: value for name, value in vars(args).items() if name != "out"}
    (args.out / backend).mkdir(parents=True, exist_ok=True)
    return args


def _path(text):
    return Path(text).expanduser()


def scores(backend, kernel, idata, truth, mask):
    """One row of the table: how good the draws are, and how well the chains mixed.

    rmse: of the mean of the draws, over missing pixels.
    log_score: mean log predictive probability of the true pixel, in nats; counts plus 1/2.
    coverage_90: share of true pixels inside the smallest set of values with 90 % of the draws.
    ess_per_second: median bulk effective sample size of a missing pixel per second of sampling.
    """
    draws = completed(idata)[..., ~mask]
    true = truth[~mask]
    num_draws = draws.shape[0] * draws.shape[1]
    ones = draws.sum((0, 1))
    probability = (ones + 0.5) / (num_draws + 1)
    predicted = np.where(true == 1, probability, 1 - probability)
    summary = diagnostics.summary(idata)
    seconds = idata["posterior"].attrs["wall_time"]
    return {
        "backend": backend,
        "kernel": kernel,
        "rmse": float(np.sqrt(np.mean((ones / num_draws - true) ** 2))),
        "log_score": float(np.log(predicted).mean()),
        "coverage_90": float(np.mean(predicted > 0.1)),
        "acceptance": _known(summary["acceptance_rate"].mean()),
        "rhat_worst": _known(summary["rhat_worst"].max()),
        "rhat_median": _known(summary["rhat_median"].median()),
        "ess_per_second": _known(summary["ess_bulk_median"].median() / seconds),
        "seconds": seconds,
        "stuck_rows": int(summary["stuck"].sum()),
        "rows": int(summary.sizes["row"]),
        "verdict": verdict(kernel, summary),
    }


def _known(value):
    """The number, or None where there is none, such as R-hat of one chain."""
    return None if np.isnan(value) else float(value)


def verdict(kernel, summary):
    """Say in one line whether to believe the draws, and why."""
    if kernel == "PseudoGibbsKernel":
        return "no: its draws follow p(x_m | x_o) only if the guide is the exact posterior"
    worst = summary["rhat_worst"]
    disagree, unknown = int((worst > 1.05).sum()), int(np.isnan(worst).sum())
    if int(summary["stuck"].sum()):
        return f"not for {int(summary['stuck'].sum())} rows, in which a chain never moved"
    if disagree:
        return f"not for {disagree} rows, in which the chains disagree (R-hat above 1.05)"
    if unknown:
        return f"not known for {unknown} rows: R-hat needs two chains, and pixels that change"
    if kernel == "LAIRKernel":
        heavy = int((summary["khat_worst"] > 0.7).sum())
        if heavy:
            return f"not for {heavy} rows, whose weights few proposals carry (k-hat above 0.7)"
        return "up to a bias of order 1/(K + R): the chains agree; `pool` takes the bias away"
    return "yes: exact in the limit, and the chains agree in every row (R-hat at most 1.05)"


def save(out, backend, kernel, idata, truth, mask):
    """Write the draws and the pictures of one run."""
    folder = out / backend
    idata.to_netcdf(folder / f"{kernel}.nc")
    rows = range(min(6, len(truth)))
    figure = plots.image_grid(truth, mask, completed(idata), image_shape=(8, 8), rows=rows)
    figure.savefig(folder / f"{kernel}.png", dpi=120)
    summary = diagnostics.summary(idata)
    plots.convergence(summary).savefig(folder / f"{kernel}_convergence.png", dpi=120)
    if "acceptance_rate" in idata["sample_stats"]:
        rate = np.asarray(idata["sample_stats"]["acceptance_rate"])
        plots.acceptance(rate).savefig(folder / f"{kernel}_acceptance.png", dpi=120)


def print_table(args, backend, rows):
    """Keep this backend's rows, and print those of all backends that ran with these options."""
    out, rows = args.out, [{**row, "options": args.options} for row in rows]
    text = json.dumps(rows, indent=1, allow_nan=False)
    (out / backend / "results.json").write_text(text)
    files = sorted(out.glob("*/results.json"))
    rows = [row for file in files for row in json.loads(file.read_text())]
    rows = [row for row in rows if row.get("options") == args.options]
    cells = [COLUMNS, *([_cell(row[name]) for name in COLUMNS] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print()
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    print("\nCan the draws be trusted?")
    for row in rows:
        print(f"  {row['backend']:8} {row['kernel']:18} {row['verdict']}")
    print(f"\nDraws (NetCDF), weights and pictures are in {out}/")


def _cell(value):
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.3g}" if value < 1000 else f"{value:.0f}"
