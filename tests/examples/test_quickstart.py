"""The examples run from the command line with tiny arguments, and write what they promise."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = ["--steps", "30", "--rows", "6", "--warmup", "5", "--samples", "20", "--chains", "2"]


@pytest.mark.script
@pytest.mark.parametrize("twin", ["numpyro", "pyro"])
def test_quickstart(twin, tmp_path):
    if importlib.util.find_spec(twin) is None:
        pytest.skip(f"{twin} is not installed")
    script = ROOT / "examples" / "quickstart" / f"quickstart_{twin}.py"
    run = subprocess.run(
        [sys.executable, script, *TINY, "--out", tmp_path],
        capture_output=True,
        text=True,
        env={**os.environ, "CI": "true"},
    )
    assert run.returncode == 0, run.stderr
    rows = json.loads((tmp_path / twin / "results.json").read_text())
    kernels = ["PseudoGibbsKernel", "MWGKernel", "ACMWGKernel", "LAIRKernel"]
    assert [row["kernel"] for row in rows] == kernels
    for row in rows:
        assert 0 < row["rmse"] < 1
        assert row["log_score"] < 0
        assert row["kernel"] in run.stdout
        assert row["verdict"] in run.stdout
        for suffix in (".nc", ".png", "_convergence.png"):
            assert (tmp_path / twin / (row["kernel"] + suffix)).stat().st_size > 1_000
    assert (tmp_path / twin / "vae.safetensors").exists()
