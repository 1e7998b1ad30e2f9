# Two commands from a bare machine: `make search` and `make test`. Both need only Python 3.11+ and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SEARCH ?= --steps 2 --proxy-iterations 80 --latency-seconds 0.2
RUN ?= runs/synthetic
FAULTS ?= 500
FUZZ ?=

.PHONY: search test test-alone check drill fuzz clean

search: $(INSTALLED)
	$(BIN)/lps-search expand $(SEARCH) --out $(RUN)

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-alone: $(INSTALLED)
	$(BIN)/python -m pytest -m alone

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

drill: $(INSTALLED)
	$(BIN)/python -m tests.drill --faults $(FAULTS) --out results/drills

# A million hostile inputs, nicely: hours on two busy cores; stopped, it goes on. Some of them: make fuzz FUZZ="image store --inputs 10000 --out /tmp/fuzz"
fuzz: $(INSTALLED)
	nice -n 5 $(BIN)/python -m tests.fuzz $(FUZZ)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed, found " + sys.version.split()[0] + "; run make PYTHON=python3.12 with one")'
	@echo "installing the pinned packages into $(VENV): a minute or more, once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
