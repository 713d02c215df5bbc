"""The modules of the example folder, which is no package."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "simkus_2023"


@pytest.fixture(scope="module")
def example_folder():
    pytest.importorskip("matplotlib")
    sys.path.insert(0, str(FOLDER))
    yield FOLDER
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def experiment(example_folder):
    return importlib.import_module("experiment")


@pytest.fixture(scope="module")
def toy_grid(example_folder):
    return importlib.import_module("toy_grid")


@pytest.fixture(scope="module")
def mnist_gmm(example_folder):
    return importlib.import_module("mnist_gmm")


@pytest.fixture(scope="module")
def tabular(example_folder):
    pytest.importorskip("sklearn")
    return importlib.import_module("tabular")


@pytest.fixture(scope="module")
def omniglot(example_folder):
    return importlib.import_module("omniglot")
