"""Guides and priors that are normalising flows, and what else only Pyro programs hold.

A row of a linear-Gaussian model is one posterior; 300 rows and 4 chains are independent draws of it
after 60 iterations. Five standard errors: a false alarm of 6e-7 each.
"""

import numpy as np
import pytest

pyro = pytest.importorskip("pyro")
torch = pytest.importorskip("torch")

import pyro.distributions as dist  # noqa: E402
import pyro.distributions.transforms as T  # noqa: E402
from pyro.infer.reparam import LocScaleReparam  # noqa: E402

from ppl_vae.pyro import (  # noqa: E402
    MCMC,
    ACMWGKernel,
    LAIRKernel,
    MWGKernel,
    completed,
    fit,
    log_likelihood,
    pool,
    to_inference_data,
)


def mild(spline):
    """A spline whose slopes are not those of its first weights, up to 400."""
    for weight in spline.parameters():
        weight.data *= 0.3
    return spline


W = torch.tensor([[1.0, -0.5, 0.7, 0.2], [0.3, 0.6, -0.4, 0.1]])
NUM_ROWS = 300
ROW = torch.tensor([0.9, torch.nan, 1.2, torch.nan])
X = ROW.expand(NUM_ROWS, 4).clone()
FLOWS = {
    "autoregressive": lambda: T.affine_autoregressive(2, hidden_dims=[8]),
    "coupling": lambda: T.affine_coupling(2, hidden_dims=[8]),
    "spline": lambda: mild(T.Spline(2, bound=6.0)),
    "matrix": lambda: T.LowerCholeskyAffine(torch.zeros(2), torch.tensor([[1.0, 0], [0.3, 0.8]])),
}


@pytest.fixture(autouse=True)
def seeded():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)


def programs(flow, flow_of_prior=None):
    flow = FLOWS[flow]()

    def model(x):
        with pyro.plate("rows", len(x)):
            prior = dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1)
            if flow_of_prior is not None:
                prior = dist.TransformedDistribution(prior, [FLOWS[flow_of_prior]()])
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(z @ W, 0.5).to_event(1), obs=x)

    def guide(x):
        if isinstance(flow, torch.nn.Module):
            pyro.module("flow", flow)
        with pyro.plate("rows", len(x)):
            base = dist.Normal(0.3 * x[:, :2], 1.2).to_event(1)
            pyro.sample("z", dist.TransformedDistribution(base, [flow]))

    return model, guide


def closed_form(root=None):
    """Mean and variance of x_2 given x_1, x_3, and log p(x_1, x_3); z = root e, e normal."""
    root = np.eye(2) if root is None else root
    seen, covariance = [0, 2], W.T.numpy() @ root @ root.T @ W.numpy() + 0.25 * np.eye(4)
    among = covariance[np.ix_(seen, seen)]
    gain = covariance[1, seen] @ np.linalg.inv(among)
    x = ROW.numpy()[seen]
    evidence = -0.5 * (x @ np.linalg.solve(among, x) + np.linalg.slogdet(2 * np.pi * among)[1])
    return gain @ x, covariance[1, 1] - gain @ covariance[seen, 1], evidence


def check(draws, mean, variance):
    draws = draws.reshape(-1)
    assert abs(draws.mean() - mean) < 5 * draws.std() / len(draws) ** 0.5
    squares = (draws - mean) ** 2
    assert abs(squares.mean() - variance) < 5 * squares.std() / len(draws) ** 0.5


def run(kernel, num_samples=1, num_warmup=60):
    mcmc = MCMC(kernel, num_samples, num_warmup=num_warmup, num_chains=4, disable_progbar=True)
    mcmc.run(X)
    return mcmc


@pytest.mark.exact
@pytest.mark.parametrize("kernel", [MWGKernel, ACMWGKernel])
@pytest.mark.parametrize("flow", FLOWS)
def test_draws_with_a_flow_as_guide(kernel, flow):
    mean, variance, _ = closed_form()
    draws = run(kernel(*programs(flow))).get_samples(group_by_chain=True)["x"]
    check(draws[..., 1].numpy(), mean, variance)


@pytest.mark.parametrize("flow", ["autoregressive", "spline"])
def test_lair_with_a_flow_as_guide(flow):
    """E[w] = p(x_o), and pooled draws are exact."""
    mean, variance, evidence = closed_form()
    mcmc = run(LAIRKernel(*programs(flow), num_particles=3), num_samples=30, num_warmup=5)
    log_weight = mcmc.get_extra_fields(group_by_chain=True)["info"].log_weight.double()
    weights = (log_weight - evidence).exp().mean((0, 1, 2)).numpy()  # one estimate a row
    assert abs(weights.mean() - 1) < 5 * weights.std() / len(weights) ** 0.5
    check(completed(pool(mcmc, 1))[..., 1], mean, variance)


def test_a_flow_as_prior():
    mean, variance, evidence = closed_form(np.array([[1.0, 0.0], [0.3, 0.8]]))
    model, guide = programs("coupling", flow_of_prior="matrix")
    check(run(MWGKernel(model, guide)).get_samples()["x"][..., 1].numpy(), mean, variance)
    found = log_likelihood(model, guide, X[:5], num_particles=(20_000,), progress_bar=False)
    np.testing.assert_allclose(
        found["estimates"]["log_likelihood"].values.ravel(), evidence, atol=0.05
    )


def test_training_leads_to_the_same_draws():
    mean, variance, _ = closed_form()
    model, guide = programs("autoregressive")
    x = pyro.poutine.trace(model).get_trace(torch.zeros(200, 4)).nodes["x"]["fn"].sample()
    fitted = fit((model, guide), x, num_steps=20, progress_bar=False)
    check(
        run(MWGKernel(fitted.model, fitted.guide)).get_samples()["x"][..., 1].numpy(),
        mean,
        variance,
    )


def test_a_flow_without_an_inverse_is_named():
    planar = T.Planar(2)
    model, _ = programs("spline")

    def guide(x):
        pyro.module("planar", planar)
        with pyro.plate("rows", len(x)):
            base = dist.Normal(0.3 * x[:, :2], 1.2).to_event(1)
            pyro.sample("z", dist.TransformedDistribution(base, [planar]))

    message = r"transform without an inverse.*affine_autoregressive"
    with pytest.raises(NotImplementedError, match=message):
        run(MWGKernel(model, guide))
    with pytest.raises(NotImplementedError, match=message):
        fit((model, guide), torch.nan_to_num(X), num_steps=1, progress_bar=False)


def test_a_reparameterised_site_leaves_nothing_behind():
    """`poutine.reparam` leaves an observed, masked Delta where the site was."""

    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ W, 0.5).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z_decentered", dist.Normal(0.3 * x[:, :2], 1.2).to_event(1))

    mean, variance, _ = closed_form()
    decentred = pyro.poutine.reparam(model, config={"z": LocScaleReparam(0.0)})
    mcmc = run(MWGKernel(decentred, guide))
    check(mcmc.get_samples()["x"][..., 1].numpy(), mean, variance)
    assert "z_decentered" in to_inference_data(mcmc)["posterior"]


@pytest.mark.parametrize("role", ["model", "guide"])
def test_a_plate_over_given_rows_of_many_is_named(role):
    def plate(x, of):
        return pyro.plate("rows", 900, subsample=x) if of == role else pyro.plate("rows", len(x))

    def model(x):
        with plate(x, "model"):
            z = pyro.sample("z", dist.Normal(0 * x[:, :1], 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z + 0 * x, 0.5).to_event(1), obs=x)

    def guide(x):
        with plate(x, "guide"):
            pyro.sample("z", dist.Normal(0 * x[:, :1], 1.0).to_event(1))

    with pytest.raises(
        ValueError, match=r"plate 'rows' of the .* subsampled, 300 of 900.*x\.shape"
    ):
        run(MWGKernel(model, guide))
