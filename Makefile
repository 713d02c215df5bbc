# The two commands of the README: `make demo` and `make test`. Each sets up .venv by itself.

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell command -v $(p))))
BIN := .venv/bin
STAMP := .venv/installed
CODE := ppl_vae tests examples benchmarks
export PYTHONUNBUFFERED := 1
# The nets are small: threads of torch would only wait for each other.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test style test-shell test-examples test-slow mutants clean

demo: $(STAMP)
	$(BIN)/python examples/quickstart/quickstart_numpyro.py
	$(BIN)/python examples/quickstart/quickstart_pyro.py

test: style test-shell $(STAMP)
	$(BIN)/python -m pytest -q -n 2 -m "not slow and not script" --doctest-modules ppl_vae tests

style: $(STAMP)
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy

test-shell: $(STAMP)
	$(BIN)/python tests/house/without.py torch pyro jax jaxlib flax numpyro -- -q tests/shell

test-examples: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 -m "script and not slow" tests

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m slow --doctest-modules ppl_vae tests

mutants: $(STAMP)
	$(BIN)/python tests/mutants.py

clean:
	rm -rf .venv .venv-arviz1 out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python found: install Python 3.11 or newer."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11: give another, make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	touch $(STAMP)
