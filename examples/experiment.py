"""What the experiments share: the command line, and results that a second call goes on from.

`results.json` is a list of rows: experiment, backend, the options that results depend on (preset,
seed and such as dataset), condition, method, metric, value, standard_error, paper_value (null where
none was verified), budget, seconds, device, versions.
"""

import argparse
import json
import os
import platform
import sys
import warnings
from contextlib import contextmanager
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


def arguments(
    experiment, backend, description, needs_data=False, one_of=None, some_of=None, smoke=None
):
    """The command line of an experiment's script.

    `one_of` and `some_of` are further options by name, with the values that they take; the default
    is the first and all of them, unless `smoke` has another one for that preset. Results depend on
    `args.options`; `some_of` only say which of them to get.
    """
    # An evaluation that is interrupted would return what it has, and that would be stored.
    warnings.filterwarnings("error", message="Interrupted: rows")
    one_of, some_of, smoke = one_of or {}, some_of or {}, smoke or {}
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--preset", choices=["smoke", "small", "paper"], default="small")
    parser.add_argument("--seed", type=int, default=0)
    paper = Path(sys.argv[0]).resolve().parent.name
    out = Path("out") / paper / f"{experiment}_{backend}"
    parser.add_argument("--out", type=_path, default=out, help="folder of all that is written")
    if needs_data:
        folder = os.environ.get("PPL_VAE_DATA") or None
        parser.add_argument(
            "--data", type=_path, default=folder, help="folder of the data; or set PPL_VAE_DATA"
        )
    for name, values in one_of.items():
        of_smoke = f"; of the smoke preset {smoke[name]}" if name in smoke else ""
        parser.add_argument(f"--{name}", choices=values, help=f"default {values[0]}{of_smoke}")
    for name, values in some_of.items():
        of_smoke = f"; of the smoke preset {smoke[name][0]}" if name in smoke else ""
        parser.add_argument(
            f"--{name}", nargs="+", choices=values, type=type(values[0]),
            help=f"default all{of_smoke}",
        )  # fmt: skip
    args = parser.parse_args()
    defaults = {name: values[0] for name, values in one_of.items()} | some_of
    for name, value in (defaults | (smoke if args.preset == "smoke" else {})).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.experiment, args.backend = experiment, backend
    args.options = {name: getattr(args, name) for name in ("preset", "seed", *one_of)}
    args.out.mkdir(parents=True, exist_ok=True)
    return args


def _path(text):
    return Path(text).expanduser()


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


def data_set(args, read):
    """What `read`, of `ppl_vae.datasets`, finds in `--data`, or the end of the script."""
    try:
        return read(args.data)
    except FileNotFoundError as error:
        absent, _, _ = str(error).partition(" Either")  # the rest is about the library's arguments
        raise SystemExit(
            f"{args.experiment} needs {read.__name__}: give its folder with --data, or set "
            f"PPL_VAE_DATA. {absent}"
        ) from None


@contextmanager
def whole(path):
    """Yield a path to write to, which takes the place of `path` when all is written."""
    part = path.with_stem(f"{path.stem}.part")
    yield part
    part.replace(path)


def weights_file(args, name, suffix):
    """The path of a file with weights, whose name has all options that they depend on."""
    folder = args.out / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{'_'.join([name, *map(str, args.options.values())])}.{suffix}"


def result(condition, method, metric, value, error=None, *, budget, seconds=None, paper=None):
    """One row of `results.json`, without what all rows have in common."""
    return {
        "condition": condition,
        "method": method,
        "metric": metric,
        "value": float(value),
        "standard_error": None if error is None else float(error),
        "paper_value": paper,
        "budget": budget,
        "seconds": seconds,
    }


class Results:
    """The rows of `results.json`; every method is written as soon as it is finished."""

    def __init__(self, args, device):
        self.path = args.out / "results.json"
        names = ("ppl-vae", *PACKAGES[args.backend])
        run = {"experiment": args.experiment, "backend": args.backend, **args.options}
        self.common = {
            **run,
            "device": f"{device}, {platform.machine()}, {os.cpu_count()} cores",
            "versions": {name: version(name) for name in names},
        }
        self.rows = json.loads(self.path.read_text()) if self.path.exists() else []
        for row in self.rows:
            of_row = {name: row.get(name, "unknown") for name in run}
            if of_row != run:
                options = " ".join(f"--{name} {of_row[name]}" for name in args.options)
                raise SystemExit(
                    f"{self.path} holds results of {of_row['experiment']}_{of_row['backend']} "
                    f"{options}: give another --out, or remove that folder."
                )

    def has(self, method, condition=None):
        """Whether an earlier run finished this method, under this condition if one is named."""
        return any(
            row["method"] == method and condition in (None, row["condition"]) for row in self.rows
        )

    def add(self, rows):
        """Append rows and write the file, whole or not at all."""
        self.rows += [{**self.common, **row} for row in rows]
        with whole(self.path) as part:
            part.write_text(json.dumps(self.rows, indent=1, allow_nan=False))
