"""What only Pyro could get wrong: caches of programs, precision, and the chains of its own MCMC."""

import gc
import weakref

import numpy as np
import pytest

pyro = pytest.importorskip("pyro")
torch = pytest.importorskip("torch")

import pyro.distributions as dist  # noqa: E402
from host_words import FILLED, MASK  # noqa: E402
from pyro.infer import MCMC as HostMCMC  # noqa: E402

from ppl_vae.inference.pyro.guide_particles import run_particles  # noqa: E402
from ppl_vae.inference.pyro.program import Program  # noqa: E402
from ppl_vae.pyro import (  # noqa: E402
    MCMC,
    LAIRKernel,
    MWGKernel,
    StreamingLAIRKernel,
    annealed,
    fit,
    importance_posterior,
    pool,
    to_inference_data,
)


class Pair:
    """A program of two sites, that is run once for all particles where torch can map it."""

    def model(self, x):
        with pyro.plate("rows", len(x)):
            first = pyro.sample("first", dist.Normal(0 * x[:, 0], 1.0))
            second = pyro.sample("second", dist.Normal(first, 1.0))
            pyro.sample("x", dist.Normal(second[:, None] + 0 * x, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("rows", len(x)):
            first = pyro.sample("first", dist.Normal(x[:, 0], 1.0))
            pyro.sample("second", dist.Normal(first, 1.0))


def run_and_leave():
    """Run methods and functions once; return weak references to what they belong to."""
    ours = Pair()

    def model(x):
        return ours.model(x)

    def guide(x):
        return ours.guide(x)

    x = torch.as_tensor(FILLED)
    for pair in ((ours.model, ours.guide), (model, guide)):
        program = Program(*pair, x, x == x)
        program.propose_from_prior(())
        run_particles(program, 3)
    return [weakref.ref(thing) for thing in (ours, model, guide)]


def test_what_is_remembered_of_a_program_does_not_keep_it_alive():
    """A finished training leaves its nets to the garbage collector."""
    alive = run_and_leave()
    gc.collect()
    assert [ref() for ref in alive] == [None] * 3


def test_the_share_that_is_missing_is_as_precise_as_the_guide():
    """A third has another value in single precision."""

    def guide(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(x[:, :1] + 1, 1.0).to_event(1))

    for dtype in (torch.float32, torch.float64):
        x, mask = torch.zeros(4, 3, dtype=dtype), torch.as_tensor(MASK)
        with pyro.poutine.trace() as recorded:
            annealed(guide)(x, mask=mask)
        loc = recorded.trace.nodes["z"]["fn"].mean[:, 0]
        assert loc.dtype == dtype
        expected = torch.as_tensor(MASK.mean(1)).to(dtype)
        torch.testing.assert_close(loc, expected, rtol=0, atol=2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("family", ["normal", "gamma", "mixture"])
def test_chunks_leave_what_is_imputed_to_the_bit(family):
    """Torch draws normal numbers by 16; the last of two blocks of rows has a single one."""
    rng = np.random.default_rng(0)
    x = rng.gamma(2.0, size=(33, 5)).astype("float32")
    x[rng.random(x.shape) < 0.5] = x[32] = np.nan

    def likelihood(z):
        loc = z.sum(-1, keepdim=True).expand(-1, 5)
        if family == "gamma":
            return dist.Gamma(loc.exp(), 1.0).to_event(1)
        if family == "normal":
            return dist.Normal(loc, 0.5).to_event(1)
        each = dist.Normal(torch.stack([loc, -loc], 1), 0.5).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(torch.ones(len(z), 2)), each)

    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", likelihood(z), obs=x)

    def guide(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(x[:, :1].expand(-1, 2) / 2, 1.0).to_event(1))

    def posterior(chunk_size):
        pyro.set_rng_seed(0)
        return importance_posterior(
            model, guide, torch.as_tensor(x), num_particles=50, num_samples=70,
            chunk_size=chunk_size, progress_bar=False,
        )["posterior"]  # fmt: skip

    whole = posterior(100_000)
    for chunk_size in (1, 7, 333, 2_048):
        assert posterior(chunk_size).equals(whole)


# --- Pyro's own MCMC, and chains one after another ------------------------------------------


def gaussian(x):
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(0 * x[:, 0], 1.0))
        pyro.sample("x", dist.Normal(z[:, None] + 0 * x, 0.5).to_event(1), obs=x)


def proposal(x):
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(x.mean(1), 1.0))


DATA = torch.tensor([[1.0, np.nan], [0.0, np.nan], [np.nan, np.nan]])


def chains(kernel, host=MCMC, init_params=None, num_chains=2, **options):
    """A run of six draws, with two of warm-up."""
    pyro.set_rng_seed(0)
    options = {"num_chains": num_chains, "warmup_steps": 2, "disable_progbar": True, **options}
    mcmc = host(kernel(gaussian, proposal), 6, **options)
    mcmc.run(DATA, **({} if init_params is None else {"init_params": init_params}))
    return mcmc


def test_a_run_stopped_in_its_warm_up_has_no_draws():
    def stop(*_):
        raise KeyboardInterrupt

    mcmc = MCMC(
        MWGKernel(gaussian, proposal), 6, warmup_steps=4, hook_fn=stop, disable_progbar=True
    )
    with pytest.raises(KeyboardInterrupt):
        mcmc.run(DATA)
    with pytest.raises(ValueError, match="There are no draws yet"):
        to_inference_data(mcmc)


def pooled(mcmc):
    pyro.set_rng_seed(1)
    return pool(mcmc, 10)


def test_pool_takes_a_run_of_the_hosts_own_class():
    """One chain of it draws what ours does; its statistics hold the warm-up too."""
    stock, ours = (pooled(chains(LAIRKernel, host, num_chains=1)) for host in (HostMCMC, MCMC))
    for group in ("posterior", "sample_stats"):
        assert stock[group].equals(ours[group])
    assert stock["posterior"].attrs["pooled_from"] == 6 * 5
    assert pooled(chains(LAIRKernel, chain_method="sequential"))["posterior"]["z"].shape[:2] == (
        2, 10,
    )  # fmt: skip


@pytest.mark.parametrize(
    "options", [{"host": HostMCMC, "num_chains": 1}, {"chain_method": "sequential"}]
)
def test_pool_says_which_runs_keep_no_slots(options):
    with pytest.raises(ValueError, match=r"slots .* last state .* chain_method='vectorized'"):
        pooled(chains(StreamingLAIRKernel, **options))


IN_TURN = pytest.mark.filterwarnings("ignore:num_chains=2 is more than available_cpu")


@pytest.fixture
def in_turn(monkeypatch):
    """On a small machine the host runs the chains of processes one after another, and warns."""
    monkeypatch.setattr("pyro.infer.mcmc.api.mp.cpu_count", lambda: 1)


@IN_TURN
@pytest.mark.parametrize("num_chains", [1, 2])
@pytest.mark.parametrize("chain_method", ["vectorized", "sequential", "parallel"])
def test_chains_start_where_another_run_stopped(in_turn, chain_method, num_chains):
    """Given to one run or to all of them, as values or with their origin."""
    options = {"num_chains": num_chains, "chain_method": chain_method}
    warm = chains(LAIRKernel, num_chains=num_chains).last_state.hand_over()
    assert warm["x"].shape == (num_chains, 4, 3, 2)

    def draws(**start):
        mcmc = chains(MWGKernel, **options, **start)
        at = to_inference_data(mcmc)["posterior"].attrs["start"]
        return mcmc.get_samples(group_by_chain=True)["x"], at

    expected, start = draws(init_params=dict(warm))
    assert start == "init_params"
    for given in ({"init_params": warm}, {"initial_params": warm}):
        found, start = draws(**given)
        assert torch.equal(found, expected)
        assert start == "LAIRKernel, 8 iterations"
    afresh, start = draws()
    assert not torch.equal(afresh, expected)
    assert start == "prior predictive"


@IN_TURN
@pytest.mark.parametrize("chain_method", ["sequential", "parallel"])
def test_chains_of_the_host_hand_their_last_draws_over(in_turn, chain_method):
    before = chains(LAIRKernel, chain_method=chain_method)
    last = before.get_samples(group_by_chain=True)["x"][:, -1]
    warm = before.last_state.hand_over()
    assert torch.equal(warm["x"], last)
    after = chains(LAIRKernel, init_params=warm)
    assert to_inference_data(after)["posterior"].attrs["start"] == "LAIRKernel, 8 iterations"
    assert torch.equal(
        after.get_samples()["x"], chains(LAIRKernel, init_params=dict(warm)).get_samples()["x"]
    )

    before.post_warmup_state = before.last_state
    with pytest.raises(ValueError, match=rf"{chain_method} chains cannot go on .*hand_over"):
        before.run(DATA)
    after.post_warmup_state = before.last_state
    with pytest.raises(ValueError, match=r"only the last draws are left.*hand_over"):
        after.run(DATA)


@IN_TURN
def test_the_hosts_own_class_takes_a_hand_over(in_turn):
    warm = chains(LAIRKernel).last_state.hand_over()
    stock = chains(MWGKernel, HostMCMC, initial_params=warm)
    ours = chains(MWGKernel, init_params=warm, chain_method="sequential")
    assert torch.equal(stock.get_samples()["x"], ours.get_samples()["x"])


@IN_TURN
@pytest.mark.parametrize("chain_method", ["vectorized", "sequential", "parallel"])
def test_a_start_of_other_chains_is_refused(in_turn, chain_method):
    warm = chains(LAIRKernel, num_chains=3).last_state.hand_over()
    for num_chains in (1, 2):
        options = {"num_chains": num_chains, "chain_method": chain_method}
        for given in ({"init_params": warm}, {"initial_params": warm}):
            with pytest.raises(
                ValueError, match=r"the chains as first axis, of length [12]; it has"
            ):
                chains(MWGKernel, **options, **given)


def test_training_on_data_of_another_type_than_the_weights():
    net = torch.nn.Linear(3, 1)

    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0 * x[:, :1], 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z + 0 * x, 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("net", net)
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(net(x), 1.0).to_event(1))

    x = torch.ones(4, 3, dtype=torch.float64)
    with pytest.raises(TypeError, match=r"(?s)x is torch\.float64.*such as `x\.float\(\)`"):
        fit((model, guide), x, num_steps=1)
    assert fit((model, guide), x.float(), num_steps=1, progress_bar=False).losses.shape == (1,)
