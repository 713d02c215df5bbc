"""A guide that sees the mask, and nothing behind it."""

import numpy as np
import pytest
from kernel_parts import double_precision, module, seeded
from small_training import MASK, X, small_vae, weights


def masked_encoder(backend, *sizes):
    return seeded(backend, backend.api.masked_encoder, 1, *sizes)


@pytest.mark.parametrize("event_shape", [(6,), (1, 5, 4)])
def test_a_masked_encoder_sees_the_mask_and_nothing_behind_it(backend, event_shape):
    rng = np.random.default_rng(0)
    encoder = masked_encoder(backend, event_shape, 2, (8,))
    x = rng.normal(size=(7, *event_shape)).astype("float32")
    mask = rng.random(x.shape) < 0.5

    def loc(x, mask=None):
        mask = None if mask is None else backend.array(mask)
        return seeded(backend, lambda *_: np.asarray(encoder(backend.array(x), mask=mask)[0]), 0)

    assert loc(x, mask).shape == (7, 2)
    for filler in (1e6, np.nan):
        np.testing.assert_array_equal(loc(x, mask), loc(np.where(mask, x, filler), mask))
    zeroed = np.where(mask, x, 0)
    assert (loc(zeroed, mask) != loc(zeroed)).any(1).all()
    np.testing.assert_array_equal(loc(x), loc(x, np.ones(x.shape, bool)))


def test_a_masked_encoder_trains_and_samples(backend):
    """Rows of which nothing is observed have a posterior of their own: the prior."""
    vae = small_vae(backend, encoder=masked_encoder(backend, (6,), 2, (8,)))
    x = np.where(MASK, X, np.nan)
    x[::2] = np.nan
    options = {"num_steps": 400, "batch_size": 24, "learning_rate": 0.02}
    fitted = backend.fit(vae, x, objective="stl", **options)
    loc, scale = location_and_scale(backend, fitted, x, ~np.isnan(x))
    unmasked, _ = location_and_scale(backend, fitted, x, np.ones(x.shape, bool))
    assert (np.abs(loc - unmasked)[::2] > 0.01).any(1).all()
    np.testing.assert_allclose(loc[::2], 0, atol=0.25)
    np.testing.assert_allclose(scale[::2], 1, atol=0.25)
    for name in ("MWGKernel", "LAIRKernel"):
        kernel = getattr(backend.api, name)(fitted.model, fitted.guide)
        draws = backend.draws(backend.run(kernel, backend.array(x[:5]), num_samples=4))["x"]
        assert np.isfinite(draws).all()


def location_and_scale(backend, fitted, x, mask):
    program = module(backend, "program").Program(
        fitted.model, fitted.guide, backend.array(np.nan_to_num(x)), backend.array(mask)
    )

    def run(*key):
        options = {"key": key[0]} if key else {}
        site = program.trace_guide(program.x_obs, **options)["z"]
        return np.asarray(site["fn"].base_dist.loc), np.asarray(site["fn"].base_dist.scale)

    return seeded(backend, run, 0)


def test_double_precision(backend):
    with double_precision(backend):
        vae = small_vae(backend, encoder=masked_encoder(backend, (6,), 2, (8,)))
        x = np.where(MASK, X, np.nan).astype(float)
        fitted = backend.fit(vae, x, objective="iwae", num_steps=2, batch_size=8)
        assert all(array.dtype == np.float64 for array in weights(backend, fitted).values())
