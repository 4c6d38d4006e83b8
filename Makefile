# Everything a newcomer needs; `make help` lists it. Needs Linux, Python 3.11+ with venv, and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
BENCH_ARGS ?=
SOAK_MINUTES ?= 120
FUZZ_MINUTES ?= 5
SOAK_RETENTION ?= 10m

# What an editable install is made of: of changed sources the typed extension is built anew.
BUILT_FROM := pyproject.toml hatch_build.py flyproxy/extension.py $(wildcard flyproxy/*/*.pyx flyproxy/*/*.pxd)

.PHONY: help demo test check bench bench-edge bench-mixed fuzz soak docs clean

help:            ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 18

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "flyproxy needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo "flyproxy needs Python's venv module. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BUILT_FROM) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

$(VENV)/.test: $(BUILT_FROM) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

$(VENV)/.dev: $(BUILT_FROM) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,bench]'
	@touch $@

demo: $(VENV)/.demo      ## the front door with example apps in four regions and gentle traffic; ^C stops it
	@apps="$$(sh examples/apps.sh)" && { $(BIN)/flyproxy demo $$apps || [ $$? -eq 130 ]; }

test: $(VENV)/.test      ## every test; those that need an outside program say so where it is missing
	$(BIN)/python -m pytest $(PYTEST_ARGS)
	@# The pure path, where the typed one was tested above; not again for a part of the tests.
	@[ -n "$(PYTEST_ARGS)" ] || [ "$$($(BIN)/python -m flyproxy.extension)" = pure ] \
	  || { echo "once more, on the pure path:" && FLYPROXY_PURE=1 $(BIN)/python -m pytest -q tests/http1 tests/edge; }

check: $(VENV)/.dev      ## ruff, mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict flyproxy tests bench examples

bench: $(VENV)/.bench     ## every benchmark, side by side with its peers (an hour; needs haproxy, nginx, wrk)
	$(BIN)/python -m bench.run_all

bench-edge: $(VENV)/.bench ## what the edge costs beside HAProxy, nginx, Caddy, Traefik: bench/results/edge.json
	$(BIN)/python -m bench.edge $(BENCH_ARGS)

fuzz: $(VENV)/.test      ## broken HTTP messages for FUZZ_MINUTES; what tells two parsers apart becomes a case file
	FUZZ_EXAMPLES=20000 $(BIN)/python -m pytest -q --timeout 0 tests/http1/test_differential.py
	$(BIN)/python -m tests.http1.fuzz --minutes $(FUZZ_MINUTES)

bench-mixed: $(VENV)/.bench ## the tail under mixed load beside HAProxy and a Prometheus: bench/results/mixed.json
	$(BIN)/python -m bench.mixed $(BENCH_ARGS)

soak: $(VENV)/.test      ## two hours at ten times the demo's beats: nothing may grow, every count must be exact
	$(BIN)/python -m bench.churn --loop uvloop
	$(BIN)/python -m bench.churn --loop asyncio
	$(BIN)/python -m bench.soak --minutes $(SOAK_MINUTES) --retention $(SOAK_RETENTION)

docs: $(VENV)/.demo      ## write docs/metrics.md and docs/config.md anew from the catalog and the models
	$(BIN)/python -m flyproxy.instrument.catalog > docs/metrics.md
	$(BIN)/python -m flyproxy.config.reference > docs/config.md

clean:            ## remove what was built
	rm -f flyproxy/*/*.so
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
