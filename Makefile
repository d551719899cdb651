# make demo        set up .venv, train the digits in five stages into runs/demo, draw the curves
# make test        set up .venv, then ruff, pyright, the documentation and the tests
# make docs        the documentation as a site, in build/site
# make .venv       only the environment, from the locked versions
# make lock        resolve requirements.lock anew (needs uv)

PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python

.PHONY: demo test lint docs .venv lock clean

demo: .venv
	$(RUN) launch.py train configs/digits.py --workdir runs/demo
	$(RUN) launch.py report runs/demo --out runs/demo/report

test: lint docs
	$(RUN) -m pytest -n auto --dist worksteal

lint: .venv
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

# Warnings are errors; the variable keeps the theme from advertising its successor.
docs: .venv
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict

# The stamp is written last, so that an interrupted installation is taken up again.
.venv: $(VENV)/.complete

$(VENV)/.complete: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("stepwise-jax needs Python 3.11 or newer; $(PYTHON) is " + sys.version.split()[0] + ": set PYTHON=python3.11, say" if sys.version_info < (3, 11) else 0)'
	@echo "Setting up $(VENV) from requirements.lock (1.8 GB, some minutes the first time) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

lock:
	uv pip compile pyproject.toml --extra dev --universal --fork-strategy fewest --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --upgrade --output-file requirements.lock

clean:
	rm -rf $(VENV) runs build dist
