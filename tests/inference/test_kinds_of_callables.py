"""Programs that are no plain functions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from host_words import FILLED, X, bernoulli_pair, run, words
from kernel_parts import module, real
from seeded_calls import call


@dataclass
class Unhashable:
    """Dataclasses are compared by their fields, and have no hash."""

    fn: Any

    def __call__(self, x):
        self.fn(x)

    def asking(self, x, mask):
        self.fn(x)


@dataclass(slots=True)
class Slotted(Unhashable):
    """To this, no weak reference can be made."""


def two_sites(backend):
    """A guide that is run again at other values of its sites."""
    ppl = words(backend)

    def model(x):
        shift = ppl.param("shift", real(backend, 0.0))
        with ppl.plate("rows", len(x)):
            first = ppl.sample("first", ppl.dist.Normal(0 * x[:, :1], 1.0).to_event(1))
            second = ppl.sample("second", ppl.dist.Normal(first, 1.0).to_event(1))
            ppl.sample("x", ppl.dist.Bernoulli(logits=second + shift + 0 * x).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("rows", len(x)):
            first = ppl.sample("first", ppl.dist.Normal(x[:, :1], 1.0).to_event(1))
            ppl.sample("second", ppl.dist.Normal(first, 1.0).to_event(1))

    return model, guide


@pytest.mark.parametrize("kind", [Unhashable, Slotted])
def test_callables_without_a_hash_are_sampled(backend, kind):
    pair = bernoulli_pair(words(backend))
    with pytest.raises(TypeError, match="unhashable"):
        hash(kind(pair[0]))
    found, expected = (
        backend.draws(run(backend, programs)) for programs in (map(kind, pair), pair)
    )
    for site, values in expected.items():
        np.testing.assert_array_equal(found[site], values)


@pytest.mark.parametrize("kind", [Unhashable, Slotted])
def test_callables_without_a_hash_are_weighed_and_trained(backend, kind):
    pair, options = bernoulli_pair(words(backend)), {"num_particles": 9, "progress_bar": False}
    found, expected = (
        call(backend, "log_likelihood", programs, X, **options)
        for programs in (tuple(map(kind, pair)), pair)
    )
    assert found["estimates"].equals(expected["estimates"])

    pair, iwae = two_sites(backend), backend.api.IWAE(num_particles=3)
    found, expected = (
        backend.fit(programs, FILLED, objective=iwae, num_steps=2).losses
        for programs in (tuple(map(kind, pair)), pair)
    )
    np.testing.assert_array_equal(found, expected)


def test_parameters_are_those_of_the_callable(backend):
    accepts_mask = module(backend, "program").accepts_mask
    one = Unhashable(None)
    for _ in range(2):
        assert accepts_mask(one.asking)
        assert not accepts_mask(one)
        assert not accepts_mask(Slotted(None))
