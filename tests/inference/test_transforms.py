"""What is done to mini-batches in training, what training validates on, and what it is shown."""

import importlib

import numpy as np
import pytest
from kernel_parts import module, seeded

RNG = np.random.default_rng(0)
GREY = RNG.random((24, 6)).astype("float32")
X = (GREY < 0.4).astype("float32")
MASK = RNG.random(X.shape) < 0.6
HELD_OUT = (RNG.random((11, 6)) < 0.4).astype("float32")
SMALL = {"num_steps": 12, "batch_size": 8}


def small_vae(backend):
    """A VAE whose first weights are the same at every call."""
    if backend.name == "pyro":
        importlib.import_module("pyro").set_rng_seed(1)
    return backend.api.VAE((6,), 2, hidden=(8,))


def fit(backend, x=X, program=None, **options):
    program = small_vae(backend) if program is None else program
    return backend.fit(program, x, **{**SMALL, **options})


def weights(backend, fitted):
    params = (fitted.params,) if backend.name == "numpyro" else ()
    return fitted.program.to_weights(*params)


def assert_same(backend, one, other):
    np.testing.assert_array_equal(one.losses, other.losses)
    mine, its = weights(backend, one), weights(backend, other)
    assert mine.keys() == its.keys()
    for name in mine:
        np.testing.assert_array_equal(mine[name], its[name])


def binarisation(backend):
    return module(backend, "transforms").dynamic_binarisation


# --- dynamic binarisation --------------------------------------------------------------------


def test_pixels_are_drawn_with_the_grey_values_as_probabilities(backend):
    """Means of 4,000 draws of 6 pixels: beyond 5 standard errors once in 300,000 runs."""
    grey = np.array([0.0, 0.02, 0.3, 0.5, 0.9, 1.0], "float32")
    x = np.tile(grey, (4000, 1))
    pixels = np.asarray(seeded(backend, binarisation(backend), 0, backend.array(x)))
    assert pixels.dtype == np.float32
    assert set(np.unique(pixels)) == {0.0, 1.0}
    error = np.sqrt(grey * (1 - grey) / 4000)
    assert (np.abs(pixels.mean(0) - grey) <= 5 * error + 1e-6).all()
    assert np.abs(np.corrcoef(pixels[:, 1:5].T) - np.eye(4)).max() < 5 / np.sqrt(4000)


def test_missing_pixels_stay_missing(backend):
    x = backend.array(np.where(MASK, GREY, np.nan))
    pixels = np.asarray(seeded(backend, binarisation(backend), 0, x))
    np.testing.assert_array_equal(np.isnan(pixels), ~MASK)


@pytest.mark.parametrize("place", [(0, 0), (23, 5)])
def test_what_is_no_grey_value(backend, place):
    """In the last row too, which the first mini-batch does not hold."""
    bytes_ = GREY.copy()
    bytes_[place] = 255.0
    with pytest.raises(ValueError, match=r"grey values in \[0, 1\], got 0\.\d+ to 255; divide"):
        fit(backend, bytes_, transform=binarisation(backend))


def test_compiled_binarisation_of_what_is_no_grey_value():
    jax = pytest.importorskip("jax")
    from ppl_vae.numpyro import dynamic_binarisation

    pixels = jax.jit(dynamic_binarisation)(jax.random.key(0), np.float32([0.0, -0.5, 1.5, np.nan]))
    np.testing.assert_array_equal(pixels, [0.0, np.nan, np.nan, np.nan])


# --- in training -----------------------------------------------------------------------------


def seen_by(backend, x=X, *, num_steps=12, transform=None, **options):
    """What the program gets at each step: the rows' sums as the losses of a pair without noise."""
    host = importlib.import_module(backend.name)
    dist = importlib.import_module(f"{backend.name}.distributions")

    def model(x):
        unused = host.param("unused", backend.array(np.zeros(1, "float32")))
        with host.plate("rows", x.shape[0]):
            z = host.sample("z", dist.Normal(0 * x[:, :1], 1.0).to_event(1))
            host.sample("x", dist.Normal(0 * x + 0 * z + 0 * unused, 1.0).to_event(1), obs=x)

    def guide(x):
        with host.plate("rows", x.shape[0]):
            host.sample("z", dist.Normal(0 * x[:, :1], 1.0).to_event(1))

    options = {"batch_size": 24, "shuffle": False, **options}
    fitted = backend.fit(
        (model, guide), backend.array(x), num_steps=num_steps, transform=transform, **options
    )
    squares = lambda losses: 2 * (losses - 0.5 * np.log(2 * np.pi) * 6)  # noqa: E731
    return squares(fitted.losses), squares(fitted.validation_losses)


def test_pixels_are_redrawn_at_every_step(backend):
    """The number of white pixels per row: another one each epoch, and right in the mean."""
    white, _ = seen_by(backend, GREY, num_steps=60, transform=binarisation(backend))
    assert len(np.unique(white.round(4))) > 15
    variance = (GREY * (1 - GREY)).sum() / 24**2
    assert abs(white.mean() - GREY.sum() / 24) < 5 * np.sqrt(variance / 60)
    np.testing.assert_allclose(white.std(), np.sqrt(variance), rtol=0.5)
    plain, _ = seen_by(backend, X, num_steps=2)
    np.testing.assert_allclose(plain, X.sum() / 24, rtol=1e-4)


def test_a_transform_of_ones_own_sees_what_is_missing(backend):
    """NaN, whatever stood there; and what it puts there is not observed."""

    def add_number_missing(*key_and_x):
        x = key_and_x[-1]
        host = importlib.import_module({"numpyro": "jax.numpy", "pyro": "torch"}[backend.name])
        missing = host.isnan(x)
        return host.where(missing, 7.0, (x + missing.sum(1)[:, None]) % 2)

    transformed = fit(backend, transform=add_number_missing, mask=MASK)
    by_hand = fit(backend, ((X + (~MASK).sum(1)[:, None]) % 2).astype("float32"), mask=MASK)
    np.testing.assert_array_equal(transformed.losses, by_hand.losses)


@pytest.mark.parametrize("stopped_after", [6, 7])
def test_resumed_with_a_transform_and_validation(backend, tmp_path, stopped_after):
    """Bit by bit, at the end of an epoch and within one."""
    x, held_out = np.where(MASK, GREY, np.nan), np.clip(HELD_OUT, 0.1, 0.9)
    options = {"transform": binarisation(backend), "validation": backend.array(held_out)}
    whole = fit(backend, x, num_steps=17, **options)
    options["checkpoint"] = tmp_path / "run.npz"
    fit(backend, x, num_steps=stopped_after, **options)
    resumed = fit(backend, x, num_steps=17, **options)
    assert_same(backend, whole, resumed)
    np.testing.assert_array_equal(whole.validation_losses, resumed.validation_losses)


def test_a_transform_that_changes_the_shape(backend):
    with pytest.raises(ValueError, match=r"shape that it gets, \(24, 6\), it returned \(24, 3\)"):
        fit(backend, transform=lambda *key_and_x: key_and_x[-1][:, :3])


def test_rows_in_their_order(backend):
    """Sums of three batches, the same in every epoch; shuffled they differ."""
    sums = (X**2).sum(1).reshape(3, 8).mean(1)
    ordered, _ = seen_by(backend, batch_size=8, num_steps=6)
    np.testing.assert_allclose(ordered, np.tile(sums, 2), rtol=1e-4)
    shuffled, _ = seen_by(backend, batch_size=8, num_steps=6, shuffle=True)
    assert np.abs(shuffled[:3] - shuffled[3:]).max() > 0.1
    np.testing.assert_allclose(shuffled[:3].sum(), sums.sum(), rtol=1e-4)


# --- validation ------------------------------------------------------------------------------


def test_validation_does_not_change_training(backend):
    without = fit(backend)
    with_validation = fit(backend, validation=backend.array(HELD_OUT))
    assert without.validation_losses.shape == (0,)
    assert with_validation.validation_losses.shape == (4,)
    assert_same(backend, without, with_validation)


def test_validation_is_the_loss_per_row_of_all_its_rows(backend):
    """11 rows in batches of 8 and 3; missing ones do not count."""
    _, squares = seen_by(backend, batch_size=8, validation=backend.array(2 * HELD_OUT))
    np.testing.assert_allclose(squares, 4 * HELD_OUT.sum() / 11, rtol=1e-4)
    filled = fit(backend, validation=backend.array(np.where(MASK[:11], HELD_OUT, np.nan)))
    assert np.isfinite(filled.validation_losses).all()
    held_out, mask = backend.array(HELD_OUT), backend.array(MASK[:11])
    masked = fit(backend, validation=held_out, validation_mask=mask)
    np.testing.assert_array_equal(masked.validation_losses, filled.validation_losses)
    whole = fit(backend, validation=held_out)
    assert (masked.validation_losses != whole.validation_losses).all()
    with pytest.raises(ValueError, match="there are no validation rows"):
        fit(backend, validation_mask=mask)


def test_validation_measures_what_was_learned(backend):
    """Weights that stay give the same number every epoch; learned ones a lower one."""
    held_out = backend.array(HELD_OUT)
    still = fit(backend, learning_rate=1e-30, validation=held_out).validation_losses
    assert (still == still[0]).all()
    options = {"validation": held_out, "num_steps": 90, "learning_rate": 0.02}
    learned = fit(backend, **options).validation_losses
    assert learned[-1] < learned[0] - 0.1
    assert fit(backend, num_steps=7, validation=held_out).validation_losses.shape == (3,)


def test_validation_rows_have_labels_of_their_own(backend):
    host = importlib.import_module(backend.name)
    dist = importlib.import_module(f"{backend.name}.distributions")

    def model(x, y):
        weight = host.param("weight", backend.array(np.zeros(1, "float32")))
        with host.plate("rows", x.shape[0]):
            z = host.sample("z", dist.Normal(0 * x[:, :1], 1.0).to_event(1))
            loc = 0 * x + 0 * z + 0 * weight + y[:, None]
            host.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x, y):
        with host.plate("rows", x.shape[0]):
            host.sample("z", dist.Normal(0 * x[:, :1], 1.0).to_event(1))

    data = [backend.array(np.full((n, 6), v, "float32")) for n, v in ((24, 1.0), (5, 3.0))]
    labels = [backend.array(np.full(n, v, "float32")) for n, v in ((24, 1.0), (5, 3.0))]
    fitted = backend.fit(
        (model, guide), data[0], labels[0], validation=(data[1], labels[1]), **SMALL
    )
    nothing_left = 0.5 * np.log(2 * np.pi) * 6
    np.testing.assert_allclose(fitted.losses, nothing_left, rtol=1e-5)
    np.testing.assert_allclose(fitted.validation_losses, nothing_left, rtol=1e-5)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("gdreg", "iwae", "jvi", "stl")]
NAMES = ["dreg", "elbo", "forward-kl", "rws", *SLOW]


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_objective_validates(backend, name):
    options = {"objective": name, "validation": backend.array(HELD_OUT), "num_steps": 3}
    assert np.isfinite(fit(backend, **options).validation_losses).all()


# --- what the program itself refuses ---------------------------------------------------------


def checked_vae(backend, seen):
    """A VAE that takes black and white pixels only."""
    vae = small_vae(backend)

    def check_rows(x, *args):
        x = np.asarray(x)
        seen.append(x)
        if not np.isin(x[~np.isnan(x)], (0, 1)).all():
            raise ValueError("x must be black or white")

    vae.check_rows = check_rows
    return vae


def test_the_program_is_asked_before_training(backend):
    seen = []
    program = checked_vae(backend, seen)
    fit(backend, np.where(MASK, X, np.nan), program, validation=backend.array(HELD_OUT))
    np.testing.assert_array_equal(seen[0], np.where(MASK, X, np.nan))
    np.testing.assert_array_equal(seen[1], HELD_OUT)
    with pytest.raises(ValueError, match="x must be black or white"):
        fit(backend, GREY, program)
    with pytest.raises(ValueError, match="x must be black or white"):
        fit(backend, X, program, validation=backend.array(GREY))
    fit(backend, GREY, program, transform=binarisation(backend))


def test_pyro_trains_without_denormals_and_leaves_the_rest_as_it_was():
    """They make matrix products of importance-weighted gradients several times slower."""
    torch = pytest.importorskip("torch")
    from ppl_vae.pyro import VAE, fit

    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    torch.set_flush_denormal(False)
    flushed = []

    def transform(x):
        flushed.append(float(torch.tensor(1e-40) * 1) == 0)
        return x

    x = (torch.rand(20, 6) < 0.5).float()
    fit(VAE((6,), 2), x, num_steps=6, batch_size=10, transform=transform, progress_bar=False)
    assert flushed[-6:] == [True] * 6
    assert float(torch.tensor(1e-40) * 1) > 0
