"""Programs that cannot be run on copies of the rows: each chain or particle takes its own run."""

import warnings

import numpy as np
import pytest

pyro = pytest.importorskip("pyro")
torch = pytest.importorskip("torch")

import pyro.distributions as dist  # noqa: E402

from ppl_vae.pyro import (  # noqa: E402
    IWAE,
    MCMC,
    ACMWGKernel,
    HMCRefreshKernel,
    LAIRKernel,
    MWGKernel,
    map_start,
    pool,
    to_inference_data,
)

NAN = float("nan")
X = torch.tensor([[0.5, NAN], [NAN, 0.2], [NAN, NAN]])
MU = torch.tensor([1.0, 2.0, 3.0])  # of so many entries as X has rows, by chance
LABELS = torch.tensor([0.0, 1.0, 2.0])


def guide(x, *_):
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(2.0 + 0 * x[:, 0], 1.5))


def with_plate(size):
    def model(x):
        with pyro.plate("rows", size or len(x)):
            z = pyro.sample("z", dist.Normal(torch.tensor(2.0), 1.0))
            pyro.sample("x", dist.Normal(z[:, None] + 0 * x, 1.0).to_event(1), obs=x)

    return model


def of_all_rows():
    def model(x, mu):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(mu.mean(), mu.sum() / 6))
            pyro.sample("x", dist.Normal(z[:, None] + 0 * x, 1.0).to_event(1), obs=x)

    return model


def with_closure():
    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(2.0 + 0 * LABELS, 1.0))
            pyro.sample("x", dist.Normal(z[:, None] + 0 * x, 1.0).to_event(1), obs=x)

    return model


def refreshed(model, guide):
    return HMCRefreshKernel(MWGKernel(model, guide), step_size=0.5, num_steps=3)


PROGRAMS = {"argument": (of_all_rows, (MU,)), "closure": (with_closure, ())}


@pytest.mark.parametrize("kernel", [MWGKernel, ACMWGKernel, LAIRKernel, refreshed])
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_law_is_that_of_one_chain(kernel, name):
    """Row 2 has nothing observed: z ~ N(2, 1), whatever the chains; five standard errors."""
    make_model, args = PROGRAMS[name]
    model = make_model()  # what was found of a program is remembered
    pyro.set_rng_seed(0)
    mcmc = MCMC(kernel(model, guide), 600, num_warmup=50, num_chains=4, disable_progbar=True)
    with pytest.warns(UserWarning, match="model cannot be run on copies of the rows"):
        mcmc.run(X, *args)
    idata = pool(mcmc, 600) if kernel is LAIRKernel else to_inference_data(mcmc)  # no bias of few
    z = idata["posterior"]["z"].values[..., 2]
    means, sds = z.reshape(4, -1).mean(1), z.reshape(4, -1).std(1)
    for found, truth in ((means, 2.0), (sds, 1.0)):
        assert abs(found.mean() - truth) < max(5 * found.std(ddof=1) / 2, 0.02)


def test_plates_that_know_the_number_of_rows_are_no_trouble():
    """A plate of all rows runs over all copies of them."""
    draws = []
    for size in (None, 3):
        pyro.set_rng_seed(0)
        mcmc = MCMC(LAIRKernel(with_plate(size), guide), 5, num_chains=2, disable_progbar=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            mcmc.run(X)
        draws.append(mcmc.get_samples()["x"])
    assert torch.equal(*draws)


def test_training_takes_each_particle_in_turn():
    """The same bound of the same draws as of a program that can be copied."""
    x, losses = torch.nan_to_num(X), []
    for model in (with_plate(None), with_closure()):
        pyro.set_rng_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            losses.append(IWAE(num_particles=4).loss(model, guide, x))
    np.testing.assert_allclose(*losses, rtol=1e-6)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_mode_is_that_of_one_chain(name):
    """p(z | x_o) is normal: its mode, by every particle's own run."""
    make_model, args = PROGRAMS[name]
    pyro.set_rng_seed(0)
    options = {"num_chains": 2, "num_particles": 3, "num_steps": 300}
    start = map_start(make_model(), guide, X, *args, **options)
    num_seen = (~X.isnan()).sum(1)
    mode = (2.0 + X.nan_to_num().sum(1)) / (1 + num_seen)
    np.testing.assert_allclose(start["z"], mode.expand(2, 3), atol=0.05)
