"""What `ppl_vae.pyro.MCMC` refuses: numbers of draws and chains, and states of other runs."""

import numpy as np
import pytest

pyro = pytest.importorskip("pyro")
torch = pytest.importorskip("torch")

import pyro.distributions as dist  # noqa: E402
from pyro.infer import NUTS  # noqa: E402

from ppl_vae.pyro import (  # noqa: E402
    MCMC,
    ACMWGKernel,
    HMCRefreshKernel,
    LAIRKernel,
    MWGKernel,
    StreamingLAIRKernel,
)


def model(x):
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(0 * x[:, 0], 1.0))
        pyro.sample("x", dist.Normal(z[:, None] + 0 * x, 0.5).to_event(1), obs=x)


def guide(x):
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(x.mean(1), 1.0))


X = torch.tensor([[1.0, np.nan], [0.1, np.nan], [np.nan, np.nan]])


# --- numbers of draws and chains ------------------------------------------------------------

NUMBERS = [
    *[("num_samples", bad, 1) for bad in (0, -1, 2.0, True, None, "3")],
    *[("num_chains", bad, 1) for bad in (0, -2, 1.0, False)],
    *[("num_warmup", bad, 0) for bad in (-3, 1.5, True)],
    *[("warmup_steps", bad, 0) for bad in (-3, 1.5)],
]


@pytest.mark.parametrize(("name", "bad", "least"), NUMBERS)
@pytest.mark.parametrize("chain_method", ["vectorized", "sequential", "parallel"])
def test_numbers_out_of_range_are_refused(chain_method, name, bad, least):
    options = {"num_samples": 2, "chain_method": chain_method, name: bad}
    with pytest.raises(ValueError, match=rf"^{name} must be an integer >= {least}, got {bad!r}\.$"):
        MCMC(MWGKernel(model, guide), **options)


def test_a_hosts_own_kernel_is_counted_too():
    with pytest.raises(ValueError, match="num_warmup must be an integer >= 0, got -3"):
        MCMC(NUTS(model), 2, num_warmup=-3)


def test_the_least_numbers_and_those_of_numpy_are_taken():
    mcmc = MCMC(
        MWGKernel(model, guide), np.int64(1), num_warmup=0, num_chains=np.int32(1),
        disable_progbar=True,
    )  # fmt: skip
    mcmc.run(X)
    assert mcmc.get_samples()["z"].shape == (1, 3)


# --- going on from a state ------------------------------------------------------------------


def run(kernel, x=X, state=None, num_chains=2, init_params=None, **options):
    pyro.set_rng_seed(0)
    mcmc = MCMC(
        kernel(model, guide, **options), 4, num_warmup=2, num_chains=num_chains,
        disable_progbar=True,
    )  # fmt: skip
    mcmc.post_warmup_state = state
    mcmc.run(x, init_params=init_params)
    return mcmc


REMEDY = r".*init_params=last_state\.hand_over\(\)"


def test_a_state_of_another_kernel_is_refused():
    before = run(MWGKernel).last_state
    with pytest.raises(ValueError, match="MWGKernel.*not ACMWGKernel" + REMEDY):
        run(ACMWGKernel, state=before)


@pytest.mark.parametrize("kernel", [MWGKernel, LAIRKernel])
@pytest.mark.parametrize("num_chains", [1, 3])
def test_a_state_of_other_chains_is_refused(kernel, num_chains):
    before = run(kernel).last_state
    with pytest.raises(ValueError, match=f"2 chains, not {num_chains}" + REMEDY):
        run(kernel, state=before, num_chains=num_chains)


OTHER_DATA = {
    "another value": X + 1,
    "fewer rows": X[:2],
    "more columns": torch.cat([X, X], 1),
    "more observed": torch.where(torch.isnan(X), 0.3, X)[:, :2],
    "another entry observed": X.flip(1),
}


@pytest.mark.filterwarnings("ignore:All 3 rows are complete")
@pytest.mark.parametrize("x", OTHER_DATA.values(), ids=OTHER_DATA)
@pytest.mark.parametrize("kernel", [ACMWGKernel, LAIRKernel, StreamingLAIRKernel])
def test_a_state_of_other_data_is_refused(kernel, x):
    before = run(kernel).last_state
    with pytest.raises(ValueError, match="other data" + REMEDY):
        run(kernel, x, before)


@pytest.mark.filterwarnings("ignore:All 3 rows are complete")
def test_a_state_with_nothing_missing_goes_on_with_nothing_missing_only():
    complete = torch.where(torch.isnan(X), 0.3, X)
    before = run(MWGKernel, complete).last_state
    assert torch.equal(run(MWGKernel, complete, before).get_samples()["x"][0], complete)
    with pytest.raises(ValueError, match="other data" + REMEDY):
        run(MWGKernel, torch.where(complete == 1.0, np.nan, complete), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernel", [MWGKernel, ACMWGKernel, LAIRKernel, StreamingLAIRKernel])
def test_a_state_of_the_same_run_goes_on(kernel, dtype):
    before = run(kernel, X.to(dtype))
    after = run(kernel, X.to(dtype), before.last_state)
    assert after.last_state.num_steps == 6 + 4


def test_the_remedy_works():
    warm = run(MWGKernel).last_state.hand_over()
    assert run(ACMWGKernel, init_params=warm).last_state.start == "MWGKernel, 6 iterations"


# --- interruptions --------------------------------------------------------------------------


@pytest.mark.parametrize("hmc", [False, True])
@pytest.mark.parametrize("wrapped", [MWGKernel, ACMWGKernel])
def test_a_run_stopped_anywhere_goes_on_as_if_it_had_not(wrapped, hmc):
    """Stopped at every call of the model: in the guide's move, in HMC's, in the draw of x."""
    calls, stop_at = 0, None

    def counting_model(x):
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise KeyboardInterrupt
        model(x)

    def draws_of(num_samples, state=None, seed=0):
        settings = {"history_size": 2} if wrapped is ACMWGKernel else {}
        kernel = wrapped(counting_model, guide, **settings)
        kernel = HMCRefreshKernel(kernel, num_steps=2) if hmc else kernel
        mcmc = MCMC(kernel, num_samples, num_warmup=0, num_chains=2, disable_progbar=True)
        mcmc.post_warmup_state = state
        pyro.set_rng_seed(seed)
        try:
            mcmc.run(X)
        except KeyboardInterrupt:
            assert stop_at is not None
        samples = {} if mcmc._samples is None else mcmc.get_samples(group_by_chain=True)
        return samples.get("z", torch.zeros(2, 0, 3)), mcmc.last_state

    whole, _ = draws_of(8)
    num_calls, num_stopped = calls, 0
    for call in range(1, num_calls + 1):
        calls, stop_at = 0, call
        before, state = draws_of(8)
        stop_at = None
        if before.shape[1] in (0, 8):
            continue
        after, _ = draws_of(8 - before.shape[1], state, seed=call)
        assert torch.equal(torch.cat([before, after], 1), whole)
        num_stopped += 1
    assert num_stopped >= 7


# --- starts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["vectorized", "sequential"])
def test_starts_of_other_chains_are_refused_with_the_shape(method):
    mcmc = MCMC(
        MWGKernel(model, guide), 2, num_warmup=0, num_chains=2, chain_method=method,
        disable_progbar=True,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"first axis, of length 2; it has shape \(3, 2\)"):
        mcmc.run(X, init_params={"x": torch.zeros(3, 2)})


@pytest.mark.parametrize("value", [[1.0], "above"])
def test_starts_are_arrays(value):
    mcmc = MCMC(MWGKernel(model, guide), 2, num_warmup=0, num_chains=2, disable_progbar=True)
    with pytest.raises(TypeError, match=r"init_params\['x'\] must be an array, chains first"):
        mcmc.run(X, init_params={"x": value})


def test_a_refused_start_is_not_that_of_the_next_run():
    kernel = MWGKernel(model, guide)

    def chain():
        options = {"num_warmup": 0, "chain_method": "sequential", "disable_progbar": True}
        return MCMC(kernel, 1, **options)

    start = {"x": torch.full((1, 3, 2), 7.0), "z": torch.full((1, 3), 50.0)}
    with pytest.raises(ValueError, match="is inf at"):
        chain().run(X, init_params={**start, "z": start["z"] * np.inf})
    fresh = chain()
    fresh.run(X)
    assert fresh.get_samples()["z"].abs().max() < 10
    assert fresh.last_state.start == "prior predictive"
