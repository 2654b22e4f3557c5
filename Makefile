# `make quickstart` and `make test` need Python 3.10 or newer with pip, nothing else.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test slow lint docs wheel bench clean

quickstart: .venv/made
	$(BIN)/python -m realsr.quickstart

test: .venv/made
	$(BIN)/python -m pytest -n $$($(PYTHON) -c "import os; print(min(os.cpu_count() + 1, 4))") --dist loadfile

slow: .venv/made
	$(BIN)/python -m pytest -m slow

lint: .venv/made
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/made                # site/; a broken link between its pages ends it
	$(BIN)/zensical build --clean --strict

wheel: .venv/made               # dist/: one file that pip installs anywhere, conf/ inside
	$(BIN)/python -m build --wheel --outdir dist

bench: .venv/made
	for bench in tests/benchmarks/bench_*.py; do $(BIN)/python $$bench --quick || exit 1; done

.venv/made: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist site .cache .pytest_cache .mypy_cache .ruff_cache
