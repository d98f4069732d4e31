# `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
READY := $(VENV)/.ready
BENCH_READY := $(VENV)/.bench-ready
WORKERS ?= 2
EXAMPLES ?= 100
COMPILE = $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --upgrade \
	--no-header --no-emit-index-url --no-emit-find-links --quiet
CONTRACT := openapi/contracts/rest-api.yaml

.DEFAULT_GOAL := help
.PHONY: help run test mutate coverage fuzz replay lint lint-contract format policies settings audit bench bench-cores bench-scale lock client clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 15

run: $(READY) ## Set up, then run the server on 127.0.0.1:8000 with a database of its own
	@$(BIN)/tasks-api serve

test: $(READY) ## Set up, then run the tests; T=--all for all, T="tests/test_tasks.py -k toggle" for some
	$(BIN)/python -m pytest -n $(WORKERS) $(T)

coverage: $(READY) ## List the lines and branches that no test reaches, those under load apart
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(WORKERS) --all -m "not load and not unmeasured"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

mutate: $(READY) ## Change the contract in every way and see that the tests notice; SAMPLE=40 for some
	$(BIN)/python -m tools.mutate $(if $(SAMPLE),--sample $(SAMPLE)) --workers $(WORKERS)

fuzz: $(READY) ## Fuzz the server on both hosts; EXAMPLES=1000 for longer, SEED=1 for the same again
	$(BIN)/python -m tools.fuzz --examples $(EXAMPLES) $(if $(SEED),--seed $(SEED))

replay: $(READY) ## Send the failures of a record again: RECORD=build/fuzz/asgi-1, or one file of its crashes
	$(BIN)/python -m tools.fuzz --replay $(or $(RECORD),$(error Say which: make replay RECORD=build/fuzz/asgi-1))

lint: $(READY) ## Check style, types and the contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/openapi-spec-validator $(CONTRACT)
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory lint-contract; \
	else echo "The contract's linters were left out: they need Node 20.19 or later with npm."; test -z "$$CI"; fi

lint-contract: lint/node_modules/.ready ## Only what checks the contract and needs Node: rules, OWASP's too, and compatibility
	lint/node_modules/.bin/spectral lint --quiet --ruleset lint/spectral.yaml --fail-severity hint $(CONTRACT)
	REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true \
		lint/node_modules/.bin/redocly lint --extends recommended-strict $(CONTRACT)
	$(BIN)/python lint/compatibility.py

format: $(READY) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

policies: $(READY) ## Write the row-level security of the finished schema to models/policies.sql
	@$(BIN)/python -m tools.policies

settings: $(READY) ## Write docs/settings.md and .env.example from the settings' own descriptions
	$(BIN)/python -m tools.settings_reference

audit: $(READY) ## Look for known vulnerabilities in the locked packages
	@$(BIN)/python -m tools.audit

bench: $(BENCH_READY) ## Measure the service against others, in twenty minutes (needs wrk); OPTIONS="--help" tells more
	$(BIN)/python -m bench $(OPTIONS)

bench-cores: $(BENCH_READY) ## Measure two workers, memory and start-up (needs wrk)
	$(BIN)/python -m bench.cores $(OPTIONS)

bench-scale: $(BENCH_READY) ## Print and plot what a page of a list costs from 1,000 to 1,000,000 tasks
	$(BIN)/python -m bench.scale

lock: $(READY) ## Pin the newest versions that pyproject.toml allows
	$(COMPILE) --extra dev --output-file requirements.lock
	$(COMPILE) --extra bench --constraint requirements.lock --output-file requirements-bench.lock

client: client/node_modules/.ready ## Generate TypeScript types from the contract (needs Node)
	cd client && npm run --silent generate

clean: ## Remove the virtual environment and what the tools leave behind; .data stays
	rm -rf $(VENV) build .pytest_cache .ruff_cache .mypy_cache .hypothesis .schemathesis \
		client/node_modules client/schema.d.ts lint/node_modules bench/peers/fastify/node_modules

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed. Name one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $(READY)

# Node's peer is left out where there is no Node.
$(BENCH_READY): $(READY) requirements-bench.lock bench/peers/fastify/package-lock.json
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-bench.lock
	@if command -v npm >/dev/null; then cd bench/peers/fastify && npm ci --no-audit --no-fund; fi
	@touch $@

client/node_modules/.ready lint/node_modules/.ready: %/node_modules/.ready: %/package.json %/package-lock.json
	cd $* && npm ci --no-audit --no-fund
	@touch $@
