"""What holds for every kernel, whatever it draws."""

import warnings
from contextlib import nullcontext

import numpy as np
import pytest
from kernel_parts import double_precision, real
from oracles import Discrete, LinearGaussian, Spike, largest_score, z_scores

KERNELS = ["PseudoGibbsKernel", "MWGKernel", "ACMWGKernel", "LAIRKernel"]
each_kernel = pytest.mark.parametrize("name", KERNELS)
TRUTH = LinearGaussian.example()
MASK = np.random.default_rng(0).random((6, 5)) < 0.5
X = TRUTH.draw(np.random.default_rng(1), 6)
DATA = np.where(MASK, X, np.nan).astype(np.float32)


def gaussian(backend, name, **options):
    return getattr(backend.api, name)(*backend.programs.linear_gaussian(TRUTH), **options)


# --- observed entries and weights ------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "float32") for name in KERNELS),
        ("ACMWGKernel", "float64"),
        ("LAIRKernel", "float64"),
    ],
)
def test_observed_entries_are_bit_identical(backend, name, dtype):
    hard = np.where(MASK, X, np.nan).astype(dtype)
    hard[MASK] = np.resize(np.array([-0.0, 1e-30, np.pi, -7e5], dtype), MASK.sum())
    with double_precision(backend) if dtype == "float64" else nullcontext():
        kernel, x = gaussian(backend, name), backend.array(hard)
        draws = backend.draws(backend.run(kernel, x, num_samples=3, num_chains=2))
    assert draws["x"].dtype == dtype
    observed = np.ascontiguousarray(draws["x"][..., MASK])
    same = np.ascontiguousarray(np.broadcast_to(hard[MASK], observed.shape))
    np.testing.assert_array_equal(observed.view("u1"), same.view("u1"))
    assert np.isfinite(draws["x"]).all()
    assert (np.ptp(draws["x"][..., ~MASK], axis=(0, 1)) > 0).all()


def test_integer_data_stay_integers(backend):
    truth = Discrete.example()
    mask = np.arange(5) < np.arange(4)[:, None]
    x = np.ones((4, 5), np.int32)
    kernel = backend.api.MWGKernel(*integer_discrete(backend, truth))
    run = backend.run(kernel, backend.array(x), mask=backend.array(mask), num_samples=5)
    draws = backend.draws(run)["x"]
    assert draws.dtype == np.int32
    assert set(np.unique(draws)) == {0, 1}
    assert (draws[..., mask] == 1).all()


def integer_discrete(backend, truth):
    model, guide = backend.programs.discrete(truth)
    return model, lambda x: guide(real(backend, x))


@each_kernel
def test_sampling_leaves_the_weights_as_they_were(backend, name, tmp_path):
    data = (DATA > 0).astype(np.float32)
    fitted = backend.fit(backend.api.VAE((5,), 2, (8,)), data, num_steps=3, batch_size=6)
    fitted.save(tmp_path / "before")
    x = backend.array(np.where(MASK, data, np.nan).astype(np.float32))
    kernel = getattr(backend.api, name)(fitted.model, fitted.guide)
    backend.run(kernel, x, num_samples=3, num_chains=2)
    fitted.save(tmp_path / "after")
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()


# --- seeds, interruptions, hand-over ---------------------------------------------------------


def go_on(backend, mcmc):
    """Run `mcmc` again, from where it stopped."""
    mcmc.post_warmup_state = mcmc.last_state
    key = [mcmc.last_state.rng_key] if backend.name == "numpyro" else []
    mcmc.run(*key, backend.array(DATA))


@pytest.mark.parametrize("name", ["ACMWGKernel", "HistoricalLAIRKernel"])
def test_a_state_can_be_gone_on_from_twice(backend, name):
    """The second run must not find what the first one put into the history."""
    mcmc = backend.run(gaussian(backend, name), backend.array(DATA), num_samples=20, num_chains=2)
    state, runs = mcmc.last_state, []
    for _ in range(2):
        mcmc.post_warmup_state = state
        mcmc.run(*([state.rng_key] if backend.name == "numpyro" else []), backend.array(DATA))
        runs.append(backend.draws(mcmc)["x"])
    np.testing.assert_array_equal(*runs)


@each_kernel
def test_seed_decides_and_interruption_does_not(backend, name):
    def run(num_samples, seed=3):
        return backend.run(
            gaussian(backend, name), backend.array(DATA),
            seed=seed, num_warmup=4, num_samples=num_samples, num_chains=2,
        )  # fmt: skip

    whole, mcmc = backend.draws(run(16)), run(8)
    begun = backend.draws(mcmc)
    go_on(backend, mcmc)
    resumed = backend.draws(mcmc)
    for site, values in whole.items():
        np.testing.assert_array_equal(values[:, :8], begun[site])
        np.testing.assert_array_equal(values[:, 8:], resumed[site])
    assert (whole["x"][0] != whole["x"][1]).any()
    if name == "MWGKernel":
        assert (backend.draws(run(8, seed=4))["x"] != begun["x"]).any()


@pytest.fixture(scope="module")
def finished(backend):
    """The last values of a run of each kernel."""
    return {
        name: backend.run(
            gaussian(backend, name), backend.array(DATA), num_samples=2, num_chains=2
        ).last_state.z
        for name in KERNELS
    }


@each_kernel
@pytest.mark.parametrize("giver", KERNELS)
def test_any_kernel_starts_from_anothers_last_state(backend, finished, name, giver):
    state = start(backend, gaussian(backend, name), finished[giver])
    x, z, given_x, given_z = (
        np.asarray(v) for v in (state.z["x"], state.z["z"], *map(finished[giver].get, "xz"))
    )
    if giver == "LAIRKernel" and name != "LAIRKernel":  # the first particle begins the chain
        given_x, given_z = given_x[:, 0], given_z[:, 0]
    if name == "LAIRKernel" and giver != "LAIRKernel":  # every particle begins with the chain
        x, z, given_x, given_z = x[:, 3], z[:, 3], given_x, given_z
    if name == "ACMWGKernel":  # what was handed over is the history; z is drawn from it
        x, z = np.asarray(state.chain.history.x)[:, 0], given_z
    np.testing.assert_array_equal(x, given_x)
    np.testing.assert_array_equal(z, given_z)


def start(backend, kernel, init_params):
    if backend.name == "pyro":
        return kernel.init(2, init_params, (backend.array(DATA),), {})
    from jax import random

    return kernel.init(random.split(random.key(0), 2), 0, init_params, (DATA,), {})


@each_kernel
def test_a_run_takes_the_hand_over(backend, finished, name):
    draws = backend.draws(
        backend.run(
            gaussian(backend, name), backend.array(DATA),
            num_samples=2, num_chains=2, init_params=finished["LAIRKernel"],
        )
    )  # fmt: skip
    assert np.isfinite(draws["x"]).all()
    assert (draws["x"][..., MASK] == DATA[MASK]).all()


# --- hard densities --------------------------------------------------------------------------

SPIKE = np.tile(np.array([[0.8, np.nan]], np.float32), (200, 1))


def spike_run(backend, name, **options):
    kernel = getattr(backend.api, name)(*backend.programs.spike(Spike()), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's overflow remarks on purpose-made infinities
        return backend.run(kernel, backend.array(SPIKE), num_warmup=0, num_samples=60, num_chains=2)


@each_kernel
def test_infinite_densities_leave_the_chain_finite(backend, name):
    """x_1 has density zero at every other z, and at the zero that stands for a missing value."""
    mcmc = spike_run(backend, name)
    draws, info = backend.draws(mcmc), backend.info(mcmc)
    assert np.isfinite(draws["x"]).all()
    assert np.isfinite(draws["z"]).all()
    assert np.isfinite(info["lp"]).all()
    if name == "MWGKernel":  # z and x_1 of the start do not fit: 0 / 0, counted and refused
        assert info["diverging"][:, 0].all()
        assert not info["diverging"][:, 1:].any()
        assert (info["acceptance_rate"] == 0).all()


@pytest.mark.parametrize("name", ["ACMWGKernel", "LAIRKernel"])
def test_zero_density_of_missing_values_does_not_matter(backend, name):
    """z | x_0 ~ N(0.8 x_0, 0.2); false alarm 1e-5."""
    options = {"num_particles": 24} if name == "LAIRKernel" else {}
    z = backend.draws(spike_run(backend, name, **options))["z"][:, 20:]
    if z.ndim == 4:
        z = z.reshape(2, -1, len(SPIKE))
    z = z.swapaxes(1, 2).reshape(2 * len(SPIKE), -1)[..., None].astype(float) - 0.8 * 0.8
    scores = np.append(z_scores(z, 0.0, num_batches=1), z_scores(z**2, 0.2, num_batches=1))
    slack = 0.02 / np.sqrt(0.2 / z.size) if name == "LAIRKernel" else 0  # its bias of order 1 / K
    assert np.abs(scores).max() < largest_score(2) + slack


@each_kernel
def test_stored_latents_belong_to_the_stored_imputations(backend, name):
    """To rounding, for XLA may compute z twice; another draw is as close in one of 10,000 cases."""
    draws = backend.draws(spike_run(backend, name))
    np.testing.assert_allclose(draws["x"][..., 1], Spike.factor * draws["z"], rtol=1e-4)


def test_history_never_holds_an_imputation_of_the_current_latents(backend):
    """An imputation tells its latents here. The tags of the history are those of the past."""
    for history_size in (1, 5):
        mcmc = spike_run(backend, "ACMWGKernel", history_size=history_size)
        past = np.asarray(mcmc.last_state.chain.history.x)[..., 1] / Spike.factor
        current = np.asarray(mcmc.last_state.z["z"])[:, None]
        assert past.shape == (2, history_size, len(SPIKE))
        assert not (past == current).any()
        visited = backend.draws(mcmc)["z"]
        assert np.isin(past, visited).mean() > 0.5, "the history does not follow the chain"
