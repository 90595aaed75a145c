# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv once.
#
# PYTHON  an interpreter, 3.11 or later
# TORCH   the pinned torch, installed before all else: a loose requirement would fetch CUDA
#         builds of several GB. For the CPU builds of the PyTorch project, add its index:
#         make demo PIP_TORCH_FLAGS="--index-url <PyTorch's CPU wheel index>"
PYTHON ?= python3
TORCH ?= torch==2.13.0
PIP_TORCH_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test clean

demo: $(STAMP)
	$(BIN)/nefbench demo

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadgroup

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nefbench needs Python 3.11 or later (got %d.%d); set PYTHON=" % sys.version_info[:2] or 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_TORCH_FLAGS) -c constraints.txt '$(TORCH)'
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) build dist *.egg-info nefbench-demo
