"""Discrete latents whose guide draws what the prior does not allow, against enumeration.

What a sampler draws may not be outside of the prior's support. Tolerances are five standard errors
of independent rows, a false alarm of 6e-7 each.
"""

from math import factorial, inf, log

import numpy as np
import pytest

pyro = pytest.importorskip("pyro")
torch = pytest.importorskip("torch")

import pyro.distributions as dist  # noqa: E402

from ppl_vae.inference.pyro.support import log_prob_within  # noqa: E402
from ppl_vae.pyro import MCMC, ACMWGKernel, LAIRKernel, MWGKernel, importance_posterior  # noqa: E402

NUM_ROWS = 400
X = torch.tensor([[0.8, np.nan]]).expand(NUM_ROWS, 2)
PRIORS = {
    "Bernoulli": (lambda p: dist.Bernoulli(p[..., 1]), [0.7, 0.3]),
    "Categorical": (dist.Categorical, [0.5, 0.2, 0.3]),
}
GUIDES = {
    "Poisson": lambda x: dist.Poisson(1.5 + 0 * x[:, 0]),
    "Categorical": lambda x: dist.Categorical(torch.ones(len(x), 4) / 4),
}


def programs(prior, guide):
    """z of the prior, two normal entries about it; the guide draws larger numbers too."""
    make, probs = PRIORS[prior]

    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", make(torch.tensor(probs).expand(len(x), -1)))
            pyro.sample("x", dist.Normal(z[:, None] + 0 * x, 0.7).to_event(1), obs=x)

    def proposal(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", GUIDES[guide](x))

    return model, proposal


def posterior(prior):
    """p(z | x_o = 0.8), by enumeration."""
    probs = np.array(PRIORS[prior][1])
    weight = probs * np.exp(-0.5 * ((0.8 - np.arange(len(probs))) / 0.7) ** 2)
    return weight / weight.sum()


def check_shares(z, prior):
    """`z` has one independent draw of the posterior a row."""
    expected = posterior(prior)
    shares = np.array([(z == k).mean() for k in range(len(expected))])
    assert ((z % 1 == 0) & (z >= 0) & (z < len(expected))).all()
    assert (abs(shares - expected) < 5 * np.sqrt(expected * (1 - expected) / len(z))).all()


PAIRS = [("Bernoulli", "Poisson"), ("Categorical", "Poisson"), ("Bernoulli", "Categorical")]


@pytest.mark.parametrize(("prior", "guide"), PAIRS)
@pytest.mark.parametrize("kernel", [MWGKernel, ACMWGKernel, LAIRKernel])
def test_no_draw_is_outside_of_a_discrete_prior(kernel, prior, guide):
    pyro.set_rng_seed(0)
    mcmc = MCMC(kernel(*programs(prior, guide)), 1, num_warmup=60, disable_progbar=True)
    mcmc.run(X)
    check_shares(mcmc.get_samples()["z"].numpy().reshape(-1, NUM_ROWS)[0], prior)


@pytest.mark.parametrize(("prior", "guide"), PAIRS)
def test_no_weighted_draw_is_outside_of_a_discrete_prior(prior, guide):
    pyro.set_rng_seed(0)
    results = importance_posterior(
        *programs(prior, guide), X, num_particles=2_000, num_samples=1, progress_bar=False
    )
    check_shares(results["posterior"]["z"].values.reshape(-1), prior)


POISSON = [k * log(1.5) - 1.5 - log(factorial(k)) for k in range(3)]
CASES = {
    "bernoulli": (dist.Bernoulli(0.3), [-1, 0, 1, 2, 0.5], [-inf, log(0.7), log(0.3), -inf, -inf]),
    "categorical": (
        dist.Categorical(torch.tensor([0.2, 0.8])), [-1, 0, 1, 2], [-inf, log(0.2), log(0.8), -inf]
    ),
    "poisson": (dist.Poisson(1.5), [-1, 0, 1, 2, 0.5], [-inf, *POISSON, -inf]),
    "binomial": (
        dist.Binomial(torch.tensor([1.0, 2.0]), 0.5), [[1, 1], [2, 2], [3, 3]],
        [[log(0.5), log(0.5)], [-inf, log(0.25)], [-inf, -inf]],
    ),
    "one-hot": (
        dist.OneHotCategorical(torch.tensor([0.2, 0.8])), [[1, 0], [0, 1], [1, 1], [0, 0]],
        [log(0.2), log(0.8), -inf, -inf],
    ),
    "multinomial": (
        dist.Multinomial(2, torch.tensor([0.5, 0.5])), [[1, 1], [2, 0], [3, 0], [3, -1]],
        [log(0.5), log(0.25), -inf, -inf],
    ),
    "events": (
        dist.Bernoulli(torch.tensor([0.3, 0.3])).to_event(1), [[0, 1], [0, 2]],
        [log(0.7) + log(0.3), -inf],
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", CASES)
@pytest.mark.parametrize("how", ["plain", "integers", "mapped", "compiled"])
def test_log_density_of_a_discrete_support(family, how):
    d, value, expected = CASES[family]
    value = torch.tensor(value, dtype=torch.float32)
    if how == "integers":
        if not (value % 1 == 0).all():
            pytest.skip("not all values are integers")
        value = value.long()

    def of(value):
        return log_prob_within(d, value)

    if how == "mapped":
        if family == "multinomial":
            pytest.skip("torch does not map the density of a Multinomial")
        of = torch.func.vmap(of)
    if how == "compiled":
        of = torch.compile(of, backend="eager", fullgraph=True)
    with pyro.validation_enabled(False):
        torch.testing.assert_close(of(value), torch.tensor(expected), rtol=1e-6, atol=1e-6)
