# Each target makes what it needs: a virtual environment in .venv, once, with the versions of constraints.txt.

PYTHON ?= python3
DEMO_OUT ?= demo-output
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --constraint constraints.txt

.PHONY: help demo serve test lint docs

help:
	@echo "make demo   train, mix and compare adapters on the bundled sample; the report goes to DEMO_OUT=$(DEMO_OUT)"
	@echo "make serve  try its adapters in a page: http://localhost:8000 (makes the demo first, if it is not there)"
	@echo "make test   run the tests"
	@echo "make lint   check style and types"
	@echo "make docs   build the documentation into site/; any warning is an error"

demo: .venv/.installed
	$(BIN)/lorarec demo --out $(DEMO_OUT)

serve: .venv/.installed-serve $(DEMO_OUT)/report.md
	$(BIN)/lorarec serve $(DEMO_OUT)/dataset --adapters $(DEMO_OUT)/adapters

$(DEMO_OUT)/report.md: | .venv/.installed
	$(BIN)/lorarec demo --out $(DEMO_OUT)

# A process with one thread per core: models are tiny, so threads only get in each other's way.
test: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: .venv/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32

docs: .venv/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) --editable .
	touch $@

.venv/.installed-serve: .venv/.installed
	$(INSTALL) --editable '.[serve]'
	touch $@

# pip reads dependency groups from version 25.1 on.
.venv/.installed-dev: .venv/.installed
	$(INSTALL) --upgrade pip
	$(INSTALL) --editable '.[serve]' --group dev
	touch $@

.venv/.installed-docs: .venv/.installed
	$(INSTALL) --upgrade pip
	$(INSTALL) --group docs
	touch $@
