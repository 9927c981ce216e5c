# Two commands, each enough alone on a fresh machine with Python 3.11 or newer:
#   make demo    draw pictures with the built-in model
#   make check   the whole gate
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PINS := pyproject.toml constraints.txt
CODE := src tests tools benchmarks

# One thread a test process: two processes with two threads each on two cores are four times slower.
check test: export OMP_NUM_THREADS := 1
# Tests begin many processes, and none is to compile the package anew because the environment wants it unwritten.
check test: export PYTHONDONTWRITEBYTECODE :=
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help demo check test bench format clean

help:
	@echo "make demo     draw pictures with the built-in model"
	@echo "make check    the whole gate: format, lint, types, tests with coverage"
	@echo "make test     tests alone; make test ARGS='tests/core -x' for some of them"
	@echo "make bench    how fast it is here, beside others; about half an hour"
	@echo "make format   put the code in order"
	@echo "make clean    remove the environment and what tools left"

demo: $(VENV)/.core
	$(BIN)/darkroom sample --count 16 --grid --out demo
	@echo "The pictures are in $(CURDIR)/demo; demo/grid.png shows them all."

check: $(VENV)/.dev
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/pyright
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov=darkroom --cov-report=term:skip-covered --cov-fail-under=90

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/speed.py step step-large decode run training shapes --out benchmarks/speed.json
	$(BIN)/python benchmarks/memory.py decode --into benchmarks/speed.json
	$(BIN)/python benchmarks/page.py benchmarks/speed.json docs/performance.md

format: $(VENV)/.dev
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

clean:
	rm -rf $(VENV) build .pytest_cache .ruff_cache .hypothesis .coverage demo

# pip would compile all that it installs on one core; here every core does, and the tests of others are left alone.
INSTALL = $(BIN)/python -m pip install --quiet --no-compile -c constraints.txt
COMPILE = $(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true

# Stamps: nothing is installed again until a pin or a dependency changes.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "darkroom: Python 3.11 or newer is needed, and '$(PYTHON)' is missing or older; try make PYTHON=python3.12" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.core: $(VENV)/.made $(PINS)
	$(INSTALL) -e .
	$(COMPILE)
	@touch $@

$(VENV)/.dev: $(VENV)/.made $(PINS)
	$(INSTALL) -e ".[dev]"
	$(COMPILE)
	@touch $(VENV)/.core $@
