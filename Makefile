# Every target works on a fresh clone with Python 3.11 or newer and the package registries.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SHARED := $(abspath $(CURDIR)/../shared/data)
export RHYTHMWATCH_DATA ?= $(if $(wildcard $(SHARED)/mitdb),$(SHARED),$(wildcard $(CURDIR)/data))

.PHONY: demo install test lint evaluate bench clean

demo: install
	$(BIN)/rhythmwatch demo $(ARGS)

install: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[train,dev]'
	$(BIN)/rhythmwatch warm
	touch $(STAMP)

test: install
	./scripts/services
	$(BIN)/python -m pytest $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

evaluate: install
	$(BIN)/rhythmwatch evaluate $(ARGS)

bench: install
	$(BIN)/rhythmwatch bench $(ARGS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .rhythmwatch
