"""A script of the IWAE paper that is stopped before its results are written, and called again."""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "burda_2016"
# With two stages there are looks after 1, 2 and 4 epochs; the second argument ends the first call.
PROGRAM = """
import importlib, sys
import burda, experiment, films

twin, stops = sys.argv[1], sys.argv[2] == "stops"
burda.PRESETS["smoke"] = burda.PRESETS["smoke"]._replace(num_stages=2)
films.TRAININGS = {"IWAE": 5}

def stop(self, rows):
    raise KeyboardInterrupt

if stops:
    experiment.Results.add = stop
sys.argv = ["script", "--preset", "smoke", "--out", sys.argv[3]]
script = importlib.import_module(f"two_layers_{twin}")
script.main(burda.arguments("two_layers", twin, ""))
"""


def run(twin, then, out):
    flags = {"XLA_FLAGS": "--xla_backend_optimization_level=0", "PYTHONPATH": str(FOLDER)}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, twin, then, out],
        capture_output=True, text=True, check=False, env={**os.environ, **flags},
    )  # fmt: skip


@pytest.mark.script
@pytest.mark.parametrize("twin", ["numpyro", "pyro"])
def test_a_stopped_script_ends_as_if_it_had_not_been(twin, tmp_path):
    """The training is done, but no row is written: the second call looks at it once more."""
    if importlib.util.find_spec(twin) is None:
        pytest.skip(f"{twin} is not installed")
    pytest.importorskip("matplotlib")
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    first = run(twin, "stops", stopped)
    assert "KeyboardInterrupt" in first.stderr
    assert not (stopped / "results.json").exists()
    for out in (stopped, whole):
        done = run(twin, "goes on", out)
        assert done.returncode == 0, done.stderr[-2_000:]
    again, expected = (json.loads((out / "results.json").read_text()) for out in (stopped, whole))
    assert [{**row, "seconds": None} for row in again] == [
        {**row, "seconds": None} for row in expected
    ]
