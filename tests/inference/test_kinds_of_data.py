"""Data as users have them: data frames, lists of labels, reversed arrays, another site."""

import numpy as np
import pandas as pd
import pytest
from host_words import FILLED, MASK, X, bernoulli_pair, clear_parameters, run, words
from kernel_parts import real
from seeded_calls import call
from small_training import X as SMALL
from small_training import small_vae

LABELS = np.array([2.0, -1.0, 0.0, 3.0], "float32")


def labelled(backend):
    """x ~ N(gain (z + label), 1), z ~ N(0, 1); the label is used as it comes."""
    ppl = words(backend)

    def model(x, label):
        gain = ppl.param("gain", real(backend, 1.0))
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0 * x[:, 0], 1.0))
            loc = gain * (z + label)[:, None] + 0 * x
            ppl.sample("x", ppl.dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x, label):
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(0.1 * label, 1.0))

    return model, guide


@pytest.mark.parametrize("kind", [list, pd.Series])
def test_labels_go_with_their_rows_whatever_holds_them(backend, kind):
    """Shuffled, cut into blocks and repeated for chains as an array of them is."""

    def losses(labels):
        clear_parameters(backend)
        options = {"num_steps": 3, "batch_size": 4}
        return backend.fit(labelled(backend), 10 * FILLED, labels, **options).losses

    given = kind(LABELS.tolist())
    np.testing.assert_array_equal(losses(given), losses(LABELS.astype("float64")))

    ppl, rows = words(backend), np.zeros((70, 3), "float32")  # in blocks of 32 rows
    model, guide = labelled(backend)
    if backend.name == "numpyro":
        gain = {"gain": real(backend, 1.0)}
        model, guide = (ppl.handlers.substitute(fn, data=gain) for fn in (model, guide))
    many = np.arange(70.0)
    options = {"num_particles": 3, "progress_bar": False}
    found, expected = (
        call(backend, "log_likelihood", (model, guide), rows, label=labels, **options)["estimates"]
        for labels in (kind(many.tolist()), backend.array(many))
    )
    np.testing.assert_allclose(found["log_likelihood"], expected["log_likelihood"], rtol=1e-5)


@pytest.mark.parametrize("kind", ["data frame", "reversed"])
def test_data_are_what_numpy_reads_in_them(backend, kind):
    def given(array):
        return pd.DataFrame(array) if kind == "data frame" else array[::-1].copy()[::-1]

    pair = bernoulli_pair(words(backend))
    for options in ({}, {"mask": MASK}):
        x = FILLED if options else X
        held = {name: given(value) for name, value in options.items()}
        kernel = backend.api.MWGKernel(*pair)
        found, expected = (
            backend.draws(backend.run(kernel, data, num_samples=3, num_chains=2, **more))["x"]
            for data, more in ((given(x), held), (backend.array(x), options))
        )
        np.testing.assert_array_equal(found, expected)
    found, expected = (
        backend.fit(small_vae(backend), x, num_steps=3).losses for x in (given(SMALL), SMALL.copy())
    )
    np.testing.assert_array_equal(found, expected)


def test_masked_arrays_are_refused(backend):
    x = np.ma.array(FILLED, mask=~MASK)
    with pytest.raises(TypeError, match=r"masked array.*x\.data with mask="):
        backend.fit(bernoulli_pair(words(backend)), x, num_steps=3)


@pytest.mark.parametrize("objective", ["elbo", "iwae", "analytic-elbo", "forward-kl"])
def test_a_site_that_the_model_has_not_is_named_in_training(backend, objective):
    pair = bernoulli_pair(words(backend), data_site="obs")
    with pytest.raises(ValueError, match=r"no site 'x', only \['obs'.*`site=\.\.\.`"):
        backend.fit(pair, FILLED, objective=objective, num_steps=2)
    with pytest.raises(ValueError, match=r"no observed site 'x'"):
        run(backend, pair)


def test_pyro_says_what_type_the_data_should_have():
    """A data frame holds doubles, torch's nets floats."""
    pyro, torch = pytest.importorskip("pyro"), pytest.importorskip("torch")
    from ppl_vae.pyro import MCMC, MWGKernel

    net = torch.nn.Linear(2, 1)

    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(len(x)), 1.0))
            likelihood = pyro.distributions.Normal(z[:, None].expand(-1, 2), 1.0)
            pyro.sample("x", likelihood.to_event(1), obs=x)

    def guide(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", pyro.distributions.Normal(net(x)[:, 0], 1.0))

    with pytest.raises(ValueError, match=r"x is torch\.float64.*x\.float\(\)"):
        MCMC(MWGKernel(model, guide), 2).run(np.array([[0.5, np.nan], [1.0, 2.0]]))
