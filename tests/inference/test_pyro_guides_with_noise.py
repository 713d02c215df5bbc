"""Guides that draw more than their sites: an objective must score a draw by what it was drawn from.

The bound's value is the same for IWAE, DReG, GDReG, RWS and RWSDReG, draw by draw.
"""

import pytest

pyro = pytest.importorskip("pyro")
torch = pytest.importorskip("torch")

import pyro.distributions as dist  # noqa: E402
from torch import nn  # noqa: E402

from ppl_vae.pyro import (  # noqa: E402
    ELBO,
    IWAE,
    MCMC,
    RWS,
    STL,
    DReG,
    GDReG,
    MWGKernel,
    RWSDReG,
    fit,
)

X = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
SAME = [DReG, GDReG, RWS, RWSDReG]
MASKS = {
    "before the first site": (0.5, 0.0),
    "after the first site": (0.0, 0.5),
    "before both": (0.5, 0.5),
    "none": (0.0, 0.0),
}


def model(x):
    with pyro.plate("rows", len(x)):
        a = pyro.sample("a", dist.Normal(0 * x[:, 0], 1.0))
        b = pyro.sample("b", dist.Normal(a, 1.0))
        pyro.sample("x", dist.Normal(b[:, None] + 0 * x, 1.0).to_event(1), obs=x)


class Guide(nn.Module):
    """Two narrow sites, the second given the first: another mask is far from the draw."""

    def __init__(self, shares):
        super().__init__()
        torch.manual_seed(3)
        first, second = shares
        self.net_a = nn.Sequential(nn.Linear(3, 64), nn.Dropout(first), nn.Linear(64, 1))
        self.net_b = nn.Sequential(nn.Linear(4, 64), nn.Dropout(second), nn.Linear(64, 1))

    def forward(self, x):
        with pyro.plate("rows", len(x)):
            a = pyro.sample("a", dist.Normal(self.net_a(x)[:, 0], 0.05))
            both = torch.cat([x, a[:, None]], 1)
            pyro.sample("b", dist.Normal(self.net_b(both)[:, 0], 0.05))


def loss_and_next(objective, guide, method="loss"):
    """The loss, and the number that the generator draws after it."""
    pyro.clear_param_store()
    pyro.set_rng_seed(7)
    return getattr(objective, method)(model, guide, X), torch.rand(())


@pytest.mark.parametrize("shares", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("num_particles", [1, 4])
@pytest.mark.parametrize("objective", SAME)
def test_the_second_run_has_the_masks_of_the_first(objective, num_particles, shares):
    """Twice: the first call finds out that torch cannot map the guide."""
    guide = Guide(shares)
    expected = loss_and_next(IWAE(num_particles=num_particles), guide)
    for _ in range(2):
        found = loss_and_next(objective(num_particles=num_particles), guide)
        assert found[0] == pytest.approx(expected[0], rel=1e-5)
        assert found[1] == expected[1]


@pytest.mark.parametrize("num_particles", [1, 4])
def test_sticking_the_landing_has_the_value_of_the_bound(num_particles):
    """The mean of log w is that of ELBO, and each gradient keeps the draw's own mask."""
    guide = Guide((0.5, 0.5))
    expected = loss_and_next(ELBO(num_particles=num_particles), guide)
    found = loss_and_next(STL(num_particles=num_particles), guide, "loss_and_grads")
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert found[1] == expected[1]


@pytest.mark.parametrize("objective", [STL, DReG])
def test_gradient_without_noise_is_that_of_the_same_masks(objective):
    """K = 1: d log w / db along b = loc + eps of the draw's own loc, by hand.

        d [log p(a, b, x) - log q(a, b | x)] / db = (a - b) + sum_j (x_j - b) + (b - loc) / 0.05^2

    The last bias of the guide moves b by as much.
    """
    guide = Guide((0.5, 0.5))
    pyro.set_rng_seed(7)
    sites = pyro.poutine.trace(guide).get_trace(X).nodes
    a, b, loc = sites["a"]["value"], sites["b"]["value"], sites["b"]["fn"].loc
    slope = (a - b) + (X - b[:, None]).sum(1) + (b - loc) / 0.05**2
    loss_and_next(objective(num_particles=1), guide, "loss_and_grads")
    torch.testing.assert_close(guide.net_b[2].bias.grad, -slope.sum()[None], rtol=1e-3, atol=0)


@pytest.mark.parametrize("num_particles", [1, 4])
def test_recorded_steps_say_that_they_cannot_repeat_masks(num_particles):
    net = Guide((0.5, 0.5))

    def guide(x):
        pyro.module("net", net)(x)

    pyro.clear_param_store()
    objective = DReG(num_particles=num_particles)
    with pytest.raises(NotImplementedError, match=r"jit_compile cannot repeat.*IWAE"):
        fit((model, guide), X, objective=objective, num_steps=2, jit_compile=True)


@pytest.mark.parametrize("role", ["guide", "model"])
def test_kernels_want_evaluation_mode(role):
    net = nn.Sequential(nn.Linear(3, 64), nn.Dropout(0.5), nn.Linear(64, 1))

    def noisy_guide(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(net(x) if role == "guide" else x[:, :1], 1.0).to_event(1))

    def noisy_model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0 * x[:, :1], 1.0).to_event(1))
            loc = net(z.expand(x.shape)) if role == "model" else z
            pyro.sample("x", dist.Normal(loc + 0 * x, 1.0).to_event(1), obs=x)

    def run():
        mcmc = MCMC(MWGKernel(noisy_model, noisy_guide), num_samples=3, disable_progbar=True)
        mcmc.run(torch.where(torch.arange(3) < 2, X, torch.nan))
        return mcmc.get_samples()["x"]

    with pytest.raises(ValueError, match=rf"the {role} has other densities.*evaluation mode"):
        run()
    net.eval()
    assert run().isfinite().all()
