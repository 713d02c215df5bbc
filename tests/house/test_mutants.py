"""The mutants of `make mutants` still apply: each line that they break is there."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "mutants.py"
spec = importlib.util.spec_from_file_location("mutants", PATH)
mutants = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mutants)


@pytest.mark.parametrize("twin", ["numpyro", "pyro"])
@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_line_is_there(twin, name):
    versions = mutants.MUTANTS[name]
    change = versions.get(twin, versions.get("both"))
    if change is None:
        assert set(versions) == {"numpyro"}, "keys exist in NumPyro alone"
        return
    file, old, new = change
    text = (mutants.ROOT / "ppl_vae" / "inference" / twin / file).read_text()
    assert old in text
    assert old != new
