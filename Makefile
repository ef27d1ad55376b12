# Everything is set up by itself: `make demo` or `make test` on a fresh clone is enough.
#
#   PYTHON=python3.12      the interpreter that the environment is made with (3.11 or newer)
#   TORCH_INDEX=URL        take torch from another package index, for example a CPU-only one
#   PYTEST_ARGS='-k demo'  passed on to pytest
#   WORKERS=4              processes that run tests beside each other; each takes about 2 GB

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH_INDEX ?=
PYTEST_ARGS ?=
# One more than two cores: tests wait for processes a quarter of their time.
WORKERS ?= 3
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help env demo test test-fast lint format docs clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

env: $(STAMP) ## create .venv and install everything at the pinned versions

# torch goes first and pinned: resolved together with the rest, a dependency could pull in another
# build of it.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "EQCCTPro needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e '.[weights,dev,docs]'
	@touch $(STAMP)

demo: env ## pick a small network and print where the picks and the picture are
	$(BIN)/eqcctpro demo

test: env ## run all tests
	$(PYTEST) $(PYTEST_ARGS)

test-fast: env ## run the tests that are not slow, in two minutes
	$(PYTEST) -m 'not slow' $(PYTEST_ARGS)

lint: env ## ruff check, ruff format --check, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: env ## reformat and sort imports
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: env ## build the documentation as a web site, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo build/site/index.html

clean: ## remove the environment, caches, build products and the demo's output
	rm -rf $(VENV) build dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
