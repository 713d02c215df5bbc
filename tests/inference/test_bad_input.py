"""Bad data and options are refused with an error that names value, place and remedy."""

from functools import partial

import numpy as np
import pytest
from host_words import FILLED, MASK, NAN, X, bernoulli_pair, clear_parameters, run, words

KERNELS = ["PseudoGibbsKernel", "MWGKernel", "ACMWGKernel", "LAIRKernel"]


@pytest.fixture
def ppl(backend):
    clear_parameters(backend)
    return words(backend)


# --- data and mask --------------------------------------------------------------------------


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


BAD_DATA = {
    "mask shape": (FILLED, MASK[:, :2], ValueError, r"\(4, 3\), got \(4, 2\).*broadcast_to"),
    "mask dtype": (FILLED, MASK.astype("int32"), TypeError, r"bool, True = observed.*int32"),
    "observed NaN": (X, changed(MASK, (2, 1), True), ValueError, r"nan at row 2, feature 1.*mask"),
    "infinite": (changed(X, (1, 2), np.inf), None, ValueError, r"inf at row 1, feature 2.*finite"),
    "zero rows": (X[:0], None, ValueError, r"\(0, 3\): zero rows.*filter"),
    "integers": (FILLED.astype("int32"), None, TypeError, r"int32.*without a mask.*mask="),
    "support": (
        changed(X, (3, 1), 0.3), None, ValueError,
        r"1 observed value.*outside the support.* at site 'x'.*0\.3.* row 3, feature 1.*binarise",
    ),
    "no rows axis": (X[0, 0], None, ValueError, "must have rows"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_DATA)
@pytest.mark.parametrize("name", ["MWGKernel", "LAIRKernel"])
def test_bad_data(backend, ppl, name, case):
    x, mask, error, message = BAD_DATA[case]
    mask = {} if mask is None else {"mask": backend.array(mask)}
    with pytest.raises(error, match=rf"(?s){message}"):
        run(backend, bernoulli_pair(ppl), backend.array(x), name=name, **mask)


@pytest.mark.parametrize("case", ["observed NaN", "infinite", "mask shape", "zero rows"])
def test_fit_refuses_the_same_data(backend, case):
    x, mask, error, message = BAD_DATA[case]
    vae = backend.api.VAE((3,), 2, hidden=(4,))
    mask = {} if mask is None else {"mask": backend.array(mask)}
    with pytest.raises(error, match=rf"(?s){message}"):
        backend.fit(vae, backend.array(x), num_steps=2, **mask)


def test_no_data(backend, ppl):
    kernel = backend.api.MWGKernel(*bernoulli_pair(ppl))
    if backend.name == "pyro":
        start = backend.api.MCMC(kernel, 2, num_warmup=0, disable_progbar=True).run
    else:
        from jax import random

        mcmc = backend.api.MCMC(kernel, num_warmup=0, num_samples=2, progress_bar=False)
        start = partial(mcmc.run, random.key(0))
    with pytest.raises(ValueError, match=r"data comes first: `mcmc\.run\("):
        start()


@pytest.mark.parametrize("name", KERNELS)
def test_complete_rows_come_back_at_once(backend, ppl, name):
    pair = bernoulli_pair(ppl)
    with pytest.warns(UserWarning, match="All 4 rows are complete"):
        mcmc = run(backend, pair, FILLED, name=name)
    draws = backend.draws(mcmc)["x"]
    np.testing.assert_array_equal(draws, np.broadcast_to(FILLED, (2, 3, 4, 3)))
    idata = backend.api.to_inference_data(mcmc)
    assert idata["posterior"]["x_missing"].shape == (2, 3, 0)
    np.testing.assert_array_equal(backend.api.completed(idata), draws)


def test_integers_with_a_mask(backend, ppl):
    def model(x):
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.Normal(0.0 * x[:, :1], 1.0).to_event(1))
            ppl.sample("x", ppl.dist.Poisson(2.0 + 0 * z + 0 * x).to_event(1), obs=x)

    mask = backend.array(MASK)

    def guide(x):
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z", ppl.dist.Normal(1.0 * x[:, :1], 1.0).to_event(1))

    pair = model, guide
    draws = backend.draws(run(backend, pair, FILLED.astype("int32"), mask=mask))["x"]
    np.testing.assert_array_equal(draws[..., MASK], np.broadcast_to(FILLED[MASK], (2, 3, 8)))


@pytest.mark.parametrize("dtype", ["int32", "uint8"])
def test_integers_of_a_continuous_likelihood(backend, ppl, dtype):
    """Imputations would be cut to whole numbers, and wrap around."""

    def model(x):
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.Normal(0.0 * x[:, :1], 1.0).to_event(1))
            ppl.sample("x", ppl.dist.Normal(z + 0 * x, 1.0).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z", ppl.dist.Normal(1.0 * x[:, :1], 1.0).to_event(1))

    with pytest.raises(TypeError, match=rf"x holds .*{dtype}.*'x' .*continuous.*as floats"):
        run(backend, (model, guide), FILLED.astype(dtype), mask=backend.array(MASK))


def counts_pair(ppl, likelihood):
    def model(x):
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.Normal(0.0 * x[:, :1], 1.0).to_event(1))
            ppl.sample("x", likelihood(z + 0.0 * x).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", x.shape[0]):
            ppl.sample("z", ppl.dist.Normal(0.0 * x[:, :1], 1.0).to_event(1))

    return model, guide


@pytest.mark.parametrize(
    ("dtype", "largest", "is_narrow"),
    [
        ("uint8", None, True), ("int16", None, True), ("int32", None, False),
        ("uint8", 255, False), ("uint8", 256, True), ("int8", 200, True), ("int16", 256, False),
    ],
)  # fmt: skip
def test_counts_that_do_not_fit(backend, ppl, dtype, largest, is_narrow):
    """Poisson (no largest) and binomial counts with mean 120: draws had wrapped around."""

    def likelihood(h):
        if largest is None:
            return ppl.dist.Poisson(120 + 0 * h)
        return ppl.dist.Binomial(largest, logits=0 * h)

    pair, x = counts_pair(ppl, likelihood), np.full((4, 3), 100, dtype)
    if is_narrow:
        bound = "of any size" if largest is None else f"up to {largest}"
        with pytest.raises(TypeError, match=rf"x holds {dtype}.*'x' .*{bound}.*astype\('int32'"):
            run(backend, pair, x, mask=backend.array(MASK))
        return
    draws = backend.draws(run(backend, pair, x, mask=backend.array(MASK)))["x"]
    assert draws.dtype == dtype
    assert draws[..., ~MASK].mean() > 80


@pytest.mark.parametrize("name", KERNELS)
def test_a_row_with_nothing_observed_is_a_prior_draw(backend, ppl, name):
    """z ~ N(0, 1) and x = z + noise of scale 1/2: variance 5/4, covariance 1."""

    def model(x):
        with ppl.plate("rows", x.shape[0]):
            z = ppl.sample("z", ppl.dist.Normal(0 * x[:, :1], 1.0).to_event(1))
            ppl.sample("x", ppl.dist.Normal(z + 0 * x, 0.5).to_event(1), obs=x)

    def guide(x):  # the exact posterior, so that pseudo-Gibbs is right as well
        with ppl.plate("rows", x.shape[0]):
            loc = 4 / 9 * x.sum(-1)[:, None]
            ppl.sample("z", ppl.dist.Normal(loc, 1 / 3).to_event(1))

    x = np.array([[NAN, NAN], [1, NAN]], "float32")
    options = {"num_particles": 30} if name == "LAIRKernel" else {}
    bias = 2 / 31 if options else 0.0  # of order 1 / (K + R), see LAIRKernel
    kernel = getattr(backend.api, name)(model, guide, **options)
    mcmc = backend.run(kernel, backend.array(x), num_warmup=50, num_samples=60, num_chains=50)
    row = backend.draws(mcmc)["x"].reshape(50, -1, 2, 2)[:, :, 0]
    for values, truth in ((row.mean(1), 0.0), ((row**2).mean(1), 1.25)):
        error = values.std(0, ddof=1) / np.sqrt(50)
        assert (np.abs(values.mean(0) - truth) < 4 * error + bias).all()


# --- options --------------------------------------------------------------------------------

BAD_OPTIONS = [
    ("LAIRKernel", {"num_particles": 0}, r"num_particles.*>= 1, got 0"),
    ("LAIRKernel", {"num_particles": 2.0}, r"num_particles.*integer.*got 2\.0"),
    ("LAIRKernel", {"num_prior": -1}, r"num_prior.*>= 0, got -1"),
    ("ACMWGKernel", {"prior_probability": 1.5}, r"prior_probability.*\[0, 1\], got 1\.5"),
    ("ACMWGKernel", {"prior_probability": NAN}, r"prior_probability.*\[0, 1\], got nan"),
    ("ACMWGKernel", {"history_size": 0}, r"history_size.*>= 1, got 0"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD_OPTIONS)
def test_options_out_of_range(backend, ppl, name, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(backend.api, name)(*bernoulli_pair(ppl), **options)


def test_model_and_guide_must_be_functions(backend, ppl):
    with pytest.raises(TypeError, match="guide must be a function of x, got NoneType"):
        backend.api.MWGKernel(bernoulli_pair(ppl)[0], None)


BAD_STARTS = {
    "unknown site": (lambda z: {**z, "u": z["z"]}, r"unknown sites \['u'\].*hand_over"),
    "shape": (lambda z: {**z, "z": z["z"][..., :1, :]}, r"init_params\['z'\].*shape"),
}


@pytest.mark.parametrize("case", BAD_STARTS)
def test_bad_starts(backend, ppl, case):
    change, message = BAD_STARTS[case]
    good = run(backend, bernoulli_pair(ppl)).last_state.z
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        run(backend, bernoulli_pair(ppl), init_params=change(good))


def test_starts_of_another_number_of_chains(backend, ppl):
    good = run(backend, bernoulli_pair(ppl)).last_state.z
    three = {k: backend.array(np.concatenate([np.asarray(v)] * 2)[:3]) for k, v in good.items()}
    with pytest.raises(ValueError, match=r"init_params|initial_params|chains"):
        run(backend, bernoulli_pair(ppl), init_params=three)


def test_bools_do_not_hold_counts(backend):
    """A Poisson's draws would all be 0 or 1."""
    ppl = words(backend)

    def model(x):
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0.0 * x[:, 0], 1.0))
            rate = 5.0 + 0 * z[:, None] + 0.0 * x
            ppl.sample("x", ppl.dist.Poisson(rate).to_event(1), obs=1 * x)

    def guide(x):
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(0.0 * x[:, 0], 1.0))

    x, mask = np.ones((3, 2), bool), np.array([[1, 0], [0, 1], [1, 1]], bool)
    kernel = backend.api.MWGKernel(model, guide)
    with pytest.raises(
        TypeError, match="x holds bool, numbers up to 1, and site 'x' can give counts"
    ):
        backend.run(kernel, backend.array(x), mask=backend.array(mask), num_samples=2, num_chains=1)
