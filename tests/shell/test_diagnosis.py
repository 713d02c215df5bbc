"""Each pitfall on results that were built to show it, and on none that were not."""

import numpy as np
import pytest
import xarray as xr

from ppl_vae.diagnosis import ADVICE, diagnose

NUM_CHAINS, NUM_DRAWS = 4, 400


def results(rng, rows=(3, 8), **stats):
    """Two rows with two missing entries each; independent draws of N(0, 1)."""
    draws = rng.normal(size=(NUM_CHAINS, NUM_DRAWS, 4))
    x = xr.DataArray(draws, dims=["chain", "draw", "missing"])
    x = x.assign_coords(row=("missing", np.repeat(rows, 2)))
    shape = (NUM_CHAINS, NUM_DRAWS, len(rows))
    stats = {"acceptance_rate": np.full(shape, 0.4), **stats}
    dims = {3: ("chain", "draw", "row"), 2: ("chain", "row")}
    sample_stats = xr.Dataset(
        {name: (dims[value.ndim], value) for name, value in stats.items()},
        coords={"row": list(rows)},
    )
    return {"posterior": xr.Dataset({"x_missing": x}), "sample_stats": sample_stats}


def found(idata):
    return {f.pitfall: f.rows.tolist() for f in diagnose(idata)}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_nothing_to_find(rng):
    assert diagnose(results(rng)) == []


def test_stuck_chains(rng):
    acceptance = np.full((NUM_CHAINS, NUM_DRAWS, 2), 0.4)
    acceptance[2, :, 1] = 0
    idata = results(rng, acceptance_rate=acceptance)
    idata["posterior"]["x_missing"][2, :, 2:] += 7  # it alone sits elsewhere
    assert found(idata) == {"stuck chains": [8]}


def test_no_usable_ratio(rng):
    """Row 8 has none in any chain, so that nothing else is said of it; row 3 in one chain."""
    diverging = np.zeros((NUM_CHAINS, NUM_DRAWS, 2), bool)
    diverging[:, :, 1] = True
    diverging[1, NUM_DRAWS // 4 :, 0] = True
    acceptance = np.where(diverging, 0.0, 0.4)
    acceptance[1, :, 0] = 0
    idata = results(rng, acceptance_rate=acceptance, diverging=diverging)
    idata["posterior"]["x_missing"][0, :, :] += 7
    assert list(found(idata).items()) == [
        ("no usable weights", [3, 8]),
        ("stuck chains", [3]),
    ]
    diverging[:, ::2] = False
    assert "no usable weights" not in found(results(rng, diverging=diverging))


def test_no_usable_weight(rng):
    """LAIR keeps a flag of each iteration, not of each draw, and its k-hat is NaN."""
    idata = results(rng, khat=np.full((NUM_CHAINS, 2), np.nan))
    none = np.repeat([[[False, True]]], 100, axis=1).repeat(NUM_CHAINS, axis=0)
    idata["sample_stats"]["diverging"] = ("chain", "iteration", "row"), none
    assert found(idata) == {"no usable weights": [8]}
    (finding,) = diagnose(idata)
    assert "check the data's units, the decoder's noise scale and the mask" in str(finding)


def test_no_density_in_pooled_draws(rng):
    lp = np.zeros((NUM_CHAINS, NUM_DRAWS, 2))
    lp[2, :, 1] = -np.inf
    assert found(results(rng, lp=lp)) == {"no usable weights": [8]}


def test_divergences_of_the_hosts_samplers_are_others(rng):
    idata = results(rng, diverging=np.ones((NUM_CHAINS, NUM_DRAWS, 2), bool))
    idata["sample_stats"].attrs["kernel"] = "NUTS"
    assert found(idata) == {}


def test_hmc_moves_count_as_moves(rng):
    shape = NUM_CHAINS, NUM_DRAWS, 2
    rates = {"acceptance_rate": np.zeros(shape), "hmc_acceptance_rate": np.full(shape, 0.9)}
    rates["hmc_acceptance_rate"][1, :, 1] = 0
    assert found(results(rng, **rates)) == {"stuck chains": [8]}


def test_missing_entries_that_never_move(rng):
    of_x = np.full((NUM_CHAINS, NUM_DRAWS, 2), 0.1)
    of_x[3, :, 0] = 0
    assert found(results(rng, acceptance_rate_x=of_x)) == {"stuck chains": [3]}


def test_one_mode_each(rng):
    idata = results(rng)
    idata["posterior"]["x_missing"][:2, :, 1] += 5
    assert found(idata) == {"one mode each": [3]}


def test_one_mode_each_without_any_spread(rng):
    """Binary pixels: each chain repeats one picture, and moves in the latents."""
    idata = results(rng)
    idata["posterior"]["x_missing"][...] = 0.0
    idata["posterior"]["x_missing"][0, :, 2] = 1.0
    idata["posterior"]["x_missing"][1, ::2, 3] = 1.0
    assert found(idata) == {"one mode each": [8]}


def test_drift(rng):
    idata = results(rng)
    idata["posterior"]["x_missing"][1, :, 0] += np.linspace(0, 6, NUM_DRAWS)
    assert found(idata) == {"not converged": [3]}


def test_one_chain_that_drifts(rng):
    """R-hat needs two chains; the parts of one tell that it drifts, not where others would be."""
    idata = results(rng)
    one = {name: group.isel(chain=[0]) for name, group in idata.items()}
    assert found(one) == {"one chain": [3, 8]}
    one["posterior"]["x_missing"][:, :, 1] += np.linspace(0, 9, NUM_DRAWS)
    assert found(one) == {"one chain": [8], "not converged": [3]}


def test_one_chain_that_says_more_itself(rng):
    """Stuck, NaN, or independent draws of an importance posterior, which are no chain."""
    idata = results(rng, acceptance_rate=np.full((NUM_CHAINS, NUM_DRAWS, 2), 0.0))
    one = {name: group.isel(chain=[0]) for name, group in idata.items()}
    assert found(one) == {"stuck chains": [3, 8]}
    one = {name: group.isel(chain=[0]) for name, group in results(rng).items()}
    assert found({**one, "estimates": xr.Dataset()}) == {}
    one["posterior"]["x_missing"][:, :, 0] = np.nan
    assert found(one) == {"undefined draws": [3], "one chain": [8]}


@pytest.mark.parametrize("num_draws", [1, 6])
def test_few_draws_are_no_proof_of_rest(rng, num_draws):
    idata = results(rng)
    idata["posterior"]["x_missing"][:, :, 1] += np.linspace(0, 900, NUM_DRAWS)
    few = {name: group.isel(draw=slice(num_draws)) for name, group in idata.items()}
    assert set(found(few)) == {"not converged"}


def test_draws_that_are_no_numbers(rng):
    idata = results(rng)
    idata["posterior"]["x_missing"][:, :, 2:] = np.nan
    assert found(idata) == {"undefined draws": [8]}
    idata["posterior"]["x_missing"][3, 17, 0] = np.nan
    assert found(idata) == {"undefined draws": [3, 8]}


def test_a_run_in_place_of_its_results():
    with pytest.raises(TypeError, match=r"got object; .* `to_inference_data\(mcmc\)`"):
        diagnose(object())


def test_heavy_weights(rng):
    khat = np.full((NUM_CHAINS, 2), 0.3)
    khat[1, 0], khat[2, 0] = 0.9, np.nan
    assert found(results(rng, khat=khat)) == {"heavy weights": [3]}


@pytest.mark.parametrize("start", [1, 5], ids=["one imputation", "the imputations of a warm-up"])
def test_history_never_refreshed(rng, start):
    length = np.cumsum(np.ones((NUM_CHAINS, NUM_DRAWS, 2)), 1)
    length[3, :, 0] = start
    assert found(results(rng, history_length=length)) == {"history never refreshed": [3]}


def test_each_finding_says_what_to_do(rng):
    idata = results(rng, rows=tuple("ab"), khat=np.full((NUM_CHAINS, 2), 2.0))
    (finding,) = diagnose(idata)
    assert str(finding).startswith("heavy weights in 2 rows (a, b): ")
    assert ADVICE["heavy weights"] in str(finding)


def test_threshold_decides(rng):
    idata = results(rng)
    idata["posterior"]["x_missing"][:2, :, 1] += 1.0
    assert found(idata) == {"one mode each": [3]}
    assert diagnose(idata, threshold=1.5) == []
