"""The examples of the IWAE paper: their pieces, and their scripts at their smallest."""

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

FOLDER = Path(__file__).parents[2] / "examples" / "burda_2016"
KEYS = {
    "experiment", "condition", "method", "metric", "value", "standard_error", "paper_value",
    "budget", "seconds", "device", "seed", "versions", "preset", "backend", "dataset", "optimiser",
}  # fmt: skip
SCRIPTS = {  # what each writes besides its rows
    "table": ("table.png", "log_likelihood_2_IWAE_5.nc"),
    "latent_plane": ("posteriors_IWAE.png", "reconstructions_VAE.png", "training_IWAE.gif"),
    "two_layers": ("latents_VAE.png", "posterior_IWAE.nc", "training_IWAE.gif"),
    "conditional": ("classes_learned_5.png", "classes_standard_5.png"),
    "active_units": ("filters_VAEk=1.png", "units_VAEk=1_IWAEk=50_IWAEk=50.png"),
    "gradients": ("gradients_one_stage.png", "gradients_all_stages.nc"),
}


@pytest.fixture(scope="module")
def modules():
    pytest.importorskip("matplotlib")
    sys.path.insert(0, str(FOLDER))
    yield SimpleNamespace(
        **{
            name: importlib.import_module(name)
            for name in ("active_units", "burda", "conditional", "films", "table", "two_layers")
        }
    )
    sys.path.remove(str(FOLDER))


def arguments(**options):
    defaults = {
        "preset": "smoke", "dataset": "digits", "optimiser": "paper", "seed": 3, "data": None
    }  # fmt: skip
    return SimpleNamespace(**{**defaults, **options}, experiment="this one")


def test_training_sees_grey_images_and_no_others(modules):
    """Validation and test rows are drawn once as black and white, and are no training rows."""
    given = modules.burda.problem(arguments())
    assert [len(x) for x in given[:3]] == [200, 400, 20]
    assert len(given.y_train) == 200
    assert given.image_shape == (8, 8)
    assert ((given.x_train > 0) & (given.x_train < 1)).any()
    for x in (given.x_validation, given.x_test):
        assert set(np.unique(x)) == {0, 1}
    again = modules.burda.problem(arguments())
    np.testing.assert_array_equal(given.x_test, again.x_test)
    other = modules.burda.problem(arguments(seed=4))
    assert not np.array_equal(given.x_train, other.x_train)


@pytest.mark.parametrize("dataset", ["mnist", "fashion-mnist", "omniglot"])
def test_absent_data_are_named(modules, dataset, tmp_path):
    with pytest.raises(SystemExit, match=str(tmp_path)):
        modules.burda.problem(arguments(preset="small", dataset=dataset, data=tmp_path))


def test_a_sheet_holds_the_images_line_by_line(modules):
    images = np.arange(4)[:, None] * np.ones(6)
    expected = np.block([[np.full((2, 3), 0), np.full((2, 3), 1)],
                         [np.full((2, 3), 2), np.full((2, 3), 3)]])  # fmt: skip
    np.testing.assert_array_equal(modules.burda.sheet_of(images, (2, 3)), expected)


def test_principal_components_are_those_of_the_covariance(modules):
    means = np.random.default_rng(0).normal(size=(50, 4)) * [3.0, 1.0, 0.1, 2.0]
    found = modules.two_layers.principal(means)
    values = np.linalg.eigvalsh(np.cov(means.T))[::-1]
    np.testing.assert_allclose(found.var(0, ddof=1), values[:2])
    np.testing.assert_allclose(np.cov(found.T)[0, 1], 0, atol=1e-12)
    standard = modules.two_layers.standardised(np.c_[means, np.ones(50)])
    np.testing.assert_allclose(standard.std(0), [1, 1, 1, 1, 0])


def test_neighbours_of_one_class(modules):
    points = np.array([[0.0, 0], [0, 1], [0, 2], [9, 0], [9, 1], [9, 2]])
    agree = modules.two_layers.neighbours_agree(points, np.array([0, 0, 1, 2, 2, 2]), k=2)
    np.testing.assert_allclose(agree, [0.5, 0.5, 0.0, 1.0, 1.0, 1.0])


def test_neighbours_at_the_same_place(modules):
    """A point is none of its own neighbours, even where more than k others are at its place."""
    labels = np.array([0, 1, 1, 1, 1])
    agree = modules.two_layers.neighbours_agree(np.zeros((5, 2)), labels, k=2)
    assert agree[0] == 0
    assert set(agree[1:]) <= {0.5, 1.0}


def test_every_image_meets_every_class(modules):
    x, labels = modules.conditional.with_every_class(np.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(x[10:20], [[2, 3]] * 10)
    np.testing.assert_array_equal(labels.reshape(3, 10), [np.arange(10)] * 3)


@pytest.mark.parametrize(("preset", "last"), [("smoke", 1), ("small", 40), ("paper", 3280)])
def test_snapshots_end_with_training(modules, preset, last):
    epochs = modules.films.epochs(arguments(preset=preset))
    assert epochs[-1] == last
    assert epochs[:-1] == [2**i for i in range(len(epochs) - 1)]


def test_every_look_keeps_its_checkpoint(modules, tmp_path):
    """Each begins as the one before it ended; one that is there already stays as it is."""

    def train(at_most):
        seen = []
        for epoch, name in modules.films.looks(args, "IWAE"):
            path = tmp_path / "weights" / f"{name}_small.checkpoint"
            begin = int(path.read_text()) if path.exists() else 0
            seen.append((begin, epoch))
            if epoch > at_most:
                return seen
            path.write_text(str(max(begin, epoch)))
        return seen

    args = arguments(preset="small", out=tmp_path, options={"preset": "small"})
    assert train(at_most=4) == [(0, 1), (1, 2), (2, 4), (4, 8)]
    again = [(1, 1), (2, 2), (4, 4), (4, 8), (8, 16), (16, 32), (32, 40)]
    assert train(at_most=40) == again
    assert not list(tmp_path.rglob("*.part*"))


def test_an_interrupted_warm_start_leaves_no_row(modules, tmp_path, monkeypatch):
    """The rows of both looks are written together, so that no second call doubles the first's."""
    active_units, stored = modules.active_units, []
    picture = SimpleNamespace(savefig=lambda *args, **options: None)
    results = SimpleNamespace(has=lambda *names: False, add=stored.append, rows=[])
    for name, fake in {
        "Results": lambda *args: results, "problem": lambda args: None,
        "budget": lambda *args, **options: "-", "draw": lambda units: picture,
        "_rows": lambda *args, **options: ["row"],
    }.items():  # fmt: skip
        monkeypatch.setattr(active_units, name, fake)

    def train_and_look(first, then, given):
        yield SimpleNamespace(units=None)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        active_units.run(arguments(out=tmp_path), "cpu", train_and_look)
    assert stored == []


def test_cells_of_the_table(modules):
    """At k = 1 VAE and IWAE are one training."""
    table = modules.table
    options = {"layers": (1, 2), "particles": (1, 5, 50), "objectives": ("VAE", "IWAE", "DReG")}
    cells = table.cells(arguments(preset="small", **options))
    assert len(set(cells)) == len(cells) == 2 * 8
    assert table.Cell(2, "IWAE", 50).paper == -82.90
    assert table.Cell(1, "VAE", 1).paper == -86.76
    assert table.Cell(1, "DReG", 5).paper is None


def test_a_cell_of_iwae_with_one_particle_is_that_of_vae(modules):
    options = {"layers": (1,), "particles": (1,)}
    for objectives in (["IWAE"], ["VAE", "IWAE"]):
        cells = modules.table.cells(arguments(objectives=objectives, **options))
        assert cells == [modules.table.Cell(1, "VAE", 1)]


def test_budgets_are_of_what_was_trained(modules):
    given = SimpleNamespace(x_train=np.zeros((1_397, 64)))  # fewer than the preset has
    budget, args = modules.burda.budget, arguments(preset="small")
    assert budget(args, given) == "40 epochs of 1397 digits images"
    assert budget(args, given, num_stages=1) == "1 epochs of 1397 digits images"
    assert budget(args, given, goes_on=True) == "67 epochs of 1397 digits images"


@pytest.mark.script
@pytest.mark.parametrize("twin", ["numpyro", "pyro"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_smoke_preset_and_going_on(name, twin, tmp_path):
    if importlib.util.find_spec(twin) is None:
        pytest.skip(f"{twin} is not installed")
    pytest.importorskip("sklearn")

    def run():
        flags = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
        return subprocess.run(
            [sys.executable, FOLDER / f"{name}_{twin}.py", "--preset", "smoke", "--out", tmp_path],
            capture_output=True, text=True, check=False, env={**os.environ, **flags},
        )  # fmt: skip

    first = run()
    assert first.returncode == 0, first.stderr[-2_000:]
    rows = json.loads((tmp_path / "results.json").read_text())
    for row in rows:
        assert set(row) == KEYS
        assert row["experiment"] == name
        assert np.isfinite(row["value"])
        assert row["seconds"] > 0
    for file in SCRIPTS[name]:
        assert (tmp_path / file).stat().st_size > 1_000
    if (name, twin) != ("table", "pyro"):
        return  # going on is the same text in all
    again = run()
    assert "done before" in again.stdout
    assert json.loads((tmp_path / "results.json").read_text()) == rows
