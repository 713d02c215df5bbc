"""The signal-to-noise ratio of gradients against the number of particles."""

import numpy as np
import pytest
from gaussian_chains import ONE, Chain
from kernel_parts import real

RNG = np.random.default_rng(0)
X = (1.5 * RNG.normal(size=(6, 3))).astype("float32")
MASK = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]], bool)
GUIDE = ["gain", "scale", "shift"]


def quality(backend, program, x=X, *, seed=0, **options):
    if backend.name == "numpyro":
        from jax import random

        return backend.api.gradient_quality(random.key(seed), program, x, **options)
    import pyro

    pyro.set_rng_seed(seed)
    pyro.clear_param_store()
    return backend.api.gradient_quality(program, real(backend, x), **options)


def near_the_posterior():
    """The guide as it is after training: a little to the side and too wide."""
    exact = ONE.with_exact_guide().parameters
    return Chain({**exact, "scale": 1.1 * exact["scale"], "shift": exact["shift"] + 0.1})


def test_more_particles_drown_the_guide_but_for_dreg(backend):
    """The ratio falls as 1 / sqrt(K) for IWAE, and grows for DReG; Rainforth, Tucker.

    Of 400 draws, a ratio is known to 0.05; the bounds are four of that away from the truth.
    """
    ds = quality(
        backend, near_the_posterior().pair(backend), num_particles=(1, 8, 64), num_draws=400
    )
    snr = {name: ds.snr.sel(objective=name, block=GUIDE).values for name in ("iwae", "dreg")}
    assert (snr["iwae"][2] < 0.5 * snr["iwae"][0]).all(), snr
    assert (snr["dreg"][2] > 1.5 * snr["dreg"][0]).all(), snr
    model = ds.snr.sel(objective="iwae", block="weight").values
    assert (np.diff(model) > 0).all(), model


@pytest.mark.parametrize("k", [1, 2])
def test_the_signal_is_the_exact_gradient(backend, k):
    """By quadrature, rows incomplete, a mean over rows; false alarms below 1e-5.

    The mean's distance from the truth is sqrt(variance / draws) on average, and so the norm's.
    """
    exact = ONE.gradient(X.astype(float), MASK, num_particles=k) / len(X)
    exact = ONE.at(exact).parameters
    ds = quality(
        backend, ONE.pair(backend), objectives=("iwae", "dreg"), num_particles=(k,),
        num_draws=500, mask=backend.array(MASK),
    )  # fmt: skip
    for block, gradient in exact.items():
        at = ds.sel(block=block, num_particles=k)
        distance = np.abs(at.norm - np.linalg.norm(gradient)).values
        assert (distance < 5 * np.sqrt(at.variance.values / 500) + 1e-4).all(), block


def test_the_dataset(backend):
    """Two objects and a name, in their order; blocks of nets and not of layers."""
    api = backend.api
    vae = api.VAE((3,), 2, hidden=(4,), likelihood="normal")
    objectives = ("elbo", api.IWAE(kl_weight=0.5), api.RWS())
    ds = quality(backend, vae, objectives=objectives, num_particles=(2, 1), num_draws=3)
    assert ds.snr.dims == ("objective", "num_particles", "block")
    assert ds.objective.values.tolist() == ["elbo", "IWAE", "RWS"]
    assert ds.num_particles.values.tolist() == [2, 1]
    assert ds.block.values.tolist() == ["decoder", "encoder", "likelihood"]
    assert np.isfinite(ds.norm).all()
    assert (ds.variance.sel(num_particles=2) > 0).all()


def test_trained_programs_are_measured_as_they_are(backend):
    """The weights of a `Fitted` count, and stay as they are."""
    rng = np.random.default_rng(0)
    x = (rng.random((40, 6)) < 0.3).astype("float32")
    fitted = backend.fit(
        backend.api.VAE((6,), 2, hidden=(4,)), x, num_steps=400, learning_rate=0.01
    )
    before = fitted.program.to_weights(*([fitted.params] if backend.name == "numpyro" else []))
    trained = quality(backend, fitted, x, objectives=("elbo",), num_particles=(1,), num_draws=50)
    first = quality(
        backend, backend.api.VAE((6,), 2, hidden=(4,)), x,
        objectives=("elbo",), num_particles=(1,), num_draws=50,
    )  # fmt: skip
    after = fitted.program.to_weights(*([fitted.params] if backend.name == "numpyro" else []))
    norms = [ds.norm.sel(block="decoder").item() for ds in (trained, first)]
    assert norms[0] < 0.5 * norms[1]
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_draws": 1}, "num_draws must be an integer >= 2, got 1"),
        ({"num_particles": (0,)}, "num_particles must be an integer >= 1 or several, got 0"),
        ({"num_particles": "3"}, "num_particles must be an integer >= 1 or several, got '3'"),
        ({"objectives": ("jvi",)}, "num_particles must be an integer >= 2, got 1"),
        ({"objectives": "iwae"}, "objectives must be a sequence"),
        ({"objectives": ()}, "objectives must be a sequence"),
        ({"objectives": ("iwae", "iwae")}, "objectives must have different names"),
        ({"objectives": ("forward-kl",)}, "objective 'forward-kl' has no particles"),
        ({"objectives": ("best",)}, "objective must be one of"),
    ],
)
def test_bad_input(backend, options, message):
    with pytest.raises(ValueError, match=message):
        quality(backend, ONE.pair(backend), **options)
