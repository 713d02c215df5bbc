"""The benchmarks run, at their smallest."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
KERNELS = ["kernels.py", "--rows", "2", "--particles", "2", "--repeats", "1", "--budget", "0.01"]
IWAE = ["iwae.py", "--batches", "4", "--particles", "2", "--images", "16", "--evaluated", "1"]


@pytest.mark.script
@pytest.mark.parametrize(
    "command",
    [
        [*KERNELS, "--backend", "numpyro"],
        [*KERNELS, "--backend", "pyro"],
        [*IWAE, "--repeats", "1", "--backend", "numpyro"],
        [*IWAE, "--repeats", "1", "--backend", "pyro"],
        ["diagnostics.py", "--draws", "20", "--scalars", "16", "--arviz-scalars", "4"],
    ],
    ids=" ".join,
)
def test_benchmarks_run(command):
    if command[0] != "diagnostics.py":
        pytest.importorskip(command[-1])
    script, *options = command
    run = subprocess.run(
        [sys.executable, FOLDER / script, *options], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2_000:]
    assert len(run.stdout.splitlines()) >= 4  # two of heading, a line or more of figures
