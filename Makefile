# make demo      set up .venv, then train, evaluate and show SRVP on this machine in minutes
# make test      set up .venv, then lint, types and the test suite
# make test-all  everything, the slow tests too
#
# PYTHON  the interpreter to build .venv with (3.11 or newer)
# TORCH   auto: PyTorch for CUDA where there is an NVIDIA GPU, else its CPU build; or cpu, cuda

PYTHON ?= python3
TORCH ?= auto
VENV := .venv
BIN := $(VENV)/bin
TORCH_VERSION := $(shell sed -n 's/^torch==//p' constraints.txt)
CPU_INDEX := https://download.pytorch.org/whl/cpu

ifeq ($(TORCH),auto)
TORCH_KIND := $(if $(shell command -v nvidia-smi 2>/dev/null),cuda,cpu)
else
TORCH_KIND := $(TORCH)
endif

.PHONY: demo test test-all lint setup clean

demo: setup
	$(BIN)/python -m hpc.demo

test: setup lint
	$(BIN)/python -m pytest -m "not slow"

test-all: setup lint
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy hpc odevid shards

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(MAKE) --no-print-directory torch-$(TORCH_KIND)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

# The CPU build comes from a local wheel folder that pip knows of (find-links), or from PyTorch's own CPU index.
.PHONY: torch-cpu torch-cuda
torch-cpu:
	$(BIN)/python -c "import torch" 2>/dev/null \
	|| $(BIN)/python -m pip install --quiet --no-index --no-deps torch==$(TORCH_VERSION) 2>/dev/null \
	|| $(BIN)/python -m pip install --quiet --no-deps --index-url $(CPU_INDEX) torch==$(TORCH_VERSION)

torch-cuda:
	$(BIN)/python -m pip install --quiet torch==$(TORCH_VERSION)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
