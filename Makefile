# `make fit` and `make test` set up everything they need, the virtual environment included.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
# nproc takes OMP_NUM_THREADS for the number of cores.
CORES := $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)

.DEFAULT_GOAL := help
.PHONY: help install fit test test-slow test-gpu test-lowest test-all notebooks docs lint format clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "no virtual environment: on Debian and Ubuntu, apt install python3-venv"; exit 1; }

$(VENV)/.run: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q -e '.[weights]'
	@touch $@

$(VENV)/.dev: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q -e '.[dev]'
	@touch $@ $(VENV)/.run

install: $(VENV)/.dev  ## virtual environment with the library and its development tools

fit: $(VENV)/.run  ## train Gated-SCNN on drawn street scenes (3 minutes on one core of an AMD EPYC); ARGS="--trainer.max_epochs 3"
	$(BIN)/gscnn-fit --config scenes $(ARGS)

test: $(VENV)/.dev  ## the test suite without its slow part, a process per core
	$(BIN)/python -m pytest -q -m "not slow and not gpu" -n $(CORES) --dist worksteal $(ARGS)

test-slow: $(VENV)/.dev  ## the slow part alone: trainings on real frames, the built wheel, large pictures
	$(BIN)/python -m pytest -q -m slow $(ARGS)

test-gpu: $(VENV)/.dev  ## what only an NVIDIA GPU can show
	$(BIN)/python -m pytest -q -m gpu $(ARGS)

LOWEST := $(VENV)-lowest
test-lowest: $(LOWEST)/.dev  ## the test suite with the lowest versions that setup.cfg allows
	$(LOWEST)/bin/python -m pytest -q -m "not slow and not gpu" -n $(CORES) --dist worksteal $(ARGS)

$(LOWEST)/.dev: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install -q uv
	$(LOWEST)/bin/uv pip install -q --python $(LOWEST)/bin/python --resolution lowest-direct -e '.[dev]'
	@touch $@

test-all: test test-slow  ## the whole test suite

notebooks: $(VENV)/.dev  ## run every notebook with a real kernel
	$(BIN)/python -m pytest -q tests/test_notebooks.py $(ARGS)

docs: $(VENV)/.dev  ## the documentation as a site in build/docs, every warning an error (about a minute)
	$(BIN)/python -m sphinx -E -W --keep-going -q -d build/doctrees docs build/docs
	@echo "open build/docs/index.html"

lint: $(VENV)/.dev  ## ruff, mypy, and the contract of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## let ruff rewrite the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what the other targets made, except runs/
	rm -rf $(VENV) $(LOWEST) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
