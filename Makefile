# Every target makes what it needs: the first run installs the pinned packages into .venv, later ones start in seconds.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test faults check bench clean

demo: .venv/.installed
	@$(BIN)/tradetape demo

# Most tests wait for a service, so three at a time, each with services of its own, take less than half of the time.
# The order of files is tests/conftest.py's: by their number of tests, the slow ones would come last.
test: .venv/.installed
	$(BIN)/python -m pytest -m "not long" -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(PYTEST_ARGS)

faults: .venv/.installed
	$(BIN)/python -m pytest -m long $(PYTEST_ARGS)

check: .venv/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/tradetape schemas check

bench: .venv/.installed
	$(BIN)/python -m bench

clean:
	-@test ! -x $(BIN)/tradetape || $(BIN)/tradetape down --wipe
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tradetape needs Python 3.11 or newer: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]' --group dev
	@touch $@
