# `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
READY := $(VENV)/.ready
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help run test lint format audit lock client bench-scale clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

run: $(READY) ## Set up, then run the server on 127.0.0.1:8000 with a database of its own
	@$(BIN)/tasks-api serve

test: $(READY) ## Set up, then run all tests
	$(BIN)/python -m pytest -n $(WORKERS)

lint: $(READY) ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

audit: $(READY) ## Look for known vulnerabilities in the locked packages
	@$(BIN)/python -m tests.audit

lock: $(READY) ## Pin the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --upgrade --no-header \
		--no-emit-index-url --no-emit-find-links --quiet --extra dev pyproject.toml --output-file requirements.lock

client: client/node_modules/.ready ## Generate TypeScript types from the contract (needs Node)
	cd client && npm run --silent generate

bench-scale: $(READY) ## Print and plot what a page of a list costs from 1,000 to 1,000,000 tasks (needs matplotlib)
	$(BIN)/python -m bench.scale

clean: ## Remove the virtual environment and what the tools leave behind; .data stays
	rm -rf $(VENV) build .pytest_cache .ruff_cache .mypy_cache .hypothesis .schemathesis \
		client/node_modules client/schema.d.ts

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed. Name one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $(READY)

client/node_modules/.ready: client/package.json client/package-lock.json
	cd client && npm ci --no-audit --no-fund
	@touch $@
