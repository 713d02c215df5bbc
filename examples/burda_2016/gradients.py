"""The quality of gradients against k: why DReG trains encoders better than the plain bound.

Signal-to-noise ratio and variance of the gradient of every estimator, for the nets of the guide and
of the model, after the first stages of training and at its end. With more particles the plain
bound's gradient of the encoder drowns in noise (Rainforth et al., 2018, Tighter variational bounds
are not necessarily better); the doubly reparameterised one does not (Tucker et al., 2019).
"""

import time

from burda import PRESETS, budget, print_rows, problem
from experiment import Results, result

from ppl_vae.plots import gradient_quality

ESTIMATORS = ("iwae", "iwae-stl", "dreg")
PARTICLES = {"smoke": (1, 5), "small": (1, 5, 50), "paper": (1, 5, 50, 500)}
NUM_DRAWS = {"smoke": 4, "small": 200, "paper": 1_000}
NUM_ROWS = 20  # of the mini-batch whose gradient it is


def moments(args):
    """When to probe, and the stages of training that are over then."""
    return {"one stage": 1, "all stages": PRESETS[args.preset].num_stages}


def run(args, device, train_and_probe):
    """Probe at every moment; write rows and figures.

    `train_and_probe(num_stages, given)` returns the `Dataset` of `gradient_quality`.
    """
    results, given = Results(args, device), problem(args)
    for moment, num_stages in moments(args).items():
        if results.has(ESTIMATORS[0], moment):
            print(f"{moment}: done before")
            continue
        print(f"{moment}:", flush=True)
        begin = time.perf_counter()
        found = train_and_probe(num_stages, given)
        name = f"gradients_{moment.replace(' ', '_')}"
        gradient_quality(found).savefig(args.out / f"{name}.png", dpi=120)
        found.to_netcdf(args.out / f"{name}.nc")
        ran = {"budget": budget(args, given, num_stages), "seconds": time.perf_counter() - begin}
        results.add(_rows(moment, found, **ran))
    print_rows(results.rows, args.out)


def _rows(moment, found, **ran):
    """One row for each estimator, number of particles and block of parameters."""
    rows, cells = [], found.stack(cell=("objective", "num_particles", "block"))
    for metric in ("snr", "variance"):
        for value in cells[metric].transpose("cell"):
            name, k, block = value.cell.item()
            rows.append(result(moment, name, f"{metric} of {block}, k={k}", value, **ran))
    return rows
