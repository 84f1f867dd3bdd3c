# The words people type. Python (3.11 or newer) and make are all that is needed: every target sets up .venv by itself,
# once, and again when pyproject.toml or constraints.txt change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
OUT ?= demo
LIGHTER ?= $(OUT)/lighter
STARTER_OUT ?= runs/starter
# Neighbours share what is slow to make, so they stay with one worker; who is done takes tests from the other's end.
PYTEST := -n 2 --dist worksteal

# Threads that wait without spinning: two processes on two cores otherwise starve each other.
export OMP_WAIT_POLICY := PASSIVE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo serve test test-all lint format bench starter llamacpp runtimes readme messages

help:  ## What there is to type
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.core  ## Compress the embedded model and show what it kept (writes demo/)
	$(BIN)/whet demo $(OUT)

serve: $(VENV)/.serve  ## Serve the embedded model and its lighter, 5 % of the users first (makes demo/lighter if it is not there)
	@test -f $(LIGHTER)/whet.json || $(BIN)/whet compress starter $(LIGHTER) --scheme W8A16
	$(BIN)/whet serve starter $(LIGHTER) $(ARGS)

test: $(VENV)/.dev  ## Run the tests, big matrices pairwise (a few minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST) $(ARGS)

test-all: $(VENV)/.dev  ## Run every test, matrices whole
	WHET_ALL=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST) $(ARGS)

lint: $(VENV)/.dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev  ## Let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.core  ## Solvers and schemes side by side on the embedded model (writes bench-out/)
	$(BIN)/python bench/run.py $(ARGS)

starter: $(VENV)/.core  ## Train the embedded model again (about an hour and a half on one core; resumes)
	$(BIN)/python -m whet.starter.make --resume --out $(STARTER_OUT) $(ARGS)

readme: $(VENV)/.core  ## README's tables and pictures from what `make demo` wrote (needs Chromium)
	PYTHONPATH=tests $(BIN)/python bench/readme.py $(OUT)

messages: $(VENV)/.core  ## Bring src/whet/locale/*.po up to date with the messages in the source
	$(BIN)/python bench/messages.py

llamacpp: $(VENV)/.llamacpp  ## Compile llama.cpp, which runs .gguf files (needs a C++ compiler; some minutes, once)

# pip keeps what it compiled, so another .venv on this machine takes seconds.
$(VENV)/.llamacpp: $(VENV)/.core
	CMAKE_ARGS="$(CMAKE_ARGS) -DLLAVA_BUILD=OFF" CMAKE_BUILD_PARALLEL_LEVEL=$(shell nproc 2>/dev/null || echo 2) \
		$(PIP) --editable '.[llamacpp]'
	@touch $@

runtimes: $(VENV)/.runtimes  ## Install ONNX Runtime and OpenVINO, which run graphs (about 100 MB)

$(VENV)/.runtimes: $(VENV)/.core
	$(PIP) --editable '.[onnx,openvino]'
	@$(BIN)/python -m pip --disable-pip-version-check uninstall --quiet --yes openvino-telemetry  # OpenVINO runs without
	@touch $@

$(VENV)/.serve: $(VENV)/.core
	$(PIP) --editable '.[serve]'
	@touch $@

# torch alone first: what comes after then finds it there and pulls no other build of it.
$(VENV)/.core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("whet needs Python 3.11 or newer; $(PYTHON) is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.11 ...")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "installing whet into $(VENV) (a few minutes the first time)"
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(PIP) --editable '.[test,lint]'
	@touch $@
