# Works on a machine that has only Python 3.11+ (with venv and pip), make and git.
# Paths are relative and tools run as modules, so that any clone path will do.

PY = .venv/bin/python
# lint-imports has no `python -m` form, and scripts in .venv/bin hold absolute paths.
LINT_IMPORTS = $(PY) -c 'import sys; from importlinter.cli import lint_imports_command; sys.argv[:] = ["lint-imports", "--no-logo"]; lint_imports_command()'

# Plugins by name: of a distribution that has one, pytest compiles every module anew in each process,
# to rewrite its assertions, and refusalkit is such a distribution.
PYTEST = $(PY) -m pytest --disable-plugin-autoload -p _hypothesis_pytestplugin -p xdist.plugin \
	-p refusalkit.integrations.pytest_plugin -n auto

# Only from the command line: a PYTHON left in the environment may be for something else.
ASKED_PYTHON = $(if $(filter command,$(origin PYTHON)),$(PYTHON))

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint rooms format types coverage docs wheel-check bench torture real test-integrations test-ray lock clean
# The recipes share .venv: one after the other, even under -j.
.NOTPARALLEL:

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r name text; do printf '%-20s %s\n' "  $$name" "$$text"; done

setup: ## Make .venv ready (PYTHON=python3.13 picks one)
	@PYTHON='$(ASKED_PYTHON)' sh scripts/setup.sh

demo: setup ## Benchmark a scripted model: no key, no network
	@$(PY) -m refusalkit run demo/mixed --prompts refusalkit-166 --trials 5

test: lint types ## Lint, types, import order and all tests but the slow ones
	$(PYTEST) -m "not slow"

test-all: lint types ## All checks: also long simulations, cuts at every byte, wheel and docs site
	$(PYTEST)

coverage: setup ## The tests again, counting what they run (below 90 % fails)
	$(PYTEST) -p pytest_cov.plugin --cov --cov-report=term:skip-covered

lint: setup ## Lint, format check and the import-order contract
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(LINT_IMPORTS)

rooms: setup ## The rooms of the package: lines, floors, imports between them, circles
	@$(PY) scripts/rooms.py

format: setup ## Format, and fix what lint can fix
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: setup ## Check the types of src/
	$(PY) -m mypy --strict src

docs: setup ## Build the documentation into build/site, strictly
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

wheel-check: setup ## Build the wheel, install it cleanly, run the demo from an empty folder
	$(PY) -m pytest tests/project/test_packaging.py

bench: setup ## Measure the main job beside its peers (most of an hour; ARGS="--runs 1 --load even")
	$(PY) benchmarks/speed.py $(ARGS)

torture: setup ## The fault campaign: 1,000 SIGKILLs, long fuzzing (an hour; ARGS="--kills 60")
	$(PY) benchmarks/torture.py $(ARGS)
	$(PY) -m pytest tests/whole/test_fuzz.py --hypothesis-profile=long

real: setup ## A real model on a real server here, no key (compiles llama.cpp once; ARGS="--limit 8")
	$(PY) benchmarks/real/run.py $(ARGS)

test-integrations: ## The real programs that we read, write for and run in (Python 3.12+; OLDEST=1)
	@PYTHON='$(ASKED_PYTHON)' OLDEST='$(OLDEST)' sh scripts/integrations.sh

test-ray: setup ## Workers on a local Ray cluster (pip installs ray into .venv, which is large)
	$(PY) -m pip install --quiet 'ray>=2.40'
	$(PY) -m pytest tests/engine/test_ray.py

lock: ## Renew uv.lock and requirements-dev.txt (needs uv; ARGS=--upgrade for newer versions)
	uv lock $(ARGS)
	uv export --quiet --frozen --group dev --no-emit-project --format requirements-txt --output-file requirements-dev.txt

clean: ## Remove .venv, caches and build output
	rm -rf .venv dist build htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
