# Each target makes the virtual environment it needs. Another Python beside the first:
#   make test PYTHON=python3.12 VENV=.venv-3.12
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Arguments for pytest: make test PYTEST="-k resume"
PYTEST ?=

.PHONY: demo demo-tasks prove test test-long lint types format clean

demo: $(VENV)/.core
	$(BIN)/python -m musicssl_jax.demo

# Proof that it learns: arms, controls and baselines, under an hour on two cores. The same command goes on.
prove: $(VENV)/.core
	$(BIN)/python -m benchmarks.learning

demo-tasks: $(VENV)/.core
	$(BIN)/python -m musicssl_jax.demo_tasks

# The tests of a file one after the other: they share what is dear, and the TPU's compiler serves one at a time.
SIDE_BY_SIDE := -n 2 --dist loadfile

test: $(VENV)/.test
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not long" $(PYTEST)

test-long: $(VENV)/.test $(VENV)/.tpu
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m long $(PYTEST)

lint: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.test
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

# torch is only a reference to test against: one version, on the one Python that it is pinned for. Elsewhere the
# tests that need it are skipped and say why.
$(VENV)/.test: pyproject.toml $(VENV)/.core
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; \
	then $(BIN)/python -m pip install --quiet torch==2.13.0; fi
	touch $@

# The TPU's compiler, which needs no TPU (Linux on x86-64 alone): elsewhere its tests are skipped and say why.
$(VENV)/.tpu: $(VENV)/.test
	if $(BIN)/python -c 'import platform, sys; sys.exit((platform.system(), platform.machine()) != ("Linux", "x86_64"))'; \
	then $(BIN)/python -m pip install --quiet --editable '.[tpu]'; fi
	touch $@
