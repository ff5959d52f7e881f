# Every target works on a fresh clone with Python 3.11 or newer and the package registries.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
KERNELS := $(VENV)/.kernels
SUPPLY := $(VENV)/supply
SBOM ?= dist/sbom.cdx.json
SHARED := $(abspath $(CURDIR)/../shared/data)
export RHYTHMWATCH_DATA ?= $(if $(wildcard $(SHARED)/mitdb),$(SHARED),$(wildcard $(CURDIR)/data))

.PHONY: demo install test chaos lint sbom audit evaluate bench clean

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

# Half an hour at most: processes are killed again and again under 200 patients. How long each storm took is said last.
chaos: install $(KERNELS)
	./scripts/services
	$(BIN)/python -m pytest tests/chaos -s --durations=0 --durations-min=1 $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Tools that look at the environment have one of their own, so that they are not in what they list.
$(SUPPLY)/.installed: $(STAMP) scripts/supply.lock
	$(PYTHON) -m venv $(SUPPLY)
	$(SUPPLY)/bin/python -m pip install --quiet --require-hashes --requirement scripts/supply.lock
	touch $@

# CycloneDX, with licences and what needs what. The tool's own check of its output takes half a minute.
sbom: install $(SUPPLY)/.installed
	mkdir -p $(dir $(SBOM))
	$(SUPPLY)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --no-validate \
		--output-format JSON --output-file $(SBOM) $(BIN)/python

# AUDIT=--osv-url=... asks a service of your own.
audit: $(SUPPLY)/.installed
	$(SUPPLY)/bin/python scripts/audit.py requirements.lock $(AUDIT)

evaluate: install $(KERNELS)
	$(BIN)/rhythmwatch evaluate $(ARGS)

bench: install $(KERNELS)
	$(BIN)/rhythmwatch bench latency $(ARGS)
	$(BIN)/rhythmwatch bench stages $(ARGS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .rhythmwatch
