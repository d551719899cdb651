# make demo        set up .venv with what running needs, train the digits in five stages into runs/demo, draw the curves
# make test        add the development tools to .venv, then ruff, pyright, import-linter, the documentation and the tests
# make docs        the documentation as a site, in build/site
# make .venv       only what running needs, from requirements.lock
# make dev         that and the development tools, from requirements-dev.lock
# make lock        resolve both lock files anew (needs uv)

PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
PIP    := $(RUN) -m pip install --quiet --disable-pip-version-check
LOCK   := uv pip compile pyproject.toml --universal --fork-strategy requires-python --python-version 3.11 \
            --generate-hashes --no-emit-index-url --no-header --quiet --upgrade

.PHONY: demo test lint docs .venv dev lock clean

demo: .venv
	$(RUN) launch.py train configs/digits.py --workdir runs/demo
	$(RUN) launch.py report runs/demo --out runs/demo/report

test: lint docs
	$(RUN) -m pytest -n auto --dist worksteal

lint: dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports

# Warnings are errors; without --clean, those of unchanged pages would not be repeated.
docs: dev
	$(VENV)/bin/zensical build --clean --strict

# Stamps are written last, so that an interrupted installation is taken up again.
.venv: $(VENV)/.complete
dev: $(VENV)/.complete-dev

$(VENV)/.complete: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("stepwise-jax needs Python 3.11 or newer; $(PYTHON) is " + sys.version.split()[0] + ": set PYTHON=python3.11, say" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make an environment, because it lacks the module venv or ensurepip: install it (on Debian or Ubuntu: apt install python3-venv), or set PYTHON to a Python that has both" >&2; exit 1; }
	@echo "Setting up $(VENV) from requirements.lock (1.4 GB, some minutes the first time) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.complete-dev: $(VENV)/.complete requirements-dev.lock
	@echo "Adding the development tools from requirements-dev.lock (0.4 GB) ..."
	@$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

# The first lock is the second one's constraint, so that both agree on what they share.
lock:
	$(LOCK) --extra build --output-file requirements.lock
	$(LOCK) --extra dev --constraint requirements.lock --output-file requirements-dev.lock

clean:
	rm -rf $(VENV) runs build dist
