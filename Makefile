# `make demo`, `make test` and others first install everything into .venv/, unless that has been done.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A Python from 3.10 to 3.13; choose another one with `make PYTHON=...`.
PYTHON ?= $(shell for p in python3.12 python3.13 python3.11 python3.10 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo $$p && break; done)

.PHONY: help setup demo test test-slow test-slurm test-browser check-gpu bench-gpu study soak lint \
	docs clean

help:
	@echo 'make demo   train, test and draw a small contextual Mask R-CNN on rendered images'
	@echo 'make test   run the tests'
	@echo 'make test-slow  run the tests that take minutes each'
	@echo 'make test-slurm  run the tools on a real slurm built on this machine (root, Debian)'
	@echo 'make test-browser  open the page of `mmctx app` in a headless Chromium (Debian'"'"'s)'
	@echo "make check-gpu  check on this machine's GPU that everything works, in minutes"
	@echo "make bench-gpu  run the tests and benchmarks on this machine's GPU, into benchmarks/"
	@echo 'make study  train with and without context, an hour on two cores'
	@echo 'make soak   train the demo for half an hour and see whether memory stays flat'
	@echo 'make lint   check style and format with ruff, types with mypy, and build the documentation'
	@echo 'make docs   build the documentation into docs/_build/'
	@echo 'make setup  install everything into $(VENV)/'

setup: $(STAMP)

$(STAMP): setup.py constraints.txt pyproject.toml
	@test -n '$(PYTHON)' || { echo 'No Python 3.10-3.13 found: name one with make PYTHON=...' >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'Installing into $(VENV)/ (5 GB, a few minutes) ...'
	@# An installed mmcv with compiled operators is kept.
	@extras=all,dev,docs; $(BIN)/pip show -q mmcv 2>/dev/null && extras=det,video,dev,docs; \
	$(BIN)/pip install --quiet --disable-pip-version-check --progress-bar off \
		-c constraints.txt -e ".[$$extras]"
	@touch $@

demo: $(STAMP)
	@$(MAKE) --no-print-directory -f tools/demo.mk PYTHON=$(BIN)/python

# One thread for each test process, because more would compete for the cores. Each process takes
# half of the modules, so that what a module's tests share is made once, and then from the other.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# About an hour and a half on two cores; needs real images and clips beside the repository or in
# MMCTX_SHARED_DATA.
test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow -s

# Installs Debian's slurm-wlm and munge if they are missing; ten minutes on two cores.
test-slurm: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/cluster -m cluster -s

# Installs Gradio and Playwright's driver; the browser is Debian's chromium (apt install chromium).
# Gradio needs an older Pillow than constraints.txt names.
test-browser: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[app]' playwright
	$(BIN)/python -m pytest tests/apis/test_page.py -m browser

# Logs and a summary go into work_dirs/check_gpu; tools/check_gpu.py --help tells more.
check-gpu: $(STAMP)
	@$(BIN)/python tools/check_gpu.py

bench-gpu: $(STAMP)
	PYTHON=$(CURDIR)/$(BIN)/python tools/analysis/run_on_gpu.sh

study: $(STAMP)
	@$(BIN)/python tools/study.py

soak: $(STAMP)
	@$(BIN)/python tools/analysis/soak.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(MAKE) --no-print-directory docs

# A link that leads nowhere, and whatever else Sphinx warns of, is an error.
docs: $(STAMP)
	@rm -rf docs/generated
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build
	@echo 'Documentation: docs/_build/index.html'

clean:
	rm -rf $(VENV) build dist docs/_build docs/generated *.egg-info mmctx/.mim
