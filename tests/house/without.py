"""Run pytest as if some packages were not installed.

Usage: python tests/house/without.py torch jax -- -q tests/shell
"""

import sys

import pytest


class Absent:
    """An import finder that refuses the packages named on the command line."""

    def __init__(self, names):
        self.names = set(names)

    def find_spec(self, fullname, path=None, target=None):
        if fullname.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname.split(".")[0])


if __name__ == "__main__":
    split = sys.argv.index("--")
    sys.meta_path.insert(0, Absent(sys.argv[1:split]))
    raise SystemExit(pytest.main(sys.argv[split + 1 :]))
