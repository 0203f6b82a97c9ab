# Everything a newcomer needs: `make demo` and `make test`. Both set up .venv first.

PYTHON ?= python3
PEERS ?= 2
BIN := .venv/bin
STAMP := .venv/.installed

# A prompt goes through the environment, so that quotes and dollars in it reach gptnode unchanged.
export PROMPT

.PHONY: demo test lint types docs format bench clean help

demo: $(STAMP)  ## a swarm on this machine and a chat over it [PROMPT="..."] [PEERS=2]
	@if [ -n "$$PROMPT" ]; then $(BIN)/gptnode demo --peers $(PEERS) --prompt "$$PROMPT"; \
	else $(BIN)/gptnode demo --peers $(PEERS); fi

test: $(STAMP)  ## the whole test suite [ARGS="..."]
	@$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP)  ## style, imports between the rooms, drift of the CLI reference
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/python scripts/cli_reference.py --check
	@$(BIN)/python scripts/metrics_reference.py --check
	@$(BIN)/python scripts/grafana_dashboard.py --check

types: $(STAMP)  ## strict types
	@$(BIN)/mypy

docs: $(STAMP)  ## writes the pages of docs that come from the code: commands, metrics, dashboard
	@$(BIN)/python scripts/cli_reference.py
	@$(BIN)/python scripts/metrics_reference.py
	@$(BIN)/python scripts/grafana_dashboard.py

format: $(STAMP)  ## puts the code into form
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

bench: $(STAMP)  ## measurements beside llama.cpp and transformers [ROW=all] [ARGS="..."]; see benchmarks/README.md
	@$(BIN)/python -m benchmarks $(or $(ROW),all) $(ARGS)

clean:  ## removes .venv, caches and build products
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find gptnode tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile

KERNELS := setup.py $(wildcard gptnode/model/native/*.[ch]) gptnode/model/native/build.py

$(STAMP): pyproject.toml constraints.txt $(KERNELS)
	@echo "setting up .venv (torch is large: this takes a minute or a few)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "gptnode needs Python 3.11 or later: make PYTHON=python3.11 ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@# libp2p brings trio-typing, whose stubs are older than trio's own types and hide them from mypy.
	@rm -rf .venv/lib/python3.*/site-packages/trio-stubs
	@touch $@
