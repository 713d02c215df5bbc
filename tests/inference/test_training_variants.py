"""Training beyond the ELBO: names, the hosts' SVI, schedules, interrupted runs."""

import importlib

import numpy as np
import pytest
from kernel_parts import module
from small_training import MASK, SMALL, X, same, small_vae, weights

from ppl_vae.schedules import Constant, Cosine, Cyclic, Linear, Schedule, at_step

NAMES = [
    "analytic-elbo", "ciwae", "dreg", "elbo", "forward-kl", "gdreg", "iwae", "iwae-stl", "jvi",
    "normalised-iwae", "renyi", "rws", "rws-dreg", "stl",
]  # fmt: skip
UNWEIGHTED = ["ForwardKL", "RWS", "RWSDReG"]
WEIGHTED = [
    "ELBO", "STL", "AnalyticELBO", "IWAE", "NormalisedIWAE", "IWAESTL", "DReG", "GDReG", "CIWAE",
    "Renyi", "JVI",
]  # fmt: skip


def seed_torch(backend):
    if backend.name == "pyro":
        importlib.import_module("pyro").set_rng_seed(1)


def often(names):
    """Each objective is trained; `make test` takes one of each kind, `make test-slow` the rest."""
    first = {"analytic-elbo", "stl", "forward-kl", "dreg", "rws", "AnalyticELBO", "STL", "IWAE",
             "ForwardKL", "DReG", "RWS"}  # fmt: skip
    return [name if name in first else pytest.param(name, marks=pytest.mark.slow) for name in names]


# --- by name, and in the hosts' SVI ---------------------------------------------------------


@pytest.mark.parametrize("name", often(NAMES))
def test_every_name_trains_on_incomplete_rows(backend, name):
    options = {**SMALL, "num_steps": 90, "learning_rate": 0.02}
    losses = backend.fit(small_vae(backend), X, objective=name, **options).losses
    assert np.isfinite(losses).all()
    assert losses[-15:].mean() < losses[:15].mean()


def test_the_names(backend):
    assert sorted(module(backend, "named_objectives").OBJECTIVES) == NAMES
    with pytest.raises(ValueError, match=r"'analytic-elbo'.*'stl'\], got 'iwea'"):
        backend.fit(small_vae(backend), X, objective="iwea", **SMALL)


@pytest.mark.parametrize("name", often(UNWEIGHTED + WEIGHTED))
def test_the_hosts_svi_takes_every_objective(backend, name):
    schedule = {} if name in UNWEIGHTED else {"kl_weight": Linear(0.0, 1.0, 10)}
    objective = getattr(backend.api, name)(**schedule)
    losses = hosts_svi(backend, small_vae(backend), objective, num_steps=30)
    assert np.isfinite(losses).all()
    assert not np.array_equal(losses[:-1], losses[1:])


def hosts_svi(backend, vae, objective, num_steps):
    """Losses of the host's own SVI, told the step and the mask."""
    x, mask = backend.array(X), backend.array(MASK)
    if backend.name == "pyro":
        import pyro

        pyro.clear_param_store()
        optimiser = pyro.optim.Adam({"lr": 1e-2})
        svi = pyro.infer.SVI(vae.model, vae.guide, optimiser, objective)
        return np.array([svi.step(x, mask=mask, step=i) for i in range(num_steps)])
    import jax
    import optax
    from numpyro.infer import SVI

    svi = SVI(vae.model, vae.guide, optax.adam(1e-2), objective)
    update = jax.jit(lambda state, i: svi.update(state, x, mask=mask, step=i))
    state, losses = svi.init(jax.random.key(0), x), []
    for i in range(num_steps):
        state, loss = update(state, i)
        losses.append(float(loss))
    return np.array(losses)


# --- schedules ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "at"),
    [
        (Constant(0.3), {0: 0.3, 10**6: 0.3}),
        (Linear(0.2, 1.0, 4), {0: 0.2, 1: 0.4, 3: 0.8, 4: 1.0, 50: 1.0}),
        (Linear(1.0, 0.0, 2, begin=10), {0: 1.0, 10: 1.0, 11: 0.5, 12: 0.0, 13: 0.0}),
        (Cyclic(0.0, 2.0, period=4), {0: 0.0, 1: 1.0, 2: 2.0, 3: 2.0, 4: 0.0, 9: 1.0}),
        (Cyclic(0.0, 1.0, period=4, ramp=1.0), {0: 0.0, 3: 0.75, 4: 0.0}),
        (Cosine(2.0, 1.0, 4), {0: 2.0, 1: 1.8535534, 2: 1.5, 4: 1.0, 9: 1.0}),
    ],
    ids=str,
)
def test_values_of_schedules(backend, schedule, at):
    for step, value in at.items():
        assert schedule(step) == pytest.approx(value)
        assert float(schedule(backend.array(step))) == pytest.approx(value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(0.0, 1.0, 0), "num_steps must be at least 1, got 0"),
        (lambda: Cosine(0.0, 1.0, 0), "num_steps must be at least 1, got 0"),
        (lambda: Cyclic(0.0, 1.0, 0), "period must be at least 1, got 0"),
        (lambda: Cyclic(0.0, 1.0, 5, ramp=0.0), r"ramp must be above 0 and at most 1, got 0\.0"),
        (lambda: Cyclic(0.0, 1.0, 5, ramp=1.5), r"ramp must be above 0 and at most 1, got 1\.5"),
    ],
)
def test_bad_schedules(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_settings_at_a_step_are_a_copy(backend):
    objective = backend.api.IWAE(kl_weight=Linear(0.0, 1.0, 4), num_particles=3)
    at = at_step(objective, 1)
    assert (at.kl_weight, at.num_particles) == (0.25, 3)
    assert isinstance(objective.kl_weight, Schedule)
    assert at_step(at, None) is at


class Alternating(Schedule):
    """A user's own: 0 at even steps, 1 at odd ones."""

    def __call__(self, step):
        return step % 2 * 1.0


@pytest.mark.parametrize("schedule", [Linear(0.0, 1.0, 8), Alternating()], ids=["linear", "own"])
def test_fit_counts_the_steps(backend, schedule):
    """With weights that stay where they are a loss is linear in the weight of its divergence."""

    def losses(kl_weight):
        options = {**SMALL, "learning_rate": 1e-30}
        objective = backend.api.ELBO(kl_weight=kl_weight)
        return backend.fit(small_vae(backend), X, objective=objective, **options).losses

    without, whole = losses(0.0), losses(1.0)
    share = np.array([schedule(step) for step in range(12)])
    np.testing.assert_allclose(losses(schedule), without + share * (whole - without), rtol=1e-4)


@pytest.mark.parametrize("name", ["IWAE", "ForwardKL"])
def test_an_interrupted_run_is_resumed_bit_by_bit(backend, tmp_path, name):
    """Stopped within the climb of a schedule, in the third epoch."""
    schedule = {"num_particles": 3, "kl_weight": Cyclic(0.1, 1.0, period=16)}
    objective = getattr(backend.api, name)(**(schedule if name == "IWAE" else {}))
    options = {**SMALL, "objective": objective, "num_steps": 12}
    whole = backend.fit(small_vae(backend), X, **options)
    options["checkpoint"] = tmp_path / "run.npz"
    backend.fit(small_vae(backend), X, **{**options, "num_steps": 7})
    resumed = backend.fit(small_vae(backend), X, **options)
    np.testing.assert_array_equal(whole.losses, resumed.losses)
    assert same(weights(backend, whole), weights(backend, resumed))
