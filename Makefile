# Two commands do everything: `make repro` and `make test`. Needs Python 3.11, git and make; `make help` lists the rest.
#
# torch is the one package that differs between machines. TORCH=auto takes the CUDA build where nvidia-smi is found and
# the CPU build elsewhere; `make repro TORCH=cuda` or TORCH=cpu decides by hand. requirements.lock serves both.

TORCH ?= auto
VENV := .venv
BIN := $(VENV)/bin
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
PYTEST := $(BIN)/python -m pytest
# Two processes share the tests out, in the order and the groups of tests/sharing.py. Much of a test is waiting.
PROCESSES ?= 2
SHARED_OUT := -m "not slow" -n $(PROCESSES)
STARTED := $(shell date +%s)

ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell for name in python3.11 python3.12 python3.13 python3; do command -v $$name && break; done)
endif
ifeq ($(TORCH),auto)
override TORCH := $(if $(shell command -v nvidia-smi),cuda,cpu)
endif
INSTALLED := $(VENV)/installed-$(TORCH)
TRANSFORMERS := $(shell sed -nE 's/^ *"transformers(>=[^"]+)".*/\1/p' pyproject.toml)
LLM_TESTS := tests/unit/llm_sources tests/unit/models
comma := ,
SITE_PACKAGES := import sysconfig; print(sysconfig.get_path("purelib"))
TORCH_PIN := $(shell grep '^torch==' requirements.lock)

export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help repro test test-all test-slow test-transformers benchmark docs lint format lock clean no-scm
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

repro: $(INSTALLED) no-scm  ## run the pipeline (whatever is not up to date), then print a summary
	@$(BIN)/python -m pipelines.doctor
	@$(BIN)/dvc repro
	@$(BIN)/python -m pipelines.summary

# The tests of infra/ take part unless all that decides about them is as it was when they passed last.
test: lint  ## lint, types, unit and integration tests
	$(PYTEST) $(SHARED_OUT) tests/unit tests/integration tests/gpu \
	  $$($(BIN)/python -m tests.infra_digest --check >&2 || echo tests/infra)

test-all: lint  ## the same with the tests of infra/ in any case; says in tests/infra/passed.json that they passed
	$(PYTEST) $(SHARED_OUT) tests/unit tests/integration tests/gpu tests/infra
	$(BIN)/python -m tests.infra_digest --write

test-slow: $(INSTALLED)  ## the tests that take minutes each
	$(PYTEST) -m slow

test-transformers: $(INSTALLED)  ## the LLM and model tests with the oldest and the newest transformers that pyproject.toml allows
	$(call test-with-transformers,oldest,transformers==$(firstword $(subst $(comma), ,$(subst >=, ,$(TRANSFORMERS)))))
	$(call test-with-transformers,newest,transformers$(TRANSFORMERS))

# $(1): its name, $(2): what to install. An environment of its own on top of the usual one, which is left as it is: what
# another transformers needs in other versions is installed into it, and the rest is found below.
define test-with-transformers
@"$$($(BIN)/python -c 'import sys; print(sys._base_executable)')" -m venv --clear .cache/transformers-$(1)
@$(BIN)/python -c '$(SITE_PACKAGES)' > "$$(.cache/transformers-$(1)/bin/python -c '$(SITE_PACKAGES)')/below.pth"
@.cache/transformers-$(1)/bin/python -m pip install --quiet --upgrade "$(2)"
@.cache/transformers-$(1)/bin/python -c 'import transformers; print("transformers", transformers.__version__, "($(1))")'
.cache/transformers-$(1)/bin/python -m pytest -p no:cacheprovider -m "not slow" $(LLM_TESTS)
endef

benchmark: $(INSTALLED)  ## time `dvc repro` from nothing, stage by stage, in a clone of the last commit
	$(BIN)/python -m tests.benchmarks.pipeline

# Not --quiet: it drops the warnings before --strict counts them.
docs: $(INSTALLED)  ## build the site of docs/ and the API in build/site; a broken link or anchor is an error
	$(BIN)/python -m pip install --quiet --no-build-isolation --constraint requirements.lock -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --config-file docs/site/mkdocs.yml
	@echo "build/site/index.html; with the search: python -m http.server --directory build/site"

lint: $(INSTALLED)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@echo "lint took $$(($$(date +%s) - $(STARTED))) s"

format: $(INSTALLED)  ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The environment: made anew whenever the lock or the torch build changes, so that it holds what the lock says, no more.
$(INSTALLED): requirements.lock
	@command -v git >/dev/null || { echo "git is missing: apt-get install git"; exit 1; }
	@test -n "$(PYTHON)" || { echo "Python is missing: apt-get install python3.11 python3.11-venv"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
	  echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13: apt-get install python3.11 python3.11-venv, or make PYTHON=..."; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Python's venv module is missing: apt-get install python3.11-venv"; exit 1; }
	@echo "installing requirements.lock into $(VENV): some minutes, once"
	"$$("$(PYTHON)" -c 'import sys; print(sys._base_executable)')" -m venv --clear $(VENV)
	$(install-torch-$(TORCH))
	$(BIN)/python -m pip install --quiet --use-pep517 -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# The CPU build comes from PyTorch's own index (the package index has the CUDA build only); the lock then finds it there.
define install-torch-cpu
$(BIN)/python -m pip install --quiet --no-deps $(TORCH_PIN) --index-url $(TORCH_CPU_INDEX) --timeout 15 --retries 1 \
  || echo "$(TORCH_CPU_INDEX) cannot be reached: taking torch from the package index"
endef

# Nothing to do before: the lock's torch brings its CUDA libraries along.
define install-torch-cuda
@echo "torch with CUDA: some gigabytes to download"
endef

lock:  ## pin the newest versions that pyproject.toml allows into requirements.lock
	"$(PYTHON)" -m venv --clear .cache/lock
	.cache/lock/bin/python -m pip install --quiet --no-deps "$$(sed -nE 's/^ *"(torch>=[^"]+)".*/\1/p' pyproject.toml)" \
	  --index-url $(TORCH_CPU_INDEX) --timeout 15 --retries 1 \
	  || echo "$(TORCH_CPU_INDEX) cannot be reached: taking torch from the package index"
	.cache/lock/bin/python -m pip install --quiet -e '.[all,test]'
	.cache/lock/bin/python -m pip freeze --all --exclude pip --exclude wheel --exclude llm4seg > .cache/frozen
	{ echo "# Made by \`make lock\` from pyproject.toml. The CUDA libraries are pinned by torch itself."; \
	  sed -E 's/\+cpu$$//; /^(nvidia|cuda|triton)/d' .cache/frozen; } > requirements.lock
	rm -rf .cache/lock .cache/frozen

# A downloaded archive is no git checkout: DVC then runs without git. Undone when the folder has become a checkout.
no-scm: $(INSTALLED)
	@if [ ! -e .git ] && ! grep -qs 'no_scm = true' .dvc/config.local; then \
	  echo "not a git checkout: DVC runs without git, so without experiments and comparisons between commits"; \
	  $(BIN)/dvc config --local core.no_scm true; \
	elif [ -e .git ] && grep -qs 'no_scm = true' .dvc/config.local; then \
	  $(BIN)/dvc config --local --unset core.no_scm; \
	fi

clean:  ## delete the environment, downloads and unfinished runs; data and results stay
	rm -rf $(VENV) .cache .runs .tracking .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
