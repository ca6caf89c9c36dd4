# make demo      sets up and runs the demonstration; the figures and the report are in the folder that it names
# make test      sets up and runs the tests: a few minutes
# make lab       sets up and opens the notebooks in the browser
# make notebooks sets up and runs all notebooks anew, in place; one of them: make notebooks ARGS=03
# make docs      sets up and builds the documentation: docs/_build/html/index.html
#
# Each sets up what it needs in .venv, the first time and whenever the dependencies change; after that it just runs.
# Another Python:        make test PYTHON=python3.12
# Options for pytest:    make test ARGS="-k boundary -x"
# Without make (Windows, conda, an environment that exists): the README has the lines to type.

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-slow lab notebooks docs lint types bench constraints clean
.NOTPARALLEL:

demo: $(VENV)/.has-test
	$(BIN)/minicm demo $(ARGS)

test: $(VENV)/.has-test
	$(BIN)/python -m pytest $(ARGS)

test-slow: $(VENV)/.has-test
	$(BIN)/python -m pytest -m "slow and not gpu" $(ARGS)

lab: $(VENV)/.has-notebooks
	$(BIN)/jupyter lab notebooks

notebooks: $(VENV)/.has-notebooks
	$(BIN)/python notebooks/build.py $(ARGS)

docs: $(VENV)/.has-docs
	$(BIN)/python -m sphinx -W --keep-going -n -q docs docs/_build/html $(ARGS)
	@echo docs/_build/html/index.html

lint: $(VENV)/.has-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: $(VENV)/.has-dev
	$(BIN)/mypy

bench: $(VENV)/.has-test
	$(BIN)/minicm bench $(ARGS)

# The stamp .has-X says that minicm (editable) and its extra X are in $(VENV), at the versions of constraints.txt.
$(VENV)/.has-%: pyproject.toml constraints.txt | $(VENV)/.made
	$(PIP) install -c constraints.txt -e '.[$*]'
	@touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("minicm needs Python 3.10 or newer, and $(PYTHON) is %d.%d: name another, for example PYTHON=python3.12" % sys.version_info[:2])'
	@echo "setting up $(VENV), once: the download of torch can take some minutes"
	$(PYTHON) -m venv $(VENV)
	@touch $@

# Resolves the pins anew; needs uv. torch's own pins choose the CUDA packages of its build, so those stay out.
TORCH  := 2.13.0
EXTRAS := test notebooks docs browser interop lora export course dev
constraints:
	@{ echo '# The versions that are tested together, for every Python and extra; made by `make constraints`.' \
	&& echo torch==$(TORCH) | env -u UV_FIND_LINKS uv pip compile pyproject.toml - $(EXTRAS:%=--extra %) \
	   --universal --python-version 3.10 --no-python-downloads --quiet --no-annotate --no-header \
	   | grep -vE '^(cuda|nvidia|triton)'; } > constraints.new
	@mv constraints.new constraints.txt

# Leaves runs/ alone: it may hold hours of work.
clean:
	rm -rf $(VENV) build dist docs/_build docs/reference docs/notebooks .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage htmlcov
	find minicm tests -name __pycache__ -type d -prune -exec rm -rf {} +
