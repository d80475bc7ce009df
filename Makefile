# LLM Lab: `make help` lists the commands. Every command sets up what it needs first.
VENV ?= .venv
BIN := $(VENV)/bin
export VENV
NOTEBOOK ?= notebooks/00_start.py

# Tests that mostly wait (for Slurm, a browser, a tour), and the others, which compute in the time that those leave.
WAITING := tests/cluster tests/face tests/lab
COMPUTING := $(filter-out $(WAITING) tests/__pycache__,$(patsubst %/,%,$(wildcard tests/*/)))
PYTEST := env OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest

.PHONY: help setup tour test test-waiting test-computing test-all check lab marimo bench gpu-check notebooks slurm-up slurm-down clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup:  ## the virtual environment (TORCH=cpu|cuda overrides what the machine suggests)
	@.ci/setup

tour: setup  ## plan, pretrain, align, evaluate and report a small model here (ARGS="--help" for options)
	@$(BIN)/lab tour $(ARGS)

test: check  ## what CI runs: style, types, floors, tests
	@$(MAKE) --no-print-directory -j2 test-waiting test-computing

test-waiting:
	$(PYTEST) -m "not slow" $(WAITING) $(ARGS)

test-computing:
	nice -n 10 $(PYTEST) -m "not slow" --timeout=900 $(COMPUTING) $(ARGS)

test-all: check  ## everything, the slow tests too
	$(PYTEST) $(ARGS)

check: setup  ## style, types and the floors of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lab: setup  ## JupyterLab on loopback, with a token
	$(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 --notebook-dir=notebooks

marimo: setup  ## the notebooks in marimo, on loopback, with a token (NOTEBOOK=...)
	$(BIN)/marimo edit --host 127.0.0.1 $(NOTEBOOK)

notebooks: setup  ## regenerate the .ipynb twins from the marimo sources
	@for source in notebooks/[0-9]*.py; do $(BIN)/marimo export ipynb $$source -o $${source%.py}.ipynb -f; done

bench: setup  ## measure against peers in the same run; results as JSON under bench/results
	@mkdir -p bench/results
	@for file in bench/bench_*.py; do echo $$file; $(BIN)/python $$file; done
	@for what in pairs memory growth; do $(BIN)/python -m bench.train $$what | tee bench/results/train-$$what.json; done

gpu-check: setup  ## every GPU path that exists, on one GPU, with a record of what was exercised
	@$(BIN)/python bench/gpu_check.py

slurm-up: setup  ## a real Slurm on this machine, four nodes with accounting (Debian, root; ARGS="--gpus 8")
	@.ci/slurm
	@$(BIN)/python -m cluster.dev up $(ARGS)
	@echo 'Then: eval "$$($(BIN)/python -m cluster.dev env)"; lab submit RECIPE --profile slurm-dev'

slurm-down: setup  ## end it and leave no trace
	@$(BIN)/python -m cluster.dev down --wipe

clean:  ## remove caches, never runs
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
