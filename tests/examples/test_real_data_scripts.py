"""The scripts on real data at their smallest, stopped and gone on, and without their data."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

# Of design.md 4.5, and of what run they are.
KEYS = {
    "experiment", "condition", "method", "metric", "value", "standard_error", "paper_value",
    "budget", "seconds", "device", "seed", "versions", "preset", "backend",
}  # fmt: skip

FILES = {
    "tabular": ("tabular/concrete.csv", "concrete_MWG.nc"),
    "mnist_gmm": ("mnist/train-images-idx3-ubyte.gz", "MWG.nc"),
    "omniglot": ("omniglot28.npz", "LAIR_4+1_resampled.nc"),
}


def run_script(folder, name, twin, *options):
    # The compiler's optimisations take longer here than they save.
    flags = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    return subprocess.run(
        [sys.executable, folder / f"{name}_{twin}.py", "--preset", "smoke", *options],
        capture_output=True, text=True, check=False, env={**os.environ, **flags},
    )  # fmt: skip


@pytest.mark.script
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("twin", ["numpyro", "pyro"])
def test_smoke_preset_of_real_data(twin, name, example_folder, tmp_path):
    if importlib.util.find_spec(twin) is None:
        pytest.skip(f"{twin} is not installed")
    pytest.importorskip("sklearn")
    data, draws = FILES[name]
    folder = Path(os.environ.get("PPL_VAE_DATA") or "absent")
    if not (folder / data).exists():
        pytest.skip(f"set PPL_VAE_DATA to a folder with {data}")

    first = run_script(example_folder, name, twin, "--out", tmp_path)
    assert first.returncode == 0, first.stderr[-2_000:]
    rows = json.loads((tmp_path / "results.json").read_text())
    methods = list(dict.fromkeys(row["method"] for row in rows))
    assert "LAIR 4+1 resampled" in methods
    for row in rows:
        assert set(row) == KEYS
        assert row["experiment"] == name
        assert np.isfinite(row["value"])
        assert row["paper_value"] is None
    for file in (f"{name}.png", draws):
        assert (tmp_path / file).stat().st_size > 1_000

    if (name, twin) != ("tabular", "pyro"):
        return  # going on is the same text in all
    dropped = methods[-2]  # as if stopped before this method was written
    kept = [row for row in rows if row["method"] != dropped]
    (tmp_path / "results.json").write_text(json.dumps(kept))
    again = run_script(example_folder, name, twin, "--out", tmp_path)
    assert again.stdout.count("done before") == len(methods) - 1
    new = json.loads((tmp_path / "results.json").read_text())
    before, after = ([r["value"] for r in part if r["method"] == dropped] for part in (rows, new))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-6)


def test_absent_data_are_named(tabular, mnist_gmm, omniglot, tmp_path):
    def args(data):
        return SimpleNamespace(data=data, experiment="this one", seed=0)

    for read, name in (
        (lambda data: tabular.load(args(data), "concrete", 5), "concrete.csv"),
        (lambda data: omniglot.problem(args(data), 5), "omniglot28.npz"),
        (lambda data: mnist_gmm.problem(args(data), 5), "train-images-idx3-ubyte"),
    ):
        with pytest.raises(SystemExit, match=f"{tmp_path}.*{name}|{name}.*{tmp_path}"):
            read(tmp_path)
    with pytest.raises(SystemExit, match="--data, or set PPL_VAE_DATA"):
        tabular.load(args(None), "concrete", 5)
    with pytest.raises(SystemExit, match="--data, or set PPL_VAE_DATA") as absent:
        mnist_gmm.problem(args(tmp_path), 5)
    assert "data_dir" not in str(absent.value)  # an argument of the library
