# A fresh checkout needs Python 3.11 or later and make; every target makes .venv by itself.

CANDIDATES = python3.11 python3 python3.12 python3.13
PYTHON ?= $(firstword $(foreach p,$(CANDIDATES),$(shell $(p) -c "import sys; sys.version_info >= (3, 11) and print('$(p)')" 2>/dev/null)))
BIN = .venv/bin
INSTALLED = .venv/installed

.PHONY: demo test test-slow check oldest format

demo: $(INSTALLED)
	$(BIN)/synthaug demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -q

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -q -m slow

# format, lint, types, the import table, the code in the docs; `make test` runs everything else
check: $(INSTALLED)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py
	$(BIN)/python -m pytest -q --doctest-glob='*.md' README.md docs

# whether the oldest releases that pyproject.toml allows still go together: only their descriptions are read
oldest: $(INSTALLED)
	$(BIN)/python -m pip install -q --dry-run --ignore-installed --constraint .ci/oldest.txt .

format: $(INSTALLED)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

$(INSTALLED): pyproject.toml
	@test -n "$(PYTHON)" || { echo "synthaug needs Python 3.11 or later, none of '$(CANDIDATES)' is one; install it, or run: make PYTHON=/path/to/python" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -e '.[dev]'
	@touch $@
