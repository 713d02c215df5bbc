"""Active units are counted as planted, in one layer and in two; closed forms throughout.

Scores beyond 5 of a normal law: false alarm 6e-7 a number; the seeds are fixed.
"""

import numpy as np
import pytest
import xarray as xr
from kernel_parts import both_backends
from unit_programs import (
    COVARIANCE_1,
    DEAD,
    GAIN_2,
    MEAN_1,
    NUM_ROWS,
    TRUTH,
    X_2,
    X,
    layers,
    normal_pair,
    units_of,
)

from ppl_vae.plots import active_units as plot_active_units


@pytest.mark.exact
@pytest.mark.parametrize("num_particles", [2, 100])
def test_one_layer_is_the_closed_form(backend, num_particles):
    """The error of the means has no part in it, also with two draws."""
    gain, covariance = TRUTH.posterior
    found = units_of(backend, normal_pair(backend), num_particles=num_particles)
    mean = (X - TRUTH.bias) @ gain.T
    expected, noise = mean.var(0, ddof=1), np.diagonal(covariance) / num_particles
    error = np.sqrt((4 * expected * noise + 2 * noise**2 * 2) / NUM_ROWS)
    scores = (found.activity.sel(site="z") - expected) / error
    assert np.abs(scores).max() < 5
    assert found.standard_error.sel(site="z").values[DEAD] == pytest.approx(error[DEAD], rel=0.5)
    if num_particles == 100:
        np.testing.assert_array_equal(found.active.sel(site="z"), [True, False, True, False, True])
        assert found.num_active.sel(site="z") == 3
        np.testing.assert_array_equal(
            found.spectrum.sel(site="z"), np.sort(found.activity.sel(site="z"))[::-1]
        )
        all_of_them = units_of(backend, normal_pair(backend), threshold=-1.0)
        assert all_of_them.num_active.sel(site="z") == 5
        assert all_of_them.attrs == {"threshold": -1.0, "num_particles": 100, "num_rows": NUM_ROWS}


@pytest.mark.exact
def test_two_layers_average_the_draws_between(backend):
    """A_u of z2 is Var_x E[z2 | x]; given one draw of z1 it would be Var E[z2 | z1], far above."""
    found = units_of(backend, layers(backend), X_2, num_particles=200)
    mean_2 = MEAN_1 @ GAIN_2.T
    for site, mean, size in (("z1", MEAN_1, 4), ("z2", mean_2, 3)):
        expected = mean.var(0, ddof=1)
        activity = found.activity.sel(site=site).values[:size]
        noise = 1.0 / 200
        error = np.sqrt((4 * expected * noise + 4 * noise**2) / NUM_ROWS)
        assert (np.abs(activity - expected) < 5 * error).all()
    rng = np.random.default_rng(3)
    one_draw = MEAN_1 + rng.normal(size=MEAN_1.shape) * np.diagonal(COVARIANCE_1) ** 0.5
    off = (one_draw @ GAIN_2.T).var(0, ddof=1) - mean_2.var(0, ddof=1)
    assert off.max() > 10 * error.max()
    np.testing.assert_array_equal(found.num_active.sel(site=["z1", "z2"]), [3, 2])
    np.testing.assert_array_equal(found.num_units.sel(site=["z1", "z2"]), [4, 3])
    np.testing.assert_array_equal(found.active.sel(site="z1"), [True, True, False, True])
    np.testing.assert_array_equal(found.active.sel(site="z2"), [True, False, True, False])
    assert np.isnan(found.activity.sel(site="z2")[3])


def test_chunks_hidden_values_and_shapes(backend):
    rng = np.random.default_rng(0)
    mask = rng.random(X.shape) < 0.7
    whole = units_of(backend, normal_pair(backend), np.where(mask, X, np.nan), num_particles=20)
    small = units_of(backend, normal_pair(backend), np.where(mask, X, 1e6), num_particles=20,
                     mask=backend.array(mask), chunk_size=50)  # fmt: skip
    xr.testing.assert_allclose(whole, small, rtol=1e-4)


def test_twins_have_the_same_layout():
    layouts = []
    for backend in both_backends():
        found = units_of(backend, layers(backend), X_2[:40], num_particles=5)
        layouts.append({k: (v.dims, v.shape, v.dtype.kind) for k, v in found.variables.items()})
        sites = sorted(found.site.values)
    assert layouts[0] == layouts[1]
    assert sites == ["z1", "z2"]


def test_picture_of_the_spectrum(backend):
    """All units are in it, also where their activity is below 0."""
    found = units_of(backend, layers(backend), X_2[:40], num_particles=5)
    found["spectrum"][0, -1] = -1.0
    (axes,) = plot_active_units(found).axes
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
    for i, size in enumerate(found.num_units.values):
        label = f"{found.site.values[i]}: {int(found.num_active[i])} of {size} active"
        expected = found.spectrum.values[i, :size]
        shown = expected > 0
        np.testing.assert_allclose(drawn[label][shown], expected[shown])
        assert (drawn[label][~shown] > 0).all()
    with pytest.raises(ValueError, match=r"no results of active_units: .*num_active"):
        plot_active_units(found.drop_vars("num_active"))
