"""The examples run from the command line with tiny arguments, and write what they promise."""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

ROOT = Path(__file__).parents[2]
TINY = ["--steps", "30", "--rows", "3", "--warmup", "5", "--samples", "20", "--chains", "2"]


@pytest.fixture
def report(monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(ROOT / "examples" / "quickstart")
    return importlib.import_module("report")


def run_of(num_chains, num_rows):
    """Draws of two missing pixels a row, by chains that agree."""
    rng = np.random.default_rng(0)
    truth = rng.integers(2, size=(num_rows, 4)).astype(float)
    mask = np.tile([True, True, False, False], (num_rows, 1))
    draws = rng.integers(2, size=(num_chains, 200, 2 * num_rows)).astype(float)
    missing = xr.DataArray(draws, dims=["chain", "draw", "missing"])
    missing = missing.assign_coords(row=("missing", np.repeat(np.arange(num_rows), 2)))
    posterior = xr.Dataset({"x_missing": missing}, attrs={"wall_time": 2.0})
    return {"posterior": posterior}, truth, mask, draws.reshape(num_chains, 200, num_rows, 2)


@pytest.mark.parametrize(("num_chains", "verdict"), [(1, "not known for 3 rows"), (2, "yes")])
def test_one_chain_says_nothing_of_agreement(report, num_chains, verdict, monkeypatch):
    idata, truth, mask, draws = run_of(num_chains, 3)
    filled = np.concatenate([np.broadcast_to(truth[:, :2], draws.shape), draws], -1)
    monkeypatch.setattr(report, "completed", lambda idata: filled)
    row = report.scores("numpyro", "MWGKernel", idata, truth, mask)
    assert row["verdict"].startswith(verdict)
    assert (row["rhat_worst"] is None) == (num_chains == 1)
    json.dumps(row, allow_nan=False)


def test_the_table_leaves_out_runs_with_other_options(report, tmp_path, capsys):
    row = dict.fromkeys(report.COLUMNS, 1.0) | {"kernel": "MWGKernel", "verdict": "-"}
    for backend, num_rows in (("pyro", 3), ("numpyro", 9), ("numpyro", 3)):
        (tmp_path / backend).mkdir(exist_ok=True)
        args = SimpleNamespace(out=tmp_path, options={"rows": num_rows})
        report.print_table(args, backend, [row | {"backend": backend}])
        others = {"pyro", "numpyro"} & set(capsys.readouterr().out.split())
        assert others == ({"numpyro"} if num_rows == 9 else {"pyro", backend})


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
