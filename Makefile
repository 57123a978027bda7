# Everything here sets up what it needs: a virtual environment in .venv, and with apt-get or brew
# what has to come from outside Python (.ci/need says what to install where that is not allowed).
#
#   make test          builds with warnings as errors, runs the C tests and the Python tests
#                      (BROWSER=0 leaves out what needs Chromium; PYTEST="-k name" picks tests)
#   make demo PORT=N   serves the demo on 127.0.0.1 (default port 8000)
#   make bench         measures, each row against a reference of the same run (ARGS=--json)
#   make lint          ruff, mypy --strict, stubtest
#   make sanitize      the C tests and the Python tests under AddressSanitizer and UBSan
#   make clean         removes all that was made
#
# PYTHON=path chooses the Python of a new .venv.

PORT ?= 8000
BROWSER ?= 1
PYTEST ?=
ARGS ?=
VENV := .venv
PY := $(VENV)/bin/python
# pip builds in the checkout; what an earlier version left there must not get into the wheel.
CLEAN_BUILD := rm -rf build/lib* build/bdist*
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check
SOURCES := pyproject.toml setup.py MANIFEST.in \
	$(shell find csrc python -type f ! -name '*.so' ! -name '*.pyc' ! -path '*.egg-info/*')

unexport PYTHONPATH PYTHONHOME

.PHONY: all test demo bench lint sanitize clean core-test

all: test

$(VENV)/.made: .ci/find-python
	python="$$(.ci/find-python)" && rm -rf $(VENV) && "$$python" -m venv $(VENV)
	touch $@

$(VENV)/.demo: $(VENV)/.made $(SOURCES)
	$(CLEAN_BUILD)
	$(PIP_INSTALL) '.[demo]'
	touch $@

$(VENV)/.test: $(VENV)/.made $(SOURCES)
	.ci/need hiredis
	$(CLEAN_BUILD)
	SLUICEGATE_WERROR=1 SLUICEGATE_REDIS=1 $(PIP_INSTALL) '.[test]'
	touch $@

$(VENV)/.dev: $(VENV)/.made $(SOURCES)
	$(CLEAN_BUILD)
	$(PIP_INSTALL) '.[dev]'
	touch $@

$(VENV)/.bench: $(VENV)/.made $(SOURCES)
	-.ci/need hiredis
	$(CLEAN_BUILD)
	$(PIP_INSTALL) '.[bench]'
	touch $@

core-test:
	.ci/need cmocka
	$(MAKE) --no-print-directory -C tests/core test
	$(MAKE) --no-print-directory -C tests/shared test
	$(MAKE) --no-print-directory -C tests/codec test PYTHON="$$(.ci/find-python)"

test: core-test $(VENV)/.test
	.ci/need redis
	test '$(BROWSER)' = 0 || .ci/need chromium
	SLUICEGATE_BROWSER=$(BROWSER) $(PY) -m pytest $(PYTEST)

demo: $(VENV)/.demo
	$(VENV)/bin/sluicegate demo --port $(PORT)

bench: $(VENV)/.bench
	-.ci/need redis
	$(PY) tests/bench $(ARGS)

lint: $(VENV)/.dev
	.ci/lint $(PY)

sanitize: $(VENV)/.test
	.ci/need cmocka
	$(MAKE) --no-print-directory -C tests/core test SANITIZE=address,undefined
	$(MAKE) --no-print-directory -C tests/shared test SANITIZE=address,undefined
	$(MAKE) --no-print-directory -C tests/codec test SANITIZE=address,undefined PYTHON="$$(.ci/find-python)"
	.ci/sanitize $(PY)

clean:
	rm -rf build dist $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find python tests \( -name '*.so' -o -name '*.egg-info' -o -name __pycache__ \) -prune \
		-exec rm -rf {} +
