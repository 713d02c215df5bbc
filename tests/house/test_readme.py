"""The README's code runs as it stands, and the README stays short."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_at_most_80_lines():
    assert len(README.splitlines()) <= 80


@pytest.mark.script
@pytest.mark.parametrize("twin", ["numpyro", "pyro"])
def test_the_example_runs(twin):
    (block,) = [b for b in BLOCKS if f"ppl_vae.{twin} " in b]
    check = "assert idata['posterior']['x_missing'].shape == (4, 1000, 640)\n"
    run = subprocess.run([sys.executable, "-c", block + check], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_picture_is_there():
    (picture,) = re.findall(r"!\[.*?\]\((.*?)\)", README, re.DOTALL)
    assert (ROOT / picture).exists()
