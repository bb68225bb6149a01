# Everything that a person or CI does with this checkout; `make` alone lists it.
#
# Rules: each target installs what it needs first, into .venv and nowhere else; a stamp in .venv says what is there, so
# that a second call is quick; the stamps are older than pyproject.toml or constraints.txt when those have changed.
# Nothing outside this folder is needed but Python 3.11 or newer and a package index. (Windows: see README.md.)

VENV ?= .venv
BIN := $(VENV)/bin
# The tested one first; PYTHON=/path/to/python says otherwise.
PYTHON ?= python3.11 python3 python3.12 python3.13
# PRESET=as_published is the paper's way, PRESET=graphem its code; both embed with VGG16, which needs torch.
PRESET ?= default
DEMO_ARGS ?=
SOAK_S ?= 3600
TEST_ARGS ?=
# On as many workers as there are cores, one test after the other to whoever is free. SIDE_BY_SIDE= runs them one by one.
SIDE_BY_SIDE ?= --numprocesses auto --dist loadgroup --no-loadscope-reorder
FUZZ_S ?= 60
FUZZ_ARGS ?=
BENCH_ARGS ?=

PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable

.DEFAULT_GOAL := help
# One pip at a time in one environment, and lint before tests.
.NOTPARALLEL:
.PHONY: help install install-vgg16 install-all demo test fast lint format schema check fuzz accuracy accuracy-quick bench reliability soak clean

help:  ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*  ## /\1\t/p' Makefile | expand -t 16

install: $(VENV)/.service  ## .venv with livestem[service]: light, no torch
install-vgg16: $(VENV)/.vgg16  ## the same, with torch and torchvision
install-all: $(VENV)/.all  ## the same, with what the tests need

demo: install $(if $(filter-out default,$(PRESET)),install-vgg16)  ## the main job to its end [PRESET=as_published] [DEMO_ARGS=...]
	$(if $(filter-out default,$(PRESET)),$(BIN)/livestem weights fetch)
	$(BIN)/livestem demo $(if $(filter-out default,$(PRESET)),--preset $(PRESET)) $(DEMO_ARGS)

test: install-all  ## every test [TEST_ARGS=...]
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(TEST_ARGS)

fast: install-all  ## the unit tests only [TEST_ARGS=...]
	$(BIN)/python -m pytest tests/unit $(TEST_ARGS)

lint: install-all  ## style, types and import contracts, without tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p livestem -p livestem.client -p livestem.simulator  # a namespace: -p alone finds its first part
	$(BIN)/lint-imports

format: install-all  ## put the code into the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: install  ## rewrite the wire's schema.json; refuses a change without a new version
	$(BIN)/python -m livestem.wire.schema

check: lint test  ## what CI runs: lint and test

fuzz: install-all  ## the wire's decoder under coverage-guided fuzzing [FUZZ_S=60]; what it finds lies in build/fuzz
	$(BIN)/python tests/fuzz/decoder.py --seconds $(FUZZ_S) --found build/fuzz $(FUZZ_ARGS)

accuracy: install-vgg16  ## the table of docs/accuracy.md: most of an hour [WEIGHTS=FILE]
	$(BIN)/python -m benchmarks.accuracy $(if $(WEIGHTS),--weights $(WEIGHTS))

accuracy-quick: install-all  ## its quick form: that all of it still runs, and about where it stands
	$(BIN)/python -m benchmarks.accuracy --quick

bench: install-all  ## how fast, beside what one would do instead: the tables of docs/performance.md [BENCH_ARGS=--quick]
	$(BIN)/python -m benchmarks.performance $(BENCH_ARGS)

reliability: install-all  ## 10 000 cases, every fault and every blow, 100 kills: most of an hour
	$(BIN)/python -m benchmarks.reliability cases matrix kills

soak: install-all  ## a service for an hour; a leak fails it [SOAK_S=3600]
	$(BIN)/python -m benchmarks.reliability soak --soak $(SOAK_S)

clean:  ## remove .venv, builds and caches; a store is never touched
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@for python in $(PYTHON); do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  echo "creating $(VENV) with $$("$$python" --version)"; \
	  "$$python" -m venv $(VENV) && exit 0; \
	  rm -rf $(VENV); \
	  echo "$$python cannot make a virtual environment; install its venv module (Debian: apt install python3-venv)" >&2; \
	  exit 1; \
	done; \
	echo "no Python 3.11 or newer found; install it, or say where it is: make install PYTHON=/path/to/python3.11" >&2; \
	exit 1

$(VENV)/.service: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing livestem[service] into $(VENV): about a minute"
	@$(PIP) '.[service]'
	@touch $@

$(VENV)/.vgg16: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing livestem[service,vgg16] into $(VENV): torch is large, some minutes"
	@$(PIP) '.[service,vgg16]'
	@touch $@ $(VENV)/.service

$(VENV)/.all: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing livestem[all] into $(VENV): torch is large, some minutes"
	@$(PIP) '.[all]'
	@touch $@ $(VENV)/.service $(VENV)/.vgg16
