# Everything a fresh machine with Python >= 3.11 and make needs. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help

help:  ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(VENV)/runtime: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Parley needs Python 3.11 or newer; say which: make PYTHON=python3.12 …"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'Setting up .venv (once; it takes a minute or two) …'
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --no-index --editable .
	@touch $@

$(VENV)/dev: requirements-dev.txt $(VENV)/runtime
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.txt
	@touch $@

setup: $(VENV)/runtime  ## Make the virtual environment

serve: $(VENV)/runtime assets  ## Serve Parley at http://127.0.0.1:8000/graphql
	@exec $(BIN)/parley serve

test: $(VENV)/dev  ## Run the tests, by so many processes: make test WORKERS=4
	PYTHONHASHSEED=0 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

check: $(VENV)/dev  ## Run lint, types, import contracts, and the checks for drift
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	@$(BIN)/parley schema | diff -u schema.graphql - \
	  || { echo 'schema.graphql is behind: run `make schema`'; exit 1; }
	@$(BIN)/python -m tests.schema_lint.lint
	$(BIN)/python -m pytest -q tests/db/test_migrations.py

schema: $(VENV)/runtime  ## Write schema.graphql from the code
	$(BIN)/parley schema > schema.graphql

assets:  ## Fetch GraphiQL's files with npm, so that it works offline
	@$(PYTHON) -m graphql_api.static_assets

bench-retrieval: $(VENV)/dev  ## Measure retrieval on Debian's postgresql-doc-15 and python3-doc
	$(BIN)/python benchmarks/retrieval/run.py

bench-search: $(VENV)/dev  ## Measure the embedded vector store with 10,000 chunks
	$(BIN)/python -m benchmarks.search_latency

bench-streaming: $(VENV)/dev  ## Measure streaming: WAL, memory per follower, gaps
	$(BIN)/python -m benchmarks.streaming

bench-caching: $(VENV)/dev  ## Measure what remembering is worth
	$(BIN)/python -m benchmarks.caching

bench-poolers: $(VENV)/dev  ## Measure the pool against NullPool, behind PgBouncer
	$(BIN)/python -m benchmarks.poolers

lock: ## Write the lock files anew (needs uv)
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
	  --python-version 3.11 pyproject.toml --group build -o requirements.txt
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
	  --python-version 3.11 pyproject.toml --group test --group dev -c requirements.txt \
	  -o requirements-dev.txt

clean:  ## Remove the virtual environment (not your data)
	rm -rf $(VENV)

.PHONY: help setup serve test check schema assets bench-retrieval bench-search bench-streaming bench-caching bench-poolers lock clean
