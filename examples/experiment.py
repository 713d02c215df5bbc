"""What the experiments share: the command line, and results that a second call goes on from.

`results.json` is a list of rows: experiment, condition, method, metric, value, standard_error,
paper_value (null where none was verified), budget, seconds, device, seed, versions.
"""

import argparse
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

PACKAGES = {"numpyro": ("numpyro", "jax"), "pyro": ("pyro-ppl", "torch")}


class Method(NamedTuple):
    """A kernel, its options, its proposals per iteration, and the method it starts from."""

    kernel: str
    options: dict
    proposals: int = 1
    start: str = "pseudo-Gibbs"


def arguments(experiment, backend, description, needs_data=False, one_of=None, some_of=None):
    """The command line of an experiment's script.

    `one_of` and `some_of` are further options by name, with the values that they take; the default
    is the first and all of them.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--preset", choices=["smoke", "small", "paper"], default="small")
    parser.add_argument("--seed", type=int, default=0)
    paper = Path(sys.argv[0]).resolve().parent.name
    out = Path("out") / paper / f"{experiment}_{backend}"
    parser.add_argument("--out", type=Path, default=out, help="folder of all that is written")
    if needs_data:
        folder = os.environ.get("PPL_VAE_DATA")
        parser.add_argument(
            "--data", type=Path, default=folder, help="folder of the data; or set PPL_VAE_DATA"
        )
    for name, values in (one_of or {}).items():
        parser.add_argument(f"--{name}", choices=values, default=values[0])
    for name, values in (some_of or {}).items():
        kind = type(values[0])
        parser.add_argument(f"--{name}", nargs="+", choices=values, default=values, type=kind)
    args = parser.parse_args()
    args.experiment, args.backend = experiment, backend
    args.out.mkdir(parents=True, exist_ok=True)
    return args


def data_file(args, name, origin):
    """The path of a data file below `--data`, or the end of the script with a clear message."""
    if args.data is None:
        raise SystemExit(
            f"{args.experiment} needs {name}: give its folder with --data, or set PPL_VAE_DATA. "
            f"{origin}"
        )
    path = args.data / name
    if not path.exists():
        raise SystemExit(f"{args.experiment} needs {path}, which does not exist. {origin}")
    return path


class Results:
    """The rows of `results.json`; every method is written as soon as it is finished."""

    def __init__(self, args, device):
        self.path = args.out / "results.json"
        names = ("ppl-vae", *PACKAGES[args.backend])
        self.common = {
            "experiment": args.experiment,
            "preset": args.preset,
            "device": f"{device}, {platform.machine()}, {os.cpu_count()} cores",
            "seed": args.seed,
            "versions": {name: version(name) for name in names},
        }
        self.rows = json.loads(self.path.read_text()) if self.path.exists() else []
        for row in self.rows:
            if (row["seed"], row["preset"]) != (args.seed, args.preset):
                raise SystemExit(
                    f"{self.path} holds results of --preset {row['preset']} --seed {row['seed']}: "
                    "give another --out, or remove that folder."
                )

    def has(self, method, condition=None):
        """Whether an earlier run finished this method, under this condition if one is named."""
        return any(
            row["method"] == method and condition in (None, row["condition"]) for row in self.rows
        )

    def add(self, rows):
        """Append rows and write the file, whole or not at all."""
        self.rows += [{**self.common, **row} for row in rows]
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.rows, indent=1))
        part.replace(self.path)
