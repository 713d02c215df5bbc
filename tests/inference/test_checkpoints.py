"""Training that stops and goes on; same text for both twins."""

import importlib

import numpy as np
import pytest
from host_words import words
from small_training import MASK, X, losses, small_vae, train, weights

from ppl_vae.presets import PRESETS
from ppl_vae.schedules import Cosine


@pytest.mark.parametrize("stopped_after", [6, 7])
def test_interrupted_and_resumed_is_uninterrupted(backend, tmp_path, stopped_after):
    """Stopped after two epochs of three steps (and one step), then gone on to five and a bit."""
    options = {"batch_size": 8, "mask": MASK}
    whole = backend.fit(small_vae(backend), X, num_steps=17, **options)
    path = tmp_path / "run.npz"
    backend.fit(small_vae(backend), X, num_steps=stopped_after, checkpoint=path, **options)
    resumed = backend.fit(small_vae(backend), X, num_steps=17, checkpoint=path, seed=0, **options)
    np.testing.assert_array_equal(whole.losses, resumed.losses)
    one, other = weights(backend, whole), weights(backend, resumed)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_the_seed_of_a_checkpoint(backend, tmp_path):
    """Pyro goes on with the draws of the checkpoint; NumPyro's key is an option like others."""
    options, path = {"batch_size": 8, "num_steps": 12}, tmp_path / "run.npz"
    whole = backend.fit(small_vae(backend), X, **options)
    options["checkpoint"] = path
    backend.fit(small_vae(backend), X, **{**options, "num_steps": 7})
    if backend.name == "numpyro":
        with pytest.raises(ValueError, match=r"another run: seed was .*0.* and is .*9"):
            backend.fit(small_vae(backend), X, seed=9, **options)
        return
    resumed = backend.fit(small_vae(backend), X, seed=9, **options)
    np.testing.assert_array_equal(whole.losses, resumed.losses)


def test_a_crash_leaves_the_last_epoch(backend, tmp_path, monkeypatch):
    """The third epoch's checkpoint fails: the second's is whole, and is gone on from."""
    svi = importlib.import_module(f"ppl_vae.inference.{backend.name}.svi")
    path, saved = tmp_path / "run.npz", []
    write = svi.write_checkpoint

    def write_twice(*args):
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(write(*args))

    monkeypatch.setattr(svi, "write_checkpoint", write_twice)
    with pytest.raises(KeyboardInterrupt):
        losses(backend, checkpoint=path)
    monkeypatch.setattr(svi, "write_checkpoint", write)
    np.testing.assert_array_equal(losses(backend, checkpoint=path), losses(backend))
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]


def test_a_finished_run_is_not_trained_further(backend, tmp_path):
    path = tmp_path / "run.npz"
    first = losses(backend, checkpoint=path)
    np.testing.assert_array_equal(first, losses(backend, checkpoint=path))


def test_a_checkpoint_of_another_architecture(backend, tmp_path):
    path = tmp_path / "run.npz"
    losses(backend, checkpoint=path)
    other = backend.api.VAE((6,), 3, hidden=(9,))
    with pytest.raises(
        ValueError,
        match=r"run\.npz belongs to another run: program was .*dim: 2.* is .*dim: 3.*Remove it",
    ):
        backend.fit(other, X, num_steps=12, batch_size=8, checkpoint=path)


def test_a_checkpoint_that_has_gone_too_far(backend, tmp_path):
    """The weights of an earlier step are not kept."""
    path = tmp_path / "run.npz"
    first = losses(backend, checkpoint=path)
    with pytest.raises(ValueError, match=r"of step 12, and num_steps is 7.*num_steps=12 or more"):
        losses(backend, checkpoint=path, num_steps=7)
    np.testing.assert_array_equal(first, losses(backend, checkpoint=path))


def test_a_checkpoint_of_other_labels(backend, tmp_path):
    """Further arguments are data."""
    path, labels = tmp_path / "run.npz", np.arange(24) % 3

    def run(labels):
        if backend.name == "pyro":
            importlib.import_module("pyro").set_rng_seed(1)
        program = backend.api.ConditionalVAE((6,), (2,), 3, ((8,),))
        options = {"num_steps": 6, "batch_size": 8, "checkpoint": path}
        return backend.fit(program, X, labels, **options).losses

    first = run(labels)
    with pytest.raises(ValueError, match="belongs to another run: data was"):
        run(labels[::-1].copy())
    np.testing.assert_array_equal(first, run(labels))


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_damaged_checkpoint(backend, tmp_path, damage):
    path = tmp_path / "run.npz"
    losses(backend, checkpoint=path)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "text": b"hello", "empty": b""}[damage])
    with pytest.raises(ValueError, match=r"run\.npz is no checkpoint that can be read.*remove it"):
        losses(backend, checkpoint=path)


def test_a_folder_is_no_checkpoint(backend, tmp_path):
    """It must not be told to remove the folder."""
    with pytest.raises(ValueError, match=f"{tmp_path} is a folder: add the file's name"):
        losses(backend, checkpoint=tmp_path)


# --- a checkpoint of another run -------------------------------------------------------------


def test_a_checkpoint_of_another_preset(backend, tmp_path):
    """Same shapes everywhere: only the numbers inside the optimiser tell them apart."""

    def run(name, rate=1e-3):
        optimizer = backend.api.preset_optimizer(PRESETS[name], rate)
        return train(backend, optimizer=optimizer, checkpoint=tmp_path / "run.npz")

    run("paper")
    with pytest.raises(ValueError, match=r"another run: optimizer was .*gradient='sum'.* and is "):
        run("nbip")
    with pytest.raises(ValueError, match=r"another run: optimizer was .*0\.001.* and is .*0\.002"):
        run("paper", rate=2e-3)
    run("paper")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "iwae"}, "objective was 'elbo' and is 'iwae'"),
        ({"batch_size": 6}, "batch_size was 8 and is 6"),
        ({"shuffle": False}, "shuffle was True and is False"),
        ({"clip_norm": 1.0}, r"clip_norm was None and is 1\.0"),
        ({"learning_rate": 1e-2}, r"learning_rate was None and is 0\.01"),
        ({"learning_rate": Cosine(1e-2, 0.0, 9)}, r"learning_rate was None and is Cosine\("),
        ({"transform": "own"}, r"transform was None and is .*plus_noise"),
        ({"mask": X > 2}, "data was"),
    ],
    ids=str,
)
def test_a_checkpoint_of_other_settings(backend, tmp_path, change, message):
    def plus_noise(*key_and_x):
        return key_and_x[-1]

    if "transform" in change:
        change = {"transform": plus_noise}
    train(backend, checkpoint=tmp_path / "run.npz")
    with pytest.raises(ValueError, match=rf"belongs to another run: {message}.*Remove it"):
        train(backend, checkpoint=tmp_path / "run.npz", **change)


def test_settings_inside_an_objective(backend, tmp_path):
    path = tmp_path / "run.npz"
    train(backend, objective=backend.api.IWAE(num_particles=3), checkpoint=path)
    with pytest.raises(ValueError, match=r"objective was .*num_particles=3.*num_particles=4"):
        train(backend, objective=backend.api.IWAE(num_particles=4), checkpoint=path)


def test_a_complete_training_is_read_without_a_step(backend, tmp_path, recwarn, capfd):
    options = {"batch_size": 7, "num_steps": 10, "checkpoint": tmp_path / "run.npz"}
    first = backend.fit(small_vae(backend), X, **options)
    recwarn.clear()
    capfd.readouterr()
    again = backend.api.fit(*_key(backend), small_vae(backend), X, **options)
    np.testing.assert_array_equal(first.losses, again.losses)
    shown = capfd.readouterr().err
    assert "10/10" in shown
    assert "nan" not in shown
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def _key(backend):
    """NumPyro's first argument, that of `backend.fit`."""
    if backend.name == "pyro":
        return ()
    from jax import random

    return (random.key(0),)


def noisy(backend, noise):
    ppl = words(backend)

    def model(x):
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0.0 * x[:, 0], 1.0))
            ppl.sample("x", ppl.dist.Normal(z[:, None] + 0.0 * x, noise).to_event(1), obs=x)

    def guide(x):
        loc = ppl.param("loc", 0.0 * x[0, 0])
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(loc + 0.0 * x[:, 0], 1.0))

    return model, guide


def test_a_checkpoint_of_a_program_with_other_numbers(backend, tmp_path):
    """Programs that are written alike, with another number in their closures."""
    x, options = np.ones((8, 2), "float32"), {"checkpoint": tmp_path / "run.npz"}
    backend.fit(noisy(backend, 0.1), x, num_steps=2, **options)
    with pytest.raises(ValueError, match=r"another run: program was .*noise=0\.1.*noise=10\.0"):
        backend.fit(noisy(backend, 10.0), x, num_steps=4, **options)
    backend.fit(noisy(backend, 0.1), x, num_steps=4, **options)
