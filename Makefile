.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= python3
VENV ?= .venv
WORKSPACE ?= workspace
DEMO ?= demo
PROCESSES ?= 2
MINUTES ?= 10

# Without TRAIN, everything runs on the demo catalogue.
ifdef TRAIN
CATALOG :=
else
TRAIN := $(DEMO)/train.csv
TEST := $(DEMO)/test.csv
IMAGES := $(DEMO)/images
CATALOG := $(DEMO)/train.csv
endif
FILES := --train '$(TRAIN)' $(if $(TEST),--test '$(TEST)') $(if $(IMAGES),--images '$(IMAGES)')

BIN := $(VENV)/bin
SHELFPRICE := $(BIN)/shelfprice
INSTALLED := $(VENV)/.installed
CONTRIBUTES := $(VENV)/.installed-dev

.PHONY: help install embeddings heads submission test check docs soak minimums bench gpu clean

help: ## Show this help
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo
	@echo "  Your own data: make embeddings heads submission TRAIN=train.csv TEST=test.csv IMAGES=dir WORKSPACE=dir"

$(INSTALLED): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[starter]'
	@touch $@

$(CONTRIBUTES): $(INSTALLED)
	$(BIN)/python -m pip install --quiet -e '.[starter,dev]'
	@touch $@

install: $(INSTALLED) ## Make the virtual environment and install what predicting prices needs

$(DEMO)/train.csv: | $(INSTALLED)
	$(SHELFPRICE) catalog demo --to $(DEMO) --train 600 --test 150

embeddings: $(INSTALLED) $(CATALOG) ## Ingest the catalogue and embed what has no vector yet
	$(SHELFPRICE) catalog ingest $(FILES) $(INGEST_OPTIONS) -w '$(WORKSPACE)'
	$(SHELFPRICE) embed run -w '$(WORKSPACE)'

heads: embeddings ## Train the heads that are missing, off the cache
	$(SHELFPRICE) heads run -w '$(WORKSPACE)'

submission: heads ## Blend the heads, write submission.csv and report.html
	$(SHELFPRICE) ensemble blend -w '$(WORKSPACE)'
	$(SHELFPRICE) ensemble submit -w '$(WORKSPACE)'
	$(SHELFPRICE) ensemble report -w '$(WORKSPACE)'

test: $(CONTRIBUTES) ## Add what contributors need, run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile

check: $(CONTRIBUTES) ## Lint, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(CONTRIBUTES) ## Build the site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

soak: $(CONTRIBUTES) ## Attack tiny workspaces for MINUTES=10: kills, damage, odd files, full disks
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak --minutes $(MINUTES) $(SOAK_OPTIONS)

minimums: ## Install the lowest versions that setup.cfg states of light packages, run the tests that need them
	$(PYTHON) -m tests.minimums $(VENV)-minimums

bench: $(CONTRIBUTES) ## Run every benchmark; JSON lands in benchmarks/results
	$(BIN)/python -m benchmarks

gpu: $(INSTALLED) ## On a machine with an NVIDIA GPU: check the encoders there and measure them, under 9 minutes
	$(BIN)/python -m benchmarks.gpu

clean: ## Remove the virtual environment and the demo's files
	rm -rf $(VENV) $(VENV)-minimums $(DEMO) build site *.egg-info
