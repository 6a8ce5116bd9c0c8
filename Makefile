# `make demo` and `make test` need Python 3.11 or later (with venv), git and make; each sets up .venv first.
PYTHON ?= python3
TESTED := 3.11 3.12 3.13
VENV := .venv
SYSTEM_PATH := $(PATH)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo check test test-all chaos test-containers images lint types docs dvc-deps lock

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

PIP := python -m pip install --quiet --disable-pip-version-check
VERSION = $(shell PATH="$(SYSTEM_PATH)" "$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
IS_TESTED = $(filter $(VERSION),$(TESTED))
# pip's warnings about its own settings are shown only if it fails; a Python that is too new gets the last line alone
quietly = mkdir -p build && { $(1) > build/pip.log 2>&1 || { $(if $(IS_TESTED),cat,tail -n 1) build/pip.log >&2; exit 1; }; }

setup: $(VENV)/.installed ## make the virtual environment .venv

# The stamp comes last, so a half install is done again from the start.
$(VENV)/.installed: requirements.lock pyproject.toml
	@PATH="$(SYSTEM_PATH)" "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "error: $(PYTHON) is not Python 3.11 or later; install one and run: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(if $(IS_TESTED),,echo "note: Python $(VERSION) is not among those that this project was tested on: $(TESTED)")
	@echo "Making $(VENV) (a few minutes, once) ..."
	@PATH="$(SYSTEM_PATH)" "$(PYTHON)" -m venv --clear $(VENV)
	@$(call quietly,$(VENV)/bin/$(PIP) -r requirements.lock)
	@$(call quietly,$(VENV)/bin/$(PIP) --no-deps --editable .)
	@touch $@

demo: setup ## train, evaluate and register a model on the built-in demo data, and search with it
	@dvc repro
	@dagnn register
	@dagnn results
	@dagnn index build index --source artifacts/dataset --split test
	@dagnn search "two boats under the moon" -k 5
	@echo "search      dagnn serve (the page at http://127.0.0.1:8000/)"
	@echo "report      artifacts/report/report.html"
	@echo "activate    source $(VENV)/bin/activate (puts mlflow, dvc and dagnn on PATH)"

# tests wait for servers and processes: half a worker more than there are cores
WORKERS ?= $(shell python3 -c "import os; print(max(1, os.cpu_count() * 3 // 2))")
# one thread for each worker: more threads than cores wait for each other
check test test-all chaos: export OMP_NUM_THREADS := 1
PYTEST := pytest -q -n $(WORKERS) --dist loadfile
UNIT_TESTS := $(addprefix tests/,label_graph losses nn retrieval) $(wildcard tests/test_*.py)

check: lint types ## lint, types, and the unit tests that take seconds
	@$(PYTEST) -m "not slow" $(UNIT_TESTS)

# a part of the tests comes without the checks
test: $(if $(T),setup,lint types) ## all checks, and all tests but the slow ones; T=tests/losses: only these tests
	@$(PYTEST) -m "not slow and not containers" $(T)

test-all: $(if $(T),setup,lint types) ## all checks and all tests but those in containers; T= as above
	@$(PYTEST) -m "not containers" $(T)

MINUTES ?= 10
chaos: setup ## kill, fill, damage and race the steps at random for MINUTES=10; CHAOS=--seed=1 has options
	@python -m tests.chaos --minutes $(MINUTES) $(CHAOS)

test-containers: setup ## build the CPU image and run the pipeline in containers (needs Docker, or root on Debian)
	@pytest -q -m containers tests/containers

images: setup ## build the images of the commit, with BuildKit; REGISTRY= pushes them, TARGETS= chooses, DOCKER_BUILD= has options
	@dagnn images $(if $(REGISTRY),--registry $(REGISTRY)) $(TARGETS:%=--target %) -- $(DOCKER_BUILD)

lint: setup ## style, spelling, and who may import whom
	@ruff check
	@ruff format --check
	@typos
	@lint-imports --no-logo

dvc-deps: setup ## write into dvc.yaml which modules each stage imports
	@python infra/dvc_deps.py

types: setup ## mypy --strict
	@mypy --num-workers auto

docs: setup ## build the documentation into build/site; a broken link fails
	@NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet
	@echo "open build/site/index.html"

# torch names the CUDA packages that it needs itself; a machine without a GPU shall not download them
CUDA := cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime \
	nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 \
	nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx triton

# the images' locks are parts of the whole one; kfp goes without its dependencies: in a pod it needs none of them
# `fewest`: one version for every Python that has wheels of it, so that what is tested on one holds on the next
COMPILE := build/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --no-header \
	--no-annotate $(CUDA:%=--no-emit-package=%)
lock: setup ## pin what requirements.in and infra/docker/*.in name
	@PATH="$(SYSTEM_PATH)" "$(PYTHON)" -m venv --clear build/uv
	@$(call quietly,build/uv/bin/$(PIP) uv)
	@$(COMPILE) requirements.in --output-file requirements.lock
	@$(COMPILE) infra/docker/steps.in --constraints requirements.lock --output-file infra/docker/steps.lock
	@grep '^kfp==' requirements.lock >> infra/docker/steps.lock
	@$(COMPILE) infra/docker/serve.in --constraints requirements.lock --output-file infra/docker/serve.lock
	@$(COMPILE) infra/docker/mlflow.in --constraints requirements.lock --output-file infra/docker/mlflow.lock
