"""The toy grid: its data and scores against independent answers, its scripts at their smallest."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon


def test_mixture_is_the_published_one(toy_grid):
    folder = os.environ.get("PPL_VAE_DATA")
    path = Path(folder or ".") / "toy_grid" / "grid2d_mog4.npz"
    if folder is None or not path.exists():
        pytest.skip("set PPL_VAE_DATA to a folder with toy_grid/grid2d_mog4.npz")
    with np.load(path) as file:
        np.testing.assert_allclose(toy_grid.MEANS, file["means"], atol=2e-6)
        variances = np.diagonal(file["covs"], axis1=1, axis2=2)
        np.testing.assert_allclose(toy_grid.SCALES**2, variances, rtol=2e-4)


def test_the_fourteen_conditions(toy_grid):
    assert len(toy_grid.CONDITIONS) == len(set(toy_grid.CONDITIONS)) == 14
    for name, observed in {"I": (np.nan, 0), "II": (0, np.nan), "III": (np.nan, 1)}.items():
        row = toy_grid.X[toy_grid.CONDITIONS.index(name)]
        np.testing.assert_array_equal(row, np.float32(observed))


def test_latents_keep_off_the_ends_of_their_interval(toy_grid):
    """In float32 (12 + u) / 13 is 1 for one u of 30 million: a Beta has no finite density there."""

    class AlmostOne:
        def uniform(self, size):
            return np.stack([np.full(size[1:], u) for u in (0.0, 0.5, 1 - 1e-12)])

    z = toy_grid.latents(AlmostOne(), np.array([0, 12]), 3)
    assert z.shape == (3, 2, 1)
    assert z.dtype == np.float32
    assert ((z > 0) & (z < 1)).all()
    np.testing.assert_allclose(z[1, :, 0], [0.5 / 13, 12.5 / 13], rtol=1e-6)
    assert np.isfinite(stats.beta(0.5, 3.0).logpdf(z)).all()


def test_a_loss_that_is_not_finite_stops_the_training(toy_grid):
    with pytest.raises(FloatingPointError, match="The loss is nan at step 300"):
        toy_grid.show_loss(None, 300, float("nan"))


def test_quadrature_against_the_mixture(toy_grid):
    """A decoder that is constant on each component's part of the latent: the mixture itself."""
    component = np.minimum((toy_grid.Z_GRID * 13).astype(int), 12)
    found = toy_grid.exact_densities(toy_grid.MEANS[component], toy_grid.SCALES[component])
    counts = np.bincount(component)  # points of the grid in each part
    for name in ("I", "II", "III"):
        row = toy_grid.CONDITIONS.index(name)
        (o,), (m,) = (
            np.flatnonzero(a) for a in (~np.isnan(toy_grid.X[row]), np.isnan(toy_grid.X[row]))
        )
        weight = counts * stats.norm.pdf(
            toy_grid.X[row, o], toy_grid.MEANS[:, o], toy_grid.SCALES[:, o]
        )
        each = stats.norm.pdf(toy_grid.GRID[:, None], toy_grid.MEANS[:, m], toy_grid.SCALES[:, m])
        np.testing.assert_allclose(found[row], each @ weight / weight.sum(), rtol=1e-6, atol=1e-12)


def test_binned_kernel_density_is_scipys(toy_grid):
    rng = np.random.default_rng(0)
    draws = np.concatenate([rng.normal(-1, 0.1, 3_000), rng.normal(1, 0.3, 2_000)])
    expected = stats.gaussian_kde(draws, bw_method=0.05)(toy_grid.GRID)
    found = toy_grid.kernel_density(draws)
    assert np.abs(found - expected).max() < 2e-3 * expected.max()


@pytest.mark.exact
def test_exact_draws_score_as_the_smoothed_density(toy_grid):
    """The score of many draws tends to that of the density smoothed by the same bandwidth."""
    component = np.minimum((toy_grid.Z_GRID * 13).astype(int), 12)
    truth = toy_grid.exact_densities(toy_grid.MEANS[component], toy_grid.SCALES[component])
    preset = toy_grid.PRESETS["small"]
    found = toy_grid.divergences_of_exact_draws(np.random.default_rng(0), truth, preset)
    assert found.shape == (preset.num_replicates, 14)
    for density, each in zip(truth, found.T, strict=True):
        p = density / density.sum()
        spread = np.sqrt((p * toy_grid.GRID**2).sum() - (p * toy_grid.GRID).sum() ** 2)
        at = toy_grid.GRID - toy_grid.GRID[2_500]
        smooth = np.convolve(p, stats.norm.pdf(at, scale=0.05 * spread), mode="same")
        limit = jensenshannon(smooth, p) ** 2
        assert abs(each.mean() - limit) < 4e-4  # four standard errors: false alarm 1e-3


@pytest.mark.script
@pytest.mark.parametrize("twin", ["numpyro", "pyro"])
def test_smoke_preset_and_going_on(twin, example_folder, tmp_path):
    if importlib.util.find_spec(twin) is None:
        pytest.skip(f"{twin} is not installed")

    def run(*more):
        script = example_folder / f"toy_grid_{twin}.py"
        return subprocess.run(
            [sys.executable, script, "--preset", "smoke", "--out", tmp_path, *more],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    first = run()
    assert first.returncode == 0, first.stderr[-2_000:]
    rows = json.loads((tmp_path / "results.json").read_text())
    methods = dict.fromkeys(row["method"] for row in rows)
    assert {"pseudo-Gibbs", "MWG", "AC-MWG", "LAIR 4+1", "LAIR 19+1 resampled"} < set(methods)
    assert len(rows) == 14 * len(methods)
    for row in rows:
        assert 0 <= row["value"] <= np.log(2)
        assert row["standard_error"] >= 0
    paper = {(r["method"], r["condition"]): r["paper_value"] for r in rows}
    assert paper["MWG", "III"] == 0.6931
    assert paper["AC-MWG eps=0", "II"] is None
    for name in ("toy_grid.png", "AC-MWG.nc"):
        assert (tmp_path / name).stat().st_size > 1_000

    if twin == "numpyro":
        return  # going on is the same text in both; here it would only compile again
    kept = [row for row in rows if row["method"] != "MWG"]  # as if stopped before it was written
    (tmp_path / "results.json").write_text(json.dumps(kept))
    again = run()
    assert again.stdout.count("done before") == 6
    new = json.loads((tmp_path / "results.json").read_text())
    mwg = [[r["value"] for r in found if r["method"] == "MWG"] for found in (rows, new)]
    np.testing.assert_allclose(*mwg, rtol=1e-6)
    other = run("--seed", "1")
    assert other.returncode != 0
    assert "give another --out" in other.stderr


@pytest.mark.slow
@pytest.mark.parametrize("twin", ["numpyro", "pyro"])
def test_small_preset_meets_the_paper(twin, example_folder, tmp_path):
    """AC-MWG and LAIR at or below the paper's divergence in all three pitfalls.

    Two standard errors are allowed, for processors that round otherwise; the seed is fixed. Where
    LAIR is not resampled it keeps a bias of order 1/K, which hangs on the trained VAE; there the
    error of the paper's figure is allowed for, too: it is of one run, ours of five.
    """
    pytest.importorskip(twin)
    script = example_folder / f"toy_grid_{twin}.py"
    run = subprocess.run(
        [sys.executable, script, "--preset", "small", "--out", tmp_path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2_000:]
    rows = json.loads((tmp_path / "results.json").read_text())
    found = {(row["method"], row["condition"]): row for row in rows}
    of_ours = dict.fromkeys(("AC-MWG", "LAIR 4+1 resampled", "LAIR 19+1 resampled"), 1.0)
    of_both = dict.fromkeys(("LAIR 4+1", "LAIR 19+1"), (1 + 5) ** 0.5)
    for method, errors in (of_ours | of_both).items():
        for pitfall in ("I", "II", "III"):
            row = found[method, pitfall]
            assert row["value"] - 2 * errors * row["standard_error"] <= row["paper_value"], row
    for pitfall in ("I", "II", "III"):
        assert found["MWG", pitfall]["value"] > 5 * found["AC-MWG", pitfall]["value"]
    assert found["MWG", "III"]["value"] > 0.5
