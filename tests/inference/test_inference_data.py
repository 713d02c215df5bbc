"""Runs as ArviZ results, on both lines of ArviZ and in both twins."""

from dataclasses import replace

import arviz
import numpy as np
import pytest
import xarray as xr
from host_words import bernoulli_pair, words

from ppl_vae.diagnostics import summary
from ppl_vae.inference_data import Run, completed, make_inference_data, to_inference_data

X = np.array([[0, 1, np.nan, 1], [np.nan, np.nan, 1, 0], [1, 1, 0, 0]], "float32")
MASK = ~np.isnan(X)


@pytest.fixture(scope="module")
def fitted(backend):
    return backend.fit(backend.api.VAE((4,), 2, hidden=(8,)), X, num_steps=3)


@pytest.fixture(scope="module")
def runs(backend, fitted):
    def run(name, **options):
        kernel = getattr(backend.api, name)(fitted.model, fitted.guide, **options)
        return backend.run(kernel, backend.array(X), num_warmup=2, num_samples=6, num_chains=2)

    return run


def assert_groups(idata):
    expected = arviz.InferenceData if arviz.__version__.startswith("0.") else xr.DataTree
    assert isinstance(idata, expected)
    for group in ("posterior", "sample_stats", "observed_data", "constant_data"):
        assert group in (idata.groups() if callable(idata.groups) else idata.children)


@pytest.mark.parametrize("name", ["PseudoGibbsKernel", "MWGKernel", "ACMWGKernel"])
def test_groups_dims_and_coordinates(runs, name):
    idata = to_inference_data(runs(name))
    assert_groups(idata)
    posterior = idata["posterior"]
    assert posterior["x_missing"].dims == ("chain", "draw", "missing")
    assert posterior["x_missing"].shape == (2, 6, 3)
    np.testing.assert_array_equal(posterior["row"], [0, 1, 1])
    np.testing.assert_array_equal(posterior["feature"], [2, 0, 1])
    assert posterior["z"].dims == ("chain", "draw", "row", "z_dim_0")
    stats = idata["sample_stats"]
    assert stats["lp"].dims == ("chain", "draw", "row")
    assert np.isfinite(stats["lp"]).all()
    assert ("acceptance_rate" in stats) == (name != "PseudoGibbsKernel")
    np.testing.assert_array_equal(idata["observed_data"]["x"], X)
    np.testing.assert_array_equal(idata["constant_data"]["mask"], MASK)


def test_missing_entries_are_those_of_the_draws(backend, runs):
    mcmc = runs("MWGKernel")
    draws = backend.draws(mcmc)["x"]
    idata = to_inference_data(mcmc)
    np.testing.assert_array_equal(np.asarray(idata["posterior"]["x_missing"]), draws[..., ~MASK])
    np.testing.assert_array_equal(completed(idata), draws)
    assert (completed(idata)[..., MASK] == X[MASK]).all()


@pytest.mark.parametrize("labels", [["a", "b", "c"], [2, 1, 0]])
def test_statistics_go_with_the_labels_of_their_rows(backend, runs, labels):
    """Named or numbered otherwise, a row keeps its acceptance rate."""
    plain = to_inference_data(runs("MWGKernel"))
    named = to_inference_data(runs("MWGKernel"), coords={"row": labels})
    rates = named["sample_stats"]["acceptance_rate"]
    assert rates["row"].values.tolist() == labels
    np.testing.assert_array_equal(rates, plain["sample_stats"]["acceptance_rate"])
    before, after = (summary(idata) for idata in (plain, named))
    rows = [labels[row] for row in before["row"].values]
    expected = before["acceptance_rate"].values
    np.testing.assert_array_equal(after["acceptance_rate"].sel(row=rows), expected)


def test_particles_are_flattened_into_draws(backend, runs):
    mcmc = runs("LAIRKernel", num_particles=3, num_prior=2)
    idata = to_inference_data(mcmc)
    draws = backend.draws(mcmc)["x"]
    assert draws.shape == (2, 6, 3, 3, 4)
    assert idata["posterior"]["x_missing"].shape == (2, 18, 3)
    np.testing.assert_array_equal(completed(idata), draws.reshape(2, 18, 3, 4))
    stats = idata["sample_stats"]
    assert stats["lp"].shape == (2, 18, 3)
    assert stats["log_weight"].dims == ("chain", "iteration", "proposal", "row")
    assert stats["log_weight"].shape == (2, 6, 5, 3)
    assert stats["ess_weights"].shape == (2, 6, 3)


def test_attributes_record_the_run(runs):
    attrs = to_inference_data(runs("LAIRKernel", num_particles=3))["posterior"].attrs
    assert attrs["kernel"] == "LAIRKernel"
    assert (attrs["num_particles"], attrs["num_prior"], attrs["num_warmup"]) == (3, 1, 2)
    assert attrs["wall_time"] > 0
    assert attrs["seed"] != "unknown"
    assert "version_arviz" in attrs


def test_netcdf_keeps_everything(runs, tmp_path):
    idata = to_inference_data(runs("MWGKernel"))
    path = str(tmp_path / "run.nc")
    idata.to_netcdf(path)
    again = arviz.from_netcdf(path)
    np.testing.assert_array_equal(completed(again), completed(idata))
    assert again["posterior"].attrs["kernel"] == "MWGKernel"


def test_labels_of_rows_and_columns(runs):
    coords = {"row": ["a", "b", "c"], "feature": ["w", "x", "y", "z"]}
    posterior = to_inference_data(runs("MWGKernel"), coords=coords)["posterior"]
    assert list(np.asarray(posterior["row"])) == ["a", "b", "b"]
    assert list(np.asarray(posterior["feature"])) == ["y", "w", "x"]
    with pytest.raises(ValueError, match=r"coords\['row'\] must tell the rows apart, .* 'b' twice"):
        to_inference_data(runs("MWGKernel"), coords={"row": ["a", "b", "b"]})
    with pytest.raises(ValueError, match=r"coords\['row'\] must have 3 labels, got 2"):
        to_inference_data(runs("MWGKernel"), coords={"row": ["a", "b"]})


def test_labels_of_latents_and_draws(runs):
    coords = {"z_dim_0": ["first", "second"], "chain": ["a", "b"]}
    groups = to_inference_data(runs("MWGKernel"), coords=coords)
    assert list(np.asarray(groups["posterior"]["z_dim_0"])) == ["first", "second"]
    for group in ("posterior", "sample_stats"):
        assert list(np.asarray(groups[group]["chain"])) == ["a", "b"]
    named = {"dims": {"z": ["factor"]}, "coords": {"factor": ["first", "second"]}}
    posterior = to_inference_data(runs("MWGKernel"), **named)["posterior"]
    assert list(np.asarray(posterior["z"]["factor"])) == ["first", "second"]


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        ({"coords": {"pixel": [1]}}, "coords names no dimension 'pixel'; the results have .*row"),
        ({"coords": {"z_dim_0": ["a"]}}, r"coords\['z_dim_0'\] must have 2 labels, got 1"),
        ({"dims": {"y": ["height"]}}, "dims names no site 'y'; the run has x, z"),
        ({"dims": {"z": ["a", "b"]}}, r"dims\['z'\] must name the 1 axis of one row, got"),
        ({"dims": {"z": ["row"]}}, "the results have a dimension 'row' of their own"),
        ({"dims": {"z": ["feature"]}}, "'feature' is an axis of the data; name it anew"),
        (
            {"dims": {"x": ["z"]}},
            "An axis of the data 'x' can't have the name of the latent site 'z'",
        ),
    ],
)
def test_labels_that_fit_nothing_are_refused(runs, labels, complaint):
    with pytest.raises(ValueError, match=complaint):
        to_inference_data(runs("MWGKernel"), **labels)


def test_runs_of_one_kernel_know_their_own_seeds(backend):
    kernel = backend.api.MWGKernel(*bernoulli_pair(words(backend)))
    runs = [backend.run(kernel, backend.array(X), seed=seed, num_samples=2) for seed in (1, 2)]
    seeds = [to_inference_data(run)["posterior"].attrs["seed"] for run in runs]
    assert seeds[0] != seeds[1]
    assert seeds[1] == to_inference_data(runs[1])["posterior"].attrs["seed"]
    if backend.name == "pyro":
        assert seeds == ["1", "2"]


def make_run(x_shape, site="x"):
    x, mask = np.zeros(x_shape), np.zeros(x_shape, bool)
    return Run(site, x, mask, np.ones((2, 5, *x_shape)), {"z": np.zeros((2, 5, x_shape[0]))}, {})


def test_several_event_axes_and_their_names():
    idata = make_inference_data(make_run((2, 3, 4), site="obs"))
    posterior = idata["posterior"]
    assert posterior["obs_missing"].shape == (2, 5, 24)
    assert {"row", "feature_0", "feature_1"} <= set(posterior.coords)
    assert completed(idata).shape == (2, 5, 2, 3, 4)
    idata = make_inference_data(make_run((2, 3, 4)), dims={"x": ["height", "width"]})
    assert {"row", "height", "width"} <= set(idata["posterior"].coords)
    with pytest.raises(ValueError, match="must name the 2 axes"):
        make_inference_data(make_run((2, 3, 4)), dims={"x": ["height"]})
    with pytest.raises(ValueError, match="has 'height' twice"):
        make_inference_data(make_run((2, 3, 4)), dims={"x": ["height", "height"]})


@pytest.mark.parametrize("name", ["row", "draw", "missing", "x_missing"])
def test_latents_have_no_name_of_the_results(name):
    run = replace(make_run((3, 6)), latents={name: np.zeros((2, 5, 3, 4))})
    with pytest.raises(ValueError, match=rf"latent site '{name}' has a name that the results need"):
        make_inference_data(run)


def test_latents_share_the_name_of_axes_of_one_length():
    def dims_of(shape):
        latents = {"z": np.zeros((2, 5, 3, 4)), "w": np.zeros((2, 5, 3, *shape))}
        run = replace(make_run((3, 6)), latents=latents)
        return make_inference_data(run, dims={"z": "latent", "w": ["latent"]})["posterior"][
            "w"
        ].dims

    assert dims_of((4,)) == ("chain", "draw", "row", "latent")
    with pytest.raises(ValueError, match="'latent' has 4 entries at 'z' and 5 at 'w'"):
        dims_of((5,))


def test_errors_say_what_was_expected():
    with pytest.raises(TypeError, match="one of this library's kernels"):
        to_inference_data(object())
    with pytest.raises(ValueError, match="no results of `to_inference_data`"):
        completed({"posterior": {}})


def test_arguments_without_a_place_or_with_a_dimensions_name(backend, fitted):
    """A random key is no array, and `row` is where the rows' labels are."""

    def ignoring(fn):
        return lambda x, row, key: fn(x)

    key = object()
    if backend.name == "numpyro":
        from jax import random

        key = random.key(3)
    kernel = backend.api.MWGKernel(ignoring(fitted.model), ignoring(fitted.guide))
    numbers = backend.array(np.array([5.0, 6.0, 7.0], "float32"))
    mcmc = backend.run(kernel, backend.array(X), row=numbers, key=key, num_samples=3)
    idata = to_inference_data(mcmc)
    np.testing.assert_array_equal(idata["constant_data"]["arg_row"], [5, 6, 7])
    assert not {"row", "key"} & set(idata["constant_data"].data_vars)
