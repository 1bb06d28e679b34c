# Paths are relative throughout: make splits $(CURDIR) at a space in it.
PYTHON := .venv/bin/python
ARGS ?=
SEED ?= 1
SEEDS ?= 200
RUNS ?= 5000
SECONDS ?= 600

.DEFAULT_GOAL := help
.PHONY: help setup setup_to_run run demo test chaos fuzz check format generate bench picture clean

help:
	@echo 'make TARGET [ARGS="..."], where TARGET is one of'
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-9s %s\n", $$1, $$2 }' Makefile

# Says nothing and takes a moment when all is there already.
setup:
	@bash .ci/setup

# Without what only tests and checks need.
setup_to_run:
	@bash .ci/setup export,web

# exec, so that the program is make's own child: a signal that make passes on reaches it, and no shell stays between.
run: setup_to_run ## start the telemetry (ARGS go to `telemetry up`); Ctrl-C ends it
	@exec .venv/bin/telemetry --end-with-parent $$PPID up $(ARGS)

demo: setup_to_run ## show a simulated miner with 20 sealing hosts whose queues move (ARGS go to `telemetry simulate`)
	@exec .venv/bin/telemetry --end-with-parent $$PPID simulate $(ARGS)

test: setup ## run the tests (ARGS go to pytest)
	@exec $(PYTHON) -m pytest -n 3 --dist loadfile $(ARGS)

chaos: setup ## kill, cut off and fill a real fleet of 50 agents (SEEDS=200 runs from SEED=1) and see that nothing is lost
	@exec $(PYTHON) -m tests.chaos --seed $(SEED) --seeds $(SEEDS)

fuzz: setup ## attack each reader of what comes from outside for SECONDS=600, then try the models with RUNS=5000 histories
	$(PYTHON) -m tests.fuzz --seconds $(SECONDS) --keep
	@exec env TELEMETRY_FUZZ_RUNS=$(RUNS) $(PYTHON) -m pytest --timeout=14400 tests/test_protocol_model.py tests/test_history.py tests/test_history_kill.py $(ARGS)

check: setup ## lint, formatting, types, and whether the generated files are up to date
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m telemetry.render --check

format: setup ## mend what ruff can mend
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

generate: setup ## write the generated files anew
	$(PYTHON) -m telemetry.render

bench: setup ## measure (ARGS go to the benchmark)
	@exec $(PYTHON) -m bench $(ARGS)

picture: setup ## make the pictures in docs/ from simulated fleets: the commands, and the page in Chromium
	@exec $(PYTHON) docs/picture.py

clean: ## remove the environment, build outputs and caches, never the recorded data
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
