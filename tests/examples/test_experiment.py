"""What the experiments share: options, files that are written whole, results of one run only."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

DATASETS = {"dataset": ("mnist", "digits")}


@pytest.fixture
def arguments(experiment, tmp_path, monkeypatch):
    """`arguments(*options)` of a script with a data set and layers to choose."""

    def parse(*options, **more):
        monkeypatch.setattr(sys, "argv", ["script", "--out", str(tmp_path), *options])
        return experiment.arguments("this", "pyro", "", True, DATASETS, {"layers": (1, 2)}, **more)

    return parse


@pytest.fixture
def results(experiment, monkeypatch):
    """`results(args)`, whichever backends are installed."""
    monkeypatch.setattr(experiment, "version", lambda name: "1")
    return lambda args: experiment.Results(args, "cpu")


def test_data_come_from_the_command_line_or_the_environment(arguments, monkeypatch):
    monkeypatch.setenv("PPL_VAE_DATA", "there")
    assert arguments().data == Path("there")
    assert arguments("--data", "here").data == Path("here")
    assert arguments("--data", "~/here").data == Path.home() / "here"
    monkeypatch.setenv("PPL_VAE_DATA", "~/there")
    assert arguments().data == Path.home() / "there"
    monkeypatch.setenv("PPL_VAE_DATA", "")
    assert arguments().data is None


def test_the_smoke_preset_has_its_own_defaults_only(arguments):
    smoke = {"dataset": "digits", "layers": (2,)}
    for options, dataset, layers in (
        ([], "mnist", (1, 2)),
        (["--preset", "smoke"], "digits", (2,)),
        (["--preset", "smoke", "--dataset", "mnist", "--layers", "1"], "mnist", [1]),
    ):
        args = arguments(*options, smoke=smoke)
        assert (args.dataset, args.layers) == (dataset, layers)


@pytest.mark.parametrize("other", [["--seed", "1"], ["--dataset", "digits"], ["--preset", "paper"]])
def test_results_and_weights_of_other_options_are_not_taken(experiment, arguments, results, other):
    args = arguments()
    first = results(args)
    first.add([experiment.result("all", "MWG", "rmse", 1, budget="-")])
    assert results(arguments("--layers", "1")).has("MWG")
    with pytest.raises(SystemExit, match=r"holds results of .*--dataset mnist.*give another --out"):
        results(arguments(*other))
    files = [experiment.weights_file(a, "vae", "npz") for a in (args, arguments(*other))]
    assert files[0] != files[1]


def test_results_of_the_other_twin_are_not_taken(experiment, arguments, results):
    args = arguments()
    results(args).add([experiment.result("all", "MWG", "rmse", 1, budget="-")])
    args.backend = "numpyro"
    with pytest.raises(SystemExit, match="holds results of this_pyro"):
        results(args)


def test_what_is_no_number_is_not_stored(experiment, arguments, results):
    args = arguments()
    results(args).add([experiment.result("all", "MWG", "rmse", 1, budget="-")])
    with pytest.raises(ValueError, match="JSON"):
        results(args).add([experiment.result("all", "LAIR", "rmse", np.nan, budget="-")])
    assert [row["method"] for row in json.loads((args.out / "results.json").read_text())] == ["MWG"]


def test_a_file_is_replaced_when_all_is_written(experiment, tmp_path):
    path = tmp_path / "weights.npz"
    path.write_text("before")

    def write_half():
        with experiment.whole(path) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "before"
    with experiment.whole(path) as part:
        np.savez(part, np.ones(2))
    assert np.load(path)["arr_0"].sum() == 2


def test_an_interrupted_evaluation_ends_the_script(backend, arguments, monkeypatch):
    """The library returns the rows that were reached, the others NaN, with a warning."""
    blocks = importlib.import_module(f"ppl_vae.inference.{backend.name}.row_blocks")
    reached = []

    def work(*key_and_rows):
        if reached:
            raise KeyboardInterrupt
        reached.append(xr.Dataset({"v": ("row", np.ones(blocks.ROWS_PER_BLOCK))}))
        return reached[0]

    xr, key = pytest.importorskip("xarray"), ()
    if backend.name == "numpyro":
        key = (importlib.import_module("jax").random.key(0),)
    monkeypatch.setattr(blocks, "rows_per_block", lambda *_: blocks.ROWS_PER_BLOCK)
    program = SimpleNamespace(x_obs=np.zeros(2 * blocks.ROWS_PER_BLOCK))
    arguments()
    with pytest.raises(UserWarning, match="Interrupted"):
        blocks.over_blocks(*key, program, work, False)
