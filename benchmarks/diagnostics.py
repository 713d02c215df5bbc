"""Seconds of the shell's diagnostics and of ArviZ's on the same draws, in the same run.

    python benchmarks/diagnostics.py [--chains 4 --draws 500 --scalars 6400 --arviz-scalars 6400]

ArviZ's time is linear in the number of scalars; with fewer `--arviz-scalars` it is scaled up, and
the table says so. Times of ours are the best of three runs, ArviZ's of one.
"""

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np

from ppl_vae import diagnostics

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz as az


def draws(kind: str, shape: tuple[int, int, int]) -> np.ndarray:
    """Autocorrelated draws (chain, draw, scalar): continuous, pixels in {0, 1} or grey levels."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape)
    for t in range(1, shape[1]):
        x[:, t] = 0.6 * x[:, t - 1] + 0.8 * x[:, t]
    if kind == "binary":
        return (x < rng.normal(size=shape[2])).astype(float)
    return np.clip(np.round(8 + 3 * x), 0, 16) / 16 if kind == "17 levels" else x


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Best wall time of some calls."""
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def main(args: argparse.Namespace) -> None:
    shape = (args.chains, args.draws, args.scalars)
    scale = args.scalars / args.arviz_scalars
    print(f"chains x draws x scalars: {shape}, ArviZ {az.__version__}, numpy {np.__version__}")
    if scale != 1:
        print(f"ArviZ was timed on {args.arviz_scalars} scalars and scaled by {scale:g}.")
    print(f"{'draws':<12}{'ArviZ rhat+ess':>16}{'ours, the same':>16}{'ratio':>8}", end="")
    print(f"{'ours, all four':>16}{'ratio':>8}")
    for kind in ("continuous", "binary", "17 levels"):
        x = draws(kind, shape)
        dataset = az.convert_to_dataset({"x": x[..., : args.arviz_scalars]})
        with np.errstate(invalid="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = scale * seconds(lambda d=dataset: (az.rhat(d), az.ess(d)), 1)
        same = seconds(lambda x=x: (diagnostics.rhat(x), diagnostics.ess_bulk(x)), 3)
        four = seconds(lambda x=x: diagnostics.convergence(x), 3)
        print(f"{kind:<12}{theirs:>14.2f} s{same:>14.3f} s{theirs / same:>8.1f}", end="")
        print(f"{four:>14.3f} s{theirs / four:>8.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--scalars", type=int, default=6_400)
    parser.add_argument("--arviz-scalars", type=int, default=6_400)
    main(parser.parse_args())
