"""The shell's diagnostics against ArviZ, scalar by scalar, and the summary over rows."""

import logging
import warnings

import numpy as np
import pytest
import xarray as xr

from ppl_vae import diagnostics

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz as az

NUM_SCALARS = 12
FIELDS = diagnostics.Convergence._fields
# Where a quantile falls on a tie, ArviZ 0.x and 1.x round differently; the library follows 0.x.
ARVIZ_0 = int(az.__version__.split(".")[0]) == 0


@pytest.fixture(autouse=True)
def quiet_arviz():
    logger = logging.getLogger("arviz")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


def arviz_diagnostics(x):
    """ArviZ's four numbers for every scalar of x (chain, draw, scalar)."""
    methods = {
        "rhat": az.rhat,
        "ess_bulk": lambda y: az.ess(y, method="bulk"),
        "ess_tail": lambda y: az.ess(y, method="tail", prob=(0.05, 0.95)),
        "mcse_mean": lambda y: az.mcse(y, method="mean"),
    }
    x = np.asarray(x, x.dtype if x.dtype.kind == "f" else float)
    with np.errstate(all="ignore"):
        columns = [x[..., s] for s in range(x.shape[-1])]
        return {k: np.array([float(f(y)) for y in columns]) for k, f in methods.items()}


def make_draws(kind, num_chains, num_draws, rng):
    shape = (num_chains, num_draws, NUM_SCALARS)
    share = rng.uniform(size=NUM_SCALARS)
    normal = rng.normal(size=shape)
    cases = {
        "normal": normal,
        "single": normal.astype(np.float32),
        "offset": 1e6 + normal,
        "random_walk": np.cumsum(normal, axis=1),
        "alternating": 0.3 * normal + np.where(np.arange(num_draws) % 2, 1, -1)[:, None],
        "binary": (rng.uniform(size=shape) < share).astype(float),
        "boolean": rng.uniform(size=shape) < share,
        "two_odd_values": np.where(rng.uniform(size=shape) < share, 0.1, 0.7),
        "sticky": np.cumsum(rng.uniform(size=shape) < 0.2, axis=1) % 2,
        "grey": rng.binomial(16, share, size=shape) / 16,
        "many_levels": rng.binomial(255, share, size=shape) / 255,
        "rounded": np.round(normal, 1),
        "rounded_single": np.round(normal, 1).astype(np.float32),
        "constant": np.ones(shape) * share,
        "apart": np.ones(shape) * 0.1 * rng.integers(0, 3, (num_chains, 1, NUM_SCALARS)),
        "with_nan": np.where(rng.uniform(size=shape) < 0.01, np.nan, normal),
        "infinite": np.where(rng.uniform(size=shape) < 0.05, np.inf, normal),
        "infinite_median": np.where(rng.uniform(size=shape) < 0.6, np.inf, normal),
    }
    return cases[kind]


KINDS = """normal single offset random_walk alternating binary boolean two_odd_values sticky grey
many_levels rounded rounded_single constant apart with_nan infinite
infinite_median""".split()
TIED = set(KINDS) - {"normal", "single", "offset", "random_walk", "alternating", "with_nan"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("num_chains", "num_draws"), [(4, 100), (1, 40), (3, 41), (2, 9), (5, 4)])
def test_equal_to_arviz(kind, num_chains, num_draws):
    x = make_draws(kind, num_chains, num_draws, np.random.default_rng(num_draws))
    expected = arviz_diagnostics(x)
    result = diagnostics.convergence(x, chunk=5)
    for name in FIELDS:
        if name == "ess_tail" and kind in TIED and not ARVIZ_0:
            continue
        np.testing.assert_allclose(
            getattr(result, name), expected[name], rtol=1e-6, atol=0, err_msg=f"{kind} {name}"
        )


def arviz_ess_bulk(x):
    return np.array([az.ess(x[..., s], method="bulk") for s in range(x.shape[-1])])


def test_autocorrelations_that_are_exactly_zero_follow_arviz_rounding():
    # Of these scalars about 60 hang on a zero, and 6 differ unless summed in ArviZ's order.
    x = (np.random.default_rng(3).uniform(size=(2, 10, 3000)) < 0.5).astype(float)
    np.testing.assert_allclose(diagnostics.ess_bulk(x), arviz_ess_bulk(x), rtol=1e-6)


def test_mixed_scalars_keep_their_places():
    rng = np.random.default_rng(0)
    x = np.concatenate([make_draws(k, 4, 50, rng) for k in KINDS], axis=2, dtype=float)
    x = x[..., rng.permutation(x.shape[2])]
    expected = arviz_diagnostics(x)
    for name in FIELDS:
        if name != "ess_tail" or ARVIZ_0:
            result = getattr(diagnostics.convergence(x), name)
            np.testing.assert_allclose(result, expected[name], rtol=1e-6, err_msg=name)


def test_single_functions_and_chunks_agree_with_the_shared_call():
    rng = np.random.default_rng(1)
    x = np.stack([rng.normal(size=(4, 30, 7)), rng.integers(0, 2, (4, 30, 7))], axis=2)
    shared = diagnostics.convergence(x)
    for name in FIELDS:
        alone = getattr(diagnostics, name)(x)
        assert alone.shape == (2, 7)
        np.testing.assert_array_equal(alone, getattr(shared, name))
        np.testing.assert_array_equal(getattr(diagnostics.convergence(x, chunk=1), name), alone)


def test_short_single_and_absent():
    rng = np.random.default_rng(2)
    assert all(np.isnan(v).all() for v in diagnostics.convergence(rng.normal(size=(4, 3, 5))))
    single = diagnostics.convergence(rng.normal(size=(1, 50, 5)))
    assert np.isnan(single.rhat).all()
    assert np.isfinite(single.ess_bulk).all()
    assert diagnostics.rhat(rng.normal(size=(4, 50, 0, 3))).shape == (0, 3)
    assert np.ndim(diagnostics.rhat(rng.normal(size=(4, 50)))) == 0


@pytest.mark.parametrize(
    ("x", "chunk", "error", "words"),
    [
        (np.ones(5), None, ValueError, r"\(chain, draw, ...\).*x\[None\]"),
        (np.ones((4, 5)) + 1j, None, TypeError, "complex128"),
        (np.array([["a", "b"]]), None, TypeError, "real numbers"),
        (np.ones((4, 5)), 0, ValueError, "chunk must be at least 1"),
    ],
)
def test_bad_input(x, chunk, error, words):
    with pytest.raises(error, match=words):
        diagnostics.convergence(x, chunk=chunk)


def make_idata(draws, row, acceptance=None, name="x_missing"):
    """Groups as `to_inference_data` makes them, in the container of the installed ArviZ."""
    x = xr.DataArray(draws, dims=["chain", "draw", "missing"], coords={"row": ("missing", row)})
    groups = {"posterior": xr.Dataset({name: x})}
    if acceptance is not None:
        rates = xr.DataArray(acceptance, dims=["chain", "draw", "row"])
        groups["sample_stats"] = xr.Dataset({"acceptance_rate": rates})
    return groups


CONTAINERS = [dict, xr.DataTree.from_dict] + ([lambda g: az.InferenceData(**g)] if ARVIZ_0 else [])


@pytest.mark.parametrize("container", CONTAINERS)
def test_summary_gathers_entries_by_row(container):
    rng = np.random.default_rng(4)
    row = np.array([5, 2, 2, 5, 2, 2])  # row 2 has an even number of entries, rows 0 to 4 others
    draws = rng.normal(size=(4, 50, 6)).cumsum(axis=1)
    acceptance = rng.uniform(size=(4, 50, 6))
    table = diagnostics.summary(container(make_idata(draws, row, acceptance)))
    assert table.row.values.tolist() == [2, 5]
    assert table.num_missing.values.tolist() == [4, 2]
    values = diagnostics.convergence(draws)
    for r in (2, 5):
        line, mine = table.sel(row=r), row == r
        assert line.rhat_worst == values.rhat[mine].max()
        assert line.rhat_median == np.median(values.rhat[mine])
        assert line.ess_bulk_worst == values.ess_bulk[mine].min()
        assert line.ess_tail_worst == values.ess_tail[mine].min()
        assert line.ess_tail_median == np.median(values.ess_tail[mine])
        np.testing.assert_allclose(line.acceptance_rate, acceptance[..., r].mean())
    assert not table.stuck.any()


def test_summary_skips_entries_that_never_change():
    draws = np.random.default_rng(5).normal(size=(4, 50, 3))
    draws[..., [0, 2]] = 1.0
    table = diagnostics.summary(make_idata(draws, [0, 0, 1]))
    assert table.rhat_worst[0] == diagnostics.rhat(draws[..., 1])
    assert np.isnan(table.rhat_worst[1])
    assert table.ess_bulk_worst[1] == 200
    assert np.isnan(table.acceptance_rate).all()
    assert not table.stuck.any()


def test_stuck_by_acceptance_rate():
    draws = np.random.default_rng(6).normal(size=(3, 20, 3))
    draws[1, :, 1] = draws[1, :1, 1]  # unchanged, yet row 1 accepted once in that chain
    acceptance = np.full((3, 20, 3), 0.5)
    acceptance[2, :, 0] = 0.0
    acceptance[1, :, 1] = np.eye(20)[3]
    table = diagnostics.summary(make_idata(draws, [0, 1, 2], acceptance))
    assert table.stuck.values.tolist() == [True, False, False]


def test_stuck_by_draws_where_there_is_no_acceptance_rate():
    draws = np.random.default_rng(7).normal(size=(3, 20, 5))
    draws[0, :, 0] = draws[0, :1, 0]  # row 0: one chain keeps its only entry
    draws[0, :, 1] = draws[0, :1, 1]  # row 1: one of two entries moves
    draws[:, :, 3] = draws[:, :1, 3]  # row 2: every chain keeps its own value
    draws[:, :, 4] = 1.0  # row 3: a constant, nothing to be stuck in
    table = diagnostics.summary(make_idata(draws, [0, 1, 1, 2, 3]))
    assert table.stuck.values.tolist() == [True, False, True, False]
    assert not diagnostics.summary(make_idata(draws[:, :1], [0, 1, 1, 2, 3])).stuck.any()


def test_summary_names_what_it_needs():
    draws = np.random.default_rng(8).normal(size=(2, 8, 2))
    two = make_idata(draws, [0, 1])
    two["posterior"]["obs_missing"] = two["posterior"]["x_missing"] + 1
    with pytest.raises(ValueError, match=r"x_missing.*obs_missing.*site="):
        diagnostics.summary(two)
    assert diagnostics.summary(two, site="obs").sizes["row"] == 2
    with pytest.raises(ValueError, match="y_missing"):
        diagnostics.summary(two, site="y")
    with pytest.raises(ValueError, match="coordinate row"):
        diagnostics.summary({"posterior": two["posterior"].drop_vars("row")[["x_missing"]]})
