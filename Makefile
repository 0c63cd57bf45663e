# Each target makes its own virtual environment from nothing but Python 3.11, pip and make.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
# The same tests must pass without a network; what loads a model hub says so instead of hanging.
OFFLINE = HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TOKENIZERS_PARALLELISM=false SPEECHTUNE_WHEELS=$(CURDIR)/.wheels \
	OMP_NUM_THREADS=1
# Processes that share the test files among them.
WORKERS ?= 2

.PHONY: demo test check format install bench clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all,dev]"
	# A judge of the tests; it works with NumPy 2 but asks for 1, so its requirements are left out.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt pyctcdecode pygtrie
	touch $@

demo: $(STAMP)
	$(BIN)/speechtune demo --out runs/demo --resume

test: $(STAMP)
	$(BIN)/python tests/prepare.py
	$(OFFLINE) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python benchmarks/train_throughput.py

clean:
	rm -rf $(VENV) build runs .pytest_cache .mypy_cache .ruff_cache
