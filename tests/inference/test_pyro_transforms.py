"""Distributions whose transforms hold tensors of the rows: several chains and particles of them."""

import numpy as np
import pytest

pyro = pytest.importorskip("pyro")
torch = pytest.importorskip("torch")

import pyro.distributions as dist  # noqa: E402
from torch.distributions import transforms as T  # noqa: E402

from ppl_vae.inference.pyro.rows import join, select_rows, take_rows, unfold_rows  # noqa: E402
from ppl_vae.pyro import (  # noqa: E402
    IWAE,
    MCMC,
    ACMWGKernel,
    DReG,
    LAIRKernel,
    MWGKernel,
    importance_posterior,
    pool,
)

# --- distributions as trees of tensors ------------------------------------------------------


def transformed(*transforms, event_dim=0):
    """A normal distribution of the transforms' shape, transformed."""
    return lambda p: dist.TransformedDistribution(
        dist.Normal(torch.zeros_like(p), 1.0).to_event(event_dim), [t(p) for t in transforms]
    )


FAMILIES = {
    "Gumbel": lambda p: dist.Gumbel(p, p + 1),
    "Weibull": lambda p: dist.Weibull(p, 1 + p),
    "InverseGamma": lambda p: dist.InverseGamma(p, 1 + p),
    "Kumaraswamy": lambda p: dist.Kumaraswamy(p, 1 + p),
    "Pareto": lambda p: dist.Pareto(p / 9, 1 + p),
    "LogNormal": lambda p: dist.LogNormal(p, p + 1),
    "affine": transformed(lambda p: T.AffineTransform(p, 2 * p)),
    "affine, one scale": transformed(lambda p: T.AffineTransform(p, torch.tensor(2.0))),
    "affine, scale by column": transformed(
        lambda p: T.AffineTransform(p, torch.tensor([2.0, 3.0]), event_dim=1), event_dim=1
    ),
    "affine, loc by row": transformed(lambda p: T.AffineTransform(p[..., :1], 2.0)),
    "inverse": transformed(lambda p: T.AffineTransform(p, 2 * p).inv),
    "composed": transformed(
        lambda p: T.ComposeTransform([T.AffineTransform(p, 2.0), T.ExpTransform()]),
        lambda p: T.PowerTransform(p),
    ),
    "inverse of composed": transformed(
        lambda p: T.ComposeTransform([T.AffineTransform(p, 2.0), T.ExpTransform()]),
        lambda p: T.ComposeTransform([T.AffineTransform(p, p), T.ExpTransform()]).inv,
    ),
    "independent": transformed(
        lambda p: T.IndependentTransform(T.AffineTransform(p, 2 * p), 1), event_dim=1
    ),
    "kept": transformed(lambda p: T.AffineTransform(p, 2 * p, cache_size=1)),
}
FIRST = 0.3 + torch.arange(12.0).reshape(6, 2) / 10
SECOND = FIRST.flip(0)


@pytest.fixture(params=FAMILIES)
def make(request):
    """A distribution of one batch axis more than rows have is one of single entries."""
    family = FAMILIES[request.param]

    def make(p):
        d = family(p)
        return d if d.event_shape else d.to_event(1)

    return make


def same(found, expected):
    """Equal as distributions: shapes, and log densities at a value that both may take."""
    assert (found.batch_shape, found.event_shape) == (expected.batch_shape, expected.event_shape)
    torch.manual_seed(0)
    value = expected.sample()
    assert found.sample().shape == value.shape
    torch.testing.assert_close(found.log_prob(value), expected.log_prob(value))


def test_rows_are_unfolded(make):
    """Six rows of two columns as two chains of three."""
    d = make(FIRST)
    d.log_prob(d.sample())  # what is kept of a draw belongs to its shape
    same(unfold_rows(d, torch.Size((2, 3))), make(FIRST.reshape(2, 3, 2)))
    same(d, make(FIRST))


@pytest.mark.parametrize("num_rows", [2, 3])
def test_a_scale_for_each_column_is_none_for_each_row(num_rows):
    """Even where there are as many columns as rows."""
    make = FAMILIES["affine, scale by column"]
    d = unfold_rows(make(FIRST[: 2 * num_rows]), torch.Size((2, num_rows)))
    same(d, make(FIRST[: 2 * num_rows].reshape(2, num_rows, 2)))
    same(unfold_rows(make(FIRST[:2]), torch.Size((2, 1))), make(FIRST[:2].reshape(2, 1, 2)))


def test_rows_are_selected_and_taken(make):
    old, new = make(FIRST.reshape(2, 3, 2)), make(SECOND.reshape(2, 3, 2))
    choose = torch.tensor([[True, False, True], [False, False, True]])
    expected = torch.where(choose[..., None], SECOND.reshape(2, 3, 2), FIRST.reshape(2, 3, 2))
    same(select_rows(choose, new, old), make(expected))
    same(join([old, new], torch.Size((4, 3))), make(torch.cat([FIRST, SECOND]).reshape(4, 3, 2)))
    index = torch.tensor([[[0, 1, 1]], [[1, 0, 1]]])  # (C, K, B)
    stack = FIRST.reshape(2, 3, 1, 2).expand(-1, -1, 2, -1).reshape(2, 2, 3, 2)
    taken = stack[torch.arange(2)[:, None, None], index, torch.arange(3)]
    same(take_rows(make(stack), index), make(taken))


def test_other_transforms_with_tensors_are_refused():
    base = dist.Normal(torch.zeros(6, 2), 1.0).to_event(1)
    lower = dist.transforms.LowerCholeskyAffine(FIRST, torch.eye(2).expand(6, 2, 2))
    with pytest.raises(NotImplementedError, match=r"a LowerCholeskyAffine, .*use AffineTransform"):
        unfold_rows(dist.TransformedDistribution(base, [lower]), torch.Size((2, 3)))


# --- a likelihood ---------------------------------------------------------------------------

NUM_ROWS, SCALE = 200, 0.8
X = torch.tensor([[1.0, np.nan]]).expand(NUM_ROWS, 2)


def gumbel(x):
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(0 * x[:, 0], 1.0))
        pyro.sample("x", dist.Gumbel(z[:, None] + 0 * x, SCALE).to_event(1), obs=x)


def gumbel_guide(x):
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(x.mean(1) / 2 - 0.3, 1.0))


def expected_entry():
    """E[x_m | x_o = 1] = E[z | x_o = 1] + 0.5772 * scale, by quadrature over z."""
    z = np.linspace(-8, 8, 20_001)
    y = (1.0 - z) / SCALE
    weight = np.exp(-0.5 * z**2 - y - np.exp(-y))
    return (z * weight).sum() / weight.sum() + np.euler_gamma * SCALE


def check_mean(draws):
    """Rows are independent: five standard errors of their means, a false alarm of 6e-7."""
    means = draws.reshape(-1, NUM_ROWS).mean(0)
    assert abs(means.mean() - expected_entry()) < 5 * means.std() / np.sqrt(NUM_ROWS)


@pytest.mark.parametrize("kernel", [MWGKernel, LAIRKernel])
def test_a_gumbel_likelihood_with_three_chains(kernel):
    pyro.set_rng_seed(0)
    mcmc = MCMC(kernel(gumbel, gumbel_guide), 30, num_warmup=30, num_chains=3, disable_progbar=True)
    mcmc.run(X)
    if kernel is MWGKernel:
        return check_mean(mcmc.get_samples()["x"].numpy()[..., 1])
    check_mean(pool(mcmc, 30)["posterior"]["x_missing"].values)


def test_a_gumbel_likelihood_with_particles():
    pyro.set_rng_seed(0)
    results = importance_posterior(
        gumbel, gumbel_guide, X, num_particles=1_000, num_samples=30, progress_bar=False
    )
    check_mean(results["posterior"]["x_missing"].values)


# --- a guide --------------------------------------------------------------------------------


def pair(family, scale):
    """Two latents; the guide as a normal, or as the same normal transformed."""

    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0 * x, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    def guide(x):
        loc = x / 2
        with pyro.plate("rows", len(x)):
            if family == "normal":
                return pyro.sample("z", dist.Normal(loc, scale).to_event(1))
            base = dist.Normal(torch.zeros_like(x), 1.0).to_event(1)
            affine = T.AffineTransform(loc, torch.tensor(scale).expand(2), event_dim=1)
            return pyro.sample("z", dist.TransformedDistribution(base, [affine]))

    return model, guide


SOME = torch.tensor([[1.0, np.nan], [0.1, 0.4]])


@pytest.mark.parametrize("kernel", [MWGKernel, ACMWGKernel, LAIRKernel])
def test_an_affine_guide_draws_what_the_normal_does(kernel):
    """From the same seed, up to rounding."""
    draws = []
    for family in ("normal", "affine"):
        pyro.set_rng_seed(0)
        mcmc = MCMC(
            kernel(*pair(family, 0.6)), 10, num_warmup=0, num_chains=3, disable_progbar=True
        )
        mcmc.run(SOME)
        draws.append(mcmc.get_samples()["z"])
    torch.testing.assert_close(*draws, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", [IWAE, DReG])
def test_an_affine_guide_has_the_bound_of_the_normal(objective):
    losses = []
    for family in ("normal", "affine"):
        pyro.set_rng_seed(0)
        losses.append(objective(num_particles=4).loss(*pair(family, 0.6), SOME))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
