"""Schedules of any kind of numbers; their values in training are in tests/inference."""

import numpy as np
import pytest

from ppl_vae.schedules import Stages


@pytest.mark.parametrize("kind", [tuple, list, np.array])
def test_stages_of_any_sequence(kind):
    stages = Stages(kind([1.0, 0.1]), kind([2, 3]))
    assert [stages(step) for step in (0, 1, 2, 4, 9)] == [1.0, 1.0, 0.1, 0.1, 0.1]
    assert stages.ends == (2, 5)
    assert type(stages(0)) is float


def test_stages_of_arrays_are_those_of_tuples():
    assert Stages(np.array([1.0, 0.1]), np.array([2, 3])) == Stages((1.0, 0.1), (2, 3))


def test_bad_stages_of_arrays():
    with pytest.raises(ValueError, match="got 0 values and 1 lengths"):
        Stages(np.array([]), np.array([1]))
    with pytest.raises(ValueError, match="the length of a stage must be at least 1, got 0"):
        Stages(np.array([1.0]), np.array([0]))
