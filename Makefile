# vtray: `make` shows what there is. Needs python3 (>= 3.11) and a package index; everything else is installed here.
.DEFAULT_GOAL := help
.PHONY: help env demo test check bench docs clean

PYTHON ?= python3
BIN := .venv/bin
DEMO := demo
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true

help: ## Show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

env: .venv/installed ## Create .venv and install what requirements.lock pins (quick when nothing changed)

.venv/installed: requirements.lock pyproject.toml $(wildcard vtray/*/*.c)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is older than 3.11; choose another with make PYTHON=..."; exit 4; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet --requirement requirements.lock
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet --no-deps --editable .
	@touch $@

demo: env ## Draw a catalog (or IMAGES=folder), augment, stylize, fine-tune, say where to look
	@$(BIN)/python jobs/demo.py --to $(DEMO) $(if $(IMAGES),--images '$(IMAGES)')

test: env ## All tests
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

check: env ## Format, lint, types and the layer rule: what CI runs before the tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest tests/test_layers.py

bench: env ## Side-by-side benchmarks; JSON in benchmarks/results
	@$(BIN)/python benchmarks/augment.py
	@$(BIN)/python benchmarks/style.py
	@$(BIN)/python benchmarks/finetune.py
	@$(BIN)/python benchmarks/finetune_accuracy.py
	@$(BIN)/python benchmarks/tune.py

docs: env ## Write the operator reference again
	@$(BIN)/python -c "import sys; from vtray.augment.reference import operator_reference; sys.stdout.write(operator_reference())" > docs/operators.md

clean: ## Remove the demo's outputs (not .venv)
	@rm -rf $(DEMO) mlflow.db mlartifacts .mypy_cache .ruff_cache .pytest_cache
