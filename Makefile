# Every target works on a fresh clone with Python 3.11 or newer and the package registries.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
KERNELS := $(VENV)/.kernels
SHARED := $(abspath $(CURDIR)/../shared/data)
export RHYTHMWATCH_DATA ?= $(if $(wildcard $(SHARED)/mitdb),$(SHARED),$(wildcard $(CURDIR)/data))

.PHONY: demo install test chaos lint evaluate bench clean

demo: install $(KERNELS)
	$(BIN)/rhythmwatch demo $(ARGS)

install: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[train,dev]'
	touch $(STAMP)

# Compiled ahead, so that no service waits for a compiler when it starts.
$(KERNELS): $(STAMP) $(wildcard dsp/*.py inference/*.py)
	$(BIN)/rhythmwatch warm
	touch $(KERNELS)

test: install $(KERNELS)
	./scripts/services
	$(BIN)/python -m pytest $(ARGS)

# Half an hour at most: processes are killed again and again under 200 patients.
chaos: install $(KERNELS)
	./scripts/services
	$(BIN)/python -m pytest tests/chaos -s $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

evaluate: install $(KERNELS)
	$(BIN)/rhythmwatch evaluate $(ARGS)

bench: install $(KERNELS)
	$(BIN)/rhythmwatch bench latency $(ARGS)
	$(BIN)/rhythmwatch bench stages $(ARGS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .rhythmwatch
