# Everything starts from Python >= 3.11 and make; `make help` lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo serve env check test test-unit chaos bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## Make .venv with everything in it

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[api,core,local,demo,dev]'
	touch $@

demo: setup ## Distil an MNIST teacher through the service, without one digit; writes demo_output/
	$(BIN)/python -m examples.demo

serve: setup ## Run the whole service on this machine until Ctrl-C
	$(BIN)/nayer serve

env: ## Write .env for docker compose: .env.example with five new secrets, for its owner's eyes only
	@if [ -e .env ]; then echo '.env exists and stays as it is'; else \
	    umask 077; \
	    while IFS= read -r line; do \
	        case $$line in [A-Z]*=) line=$$line$$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n') ;; esac; \
	        printf '%s\n' "$$line"; \
	    done <.env.example >.env.new && mv .env.new .env; \
	fi

check: setup ## Format, lint, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup ## Run the whole test suite
	$(BIN)/python -m pytest

test-unit: setup ## Run the tests that start no program and no server, in less than a minute
	OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m unit

KILLS ?= 25
JOBS ?= 1000

chaos: setup ## Break the service in every way the matrix names (KILLS=200 JOBS=10000 for longer)
	$(BIN)/python -m tests.chaos --kills $(KILLS) --jobs $(JOBS)

bench: setup ## Measure the core's speed and its short runs on this machine (needs ../shared/data)
	$(BIN)/python -m benchmarks.bench

clean: ## Remove the virtual environment and what runs left behind
	rm -rf $(VENV) demo_output build *.egg-info .mypy_cache .ruff_cache .import_linter_cache
