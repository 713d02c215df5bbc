"""A model observes x itself, reads nothing of what is missing, and no other rows than x's."""

import numpy as np
import pytest
from host_words import words
from kernel_parts import real

X = np.array([[np.nan, 3.0], [0.5, np.nan], [1.0, -1.0], [np.nan, np.nan]])


def programs(backend, *, prior=None, likelihood=None, observed=None):
    ppl = words(backend)

    def model(x):
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(prior(x) if prior else 0 * x[:, 0], 1.0))
            loc = z[:, None] + (likelihood(x) if likelihood else 0 * x)
            obs = x if observed is None else observed(x)
            ppl.sample("x", ppl.dist.Normal(loc, 0.5).to_event(1), obs=obs)

    def guide(x):
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(0 * x[:, 0], 1.0))

    return model, guide


REFUSED = {
    "rescaled": ({"observed": lambda x: (x - 10) / 5}, r"does not observe x as it was given"),
    "autoregressive": (
        {"likelihood": lambda x: 0 * x + x[:, :1]}, r"change with what is missing of x",
    ),
    "prior": ({"prior": lambda x: x[:, 0]}, r"change with what is missing of x"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("kernel", ["MWGKernel", "LAIRKernel"])
def test_kernels_refuse_other_uses_of_x(backend, kernel, case):
    parts, message = REFUSED[case]
    for x in (X, X[:1]):
        with pytest.raises(ValueError, match=message):
            backend.run(
                getattr(backend.api, kernel)(*programs(backend, **parts)), real(backend, x),
                num_samples=2, num_chains=1,
            )  # fmt: skip


def test_observed_entries_may_be_read_where_all_rows_have_them(backend):
    """What stays the same whatever is missing does no harm."""
    pair = programs(backend, prior=lambda x: x[:, 1])
    mcmc = backend.run(
        backend.api.MWGKernel(*pair), real(backend, X[:1]), num_samples=5, num_chains=1
    )
    assert np.isfinite(backend.draws(mcmc)["x"]).all()


def with_weight(backend, pair):
    model, guide = pair

    def trained(x):
        words(backend).param("shift", real(backend, 0.0))
        return model(x)

    return trained, guide


def test_fit_refuses_a_model_that_observes_something_else(backend):
    pair = with_weight(backend, programs(backend, **REFUSED["rescaled"][0]))
    with pytest.raises(ValueError, match="does not observe x as it was given"):
        backend.fit(pair, real(backend, X), num_steps=1)


@pytest.mark.parametrize("bad_row", [0, 6])
def test_fit_refuses_grey_data_of_a_bernoulli(backend, bad_row):
    """In the first batch or after it."""
    ppl = words(backend)

    def model(x):
        logits = ppl.param("logits", real(backend, np.zeros(2)))
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0 * x[:, 0], 1.0))
            logits = logits + z[:, None]
            ppl.sample("x", ppl.dist.Bernoulli(logits=logits).to_event(1), obs=x)

    x = np.ones((8, 2))
    x[bad_row, 1] = 0.3
    with pytest.raises(ValueError, match=rf"0\.3.*row {bad_row}"):
        backend.fit((model, programs(backend)[1]), real(backend, x), num_steps=1, batch_size=4)


def test_rows_that_are_alike_do_not_hide_a_mean_over_them(backend):
    ppl = words(backend)

    def guide(x):
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal((x - x.mean(0)).sum(1), 1.0))

    model, x = programs(backend)[0], np.array([[1.0, 1.0], [1.0, 1.0], [1.0, np.nan]])
    for seed in range(5):
        with pytest.raises(ValueError, match="rows of the guide are not independent"):
            backend.run(
                backend.api.MWGKernel(model, guide), real(backend, x[1:]), seed=seed,
                num_samples=2, num_chains=1,
            )  # fmt: skip
