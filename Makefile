# The front door. Every target sets up what it needs: the environment in .venv comes from uv.lock, and uv from the
# package index where this machine has none.

PYTHON ?= python3
UV_VERSION := 0.13.8

# A tool of the caller's environment must not lead the installation elsewhere, nor a Python be downloaded.
unexport VIRTUAL_ENV UV_PROJECT_ENVIRONMENT PYTHONPATH PYTHONHOME
export UV_PYTHON_DOWNLOADS := never
# Where the home folder cannot be written, what is downloaded is kept here.
ifeq ($(shell test -n "$$HOME" && test -d "$$HOME" && test -w "$$HOME" && echo yes),)
export UV_CACHE_DIR := $(CURDIR)/.uv/cache
export PIP_NO_CACHE_DIR := 1
endif

UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
BIN := .venv/bin
READY := .venv/.ready
export DIR JSON
# What no wheel brings. Only SVG needs it, and fails alone where it is missing (`dailies doctor` says so).
PARTS := librsvg2-bin fonts-dejavu-core
RUNS ?= 1
MINUTES ?= 30

.DEFAULT_GOAL := help
.PHONY: help setup run demo test check bench bench-queue bench-similar faults soak clean

help:  ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## Install what everything below needs, into .venv

run: $(READY)  ## Start everything on this machine and stay; Ctrl-C stops it
	@exec $(BIN)/dailies up

demo: $(READY)  ## Take a folder through a stack of its own: make demo DIR=PATH JSON=FILE
	@exec $(BIN)/dailies demo $${DIR:+"$$DIR"} $${JSON:+--json "$$JSON"}

test: $(READY)  ## All tests, on servers of their own, with branch coverage
	$(BIN)/pytest -n auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder --cov --cov-report=
	@$(BIN)/coverage report
	@echo "pipeline, db and tasks alone, of which 90 % must be covered:"
	@$(BIN)/coverage report --include='pipeline/*,db/*,tasks/*' --fail-under=90 --format=total

check: $(READY)  ## Lint, types, layers, sizes, deployment files: what a machine can read
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest --quiet --noconftest --override-ini=addopts= tests/unit/test_sizes.py
	$(BIN)/pre-commit validate-config
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/hadolint Dockerfile

bench: $(READY)  ## Measure assets a second beside the compute limit
	$(BIN)/python -m bench.end_to_end

bench-queue: $(READY)  ## Measure the queue's statements with a small and a large past, then bloat: 20 minutes, 10 GB
	$(BIN)/python -m bench.queue
	$(BIN)/python -m bench.queue --bloat

bench-similar: $(READY)  ## Measure what near duplicates are found, and the search among a million hashes
	$(BIN)/python -m bench.near_duplicates

faults: $(READY)  ## Break everything, under load, and count what is lost: make faults RUNS=3 CASES="kill-workers ..."
	$(BIN)/python -m tests.faults $(CASES) --runs $(RUNS)

soak: $(READY)  ## A random fault every ten seconds, for MINUTES=30
	$(BIN)/python -m tests.faults soak --minutes $(MINUTES) --assets $$(($(MINUTES) * 90))

clean:  ## Remove what was installed and cached; var/ stays
	rm -rf .venv .uv .coverage* htmlcov .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(READY): uv.lock pyproject.toml | $(UV)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing into .venv ..."
	@$(UV) sync --quiet --locked --all-extras --python "$(PYTHON)"
	@if ! command -v rsvg-convert >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing $(PARTS), for SVG ..."; \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			$(PARTS); } >/dev/null 2>&1 </dev/null || true; \
	fi
	@command -v rsvg-convert >/dev/null || echo "SVG files will fail until you: sudo apt-get install $(PARTS)"
	@touch $@

.uv/bin/uv:
	@echo "Installing uv $(UV_VERSION) into .uv ..."
	@rm -rf .uv/bin .uv/lib .uv/pyvenv.cfg
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then \
		$(PYTHON) -m venv .uv && .uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); \
	elif $(PYTHON) -m pip --version >/dev/null 2>&1; then \
		$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .uv uv==$(UV_VERSION); \
	else \
		echo "Neither uv nor pip is here. As root: apt-get install python3-venv; then make again." >&2; exit 1; \
	fi
