"""Named tuples of arguments with one value a row are cut and repeated as the rows are."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from host_words import FILLED, X, clear_parameters, run, words
from kernel_parts import real
from seeded_calls import call


class Further(NamedTuple):
    shift: Any
    scale: Any


@pytest.fixture
def further(backend):
    shift, scale = np.arange(4.0), np.linspace(0.5, 1, 4)
    return Further(real(backend, shift), real(backend, scale))


def pair(backend, trained=False):
    """A program of a named tuple, and the same of two arguments."""
    ppl = words(backend)

    def model(x, further):
        gain = ppl.param("gain", real(backend, 1.0)) if trained else 1.0
        with ppl.plate("rows", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(further.shift, 1.0))
            logits = gain * z[:, None] + 0 * x
            ppl.sample("x", ppl.dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x, further):
        with ppl.plate("rows", len(x)):
            ppl.sample("z", ppl.dist.Normal(further.shift, further.scale))

    def plain(program):
        return lambda x, shift, scale: program(x, Further(shift, scale))

    return (model, guide), (plain(model), plain(guide))


def test_kernels_and_estimates(backend, further):
    named, plain = pair(backend)
    found = run(backend, named, name="LAIRKernel", further=further)
    expected = run(backend, plain, name="LAIRKernel", **further._asdict())
    np.testing.assert_array_equal(backend.draws(found)["z"], backend.draws(expected)["z"])
    idata = backend.api.to_inference_data(found)
    assert idata["posterior"]["z"].shape == (2, 12, 4)

    options = {"num_particles": 9, "progress_bar": False}
    found = call(backend, "log_likelihood", named, X, further=further, **options)
    expected = call(backend, "log_likelihood", plain, X, **further._asdict(), **options)
    assert found["estimates"].equals(expected["estimates"])


def test_training(backend, further):
    options, losses = {"batch_size": 2, "num_steps": 3}, []
    named, plain = pair(backend, trained=True)
    for programs, arguments in ((named, (further,)), (plain, further)):
        clear_parameters(backend)
        losses.append(backend.fit(programs, FILLED, *arguments, **options).losses)
    np.testing.assert_array_equal(*losses)


def test_what_is_no_array_is_left_out_of_the_results(backend):
    """A tuple of arrays of different shapes is no constant that a file could hold."""
    further = Further(real(backend, np.arange(4.0)), 0.5)
    found = run(backend, pair(backend)[0], further=further)
    constants = backend.api.to_inference_data(found)["constant_data"]
    assert set(constants.data_vars) == {"mask"}
