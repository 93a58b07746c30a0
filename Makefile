# Every target sets up what it needs; `make help` lists them.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.set-up
SOURCES := generator templates tests bench docs
# Tests that start services and wait for them.
SERVICES := $(addprefix tests/test_,blocks.py ci.py events.py faults.py http_limits.py serve.py site.py soak.py starting.py tutorial.py watch.py worker.py)
PORT ?= 8000
# Options of the targets that ask Modal; empty where nothing is given.
IN_ENV = $(if $(ENV),--env $(ENV))
BREAKING = $(if $(filter-out 0,$(ALLOW_BREAKING)),--allow-breaking)

.DEFAULT_GOAL := help
.PHONY: help setup validate lock build serve watch plan deploy status logs rollback stop test test-services test-browser test-engine test-modal test-api fuzz lint golden docs pictures bench bench-validate bench-front bench-download bench-recovery bench-watch soak clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with all that is needed; does nothing when nothing changed

validate: $(STAMP) ## check gpu.yaml, models.yaml and workflows/*.yaml; VERBOSE=1
	@$(RUN) -m generator validate $(if $(filter-out 0,$(VERBOSE)),--verbose)

lock: $(STAMP) ## pin models, packs and requirements in generator.lock; UPDATE="NAME …", CHECK=1
	@$(RUN) -m generator lock $(if $(CHECK),--check) $(if $(UPDATE),$(foreach name,$(UPDATE),--update $(name)))

build: $(STAMP) ## check the specs and render them into build/
	@$(RUN) -m generator build

serve: $(STAMP) ## build, then serve the API; PORT=8000, COMFYUI_URL= for a ComfyUI that is up
	@$(RUN) -m generator serve --port $(PORT) $(if $(COMFYUI_URL),--comfyui-url $(COMFYUI_URL))

watch: $(STAMP) ## the same, anew with each file that you save; PORT=8000, COMFYUI_URL=
	@$(RUN) -m generator watch --port $(PORT) $(if $(COMFYUI_URL),--comfyui-url $(COMFYUI_URL))

plan: $(STAMP) ## show what the next deploy changes and costs; AGAINST=manifest.json, ENV=
	@$(RUN) -m generator plan $(IN_ENV) $(BREAKING) $(if $(AGAINST),--against $(AGAINST))

deploy: $(STAMP) ## deploy to Modal; ENV=staging, SMOKE=1, ALLOW_BREAKING=1
	@$(RUN) -m generator deploy $(IN_ENV) $(BREAKING) $(if $(filter-out 0,$(SMOKE)),--smoke)

status: $(STAMP) ## say what is deployed, and how it is; ENV=
	@$(RUN) -m generator status $(IN_ENV)

logs: $(STAMP) ## show the log of what is deployed; FOLLOW=1, ENV=
	@$(RUN) -m generator logs $(IN_ENV) $(if $(filter-out 0,$(FOLLOW)),--follow)

rollback: $(STAMP) ## deploy the version before again, on a paid plan of Modal; VERSION=v3, ENV=
	@$(RUN) -m generator rollback $(IN_ENV) $(VERSION)

stop: $(STAMP) ## stop what is deployed; Volumes and Secrets stay; YES=1 does not ask, ENV=
	@$(RUN) -m generator stop $(IN_ENV) $(if $(filter-out 0,$(YES)),--yes)

test: $(STAMP) ## run the tests that are quick
	@$(RUN) -m pytest -n auto $(SERVICES:%=--ignore=%)

test-services: $(STAMP) ## run the tests that start services and wait for them
	@$(RUN) -m pytest -n auto $(SERVICES)

test-browser: $(STAMP) ## use the page at / in a Chromium, which must be installed
	@$(RUN) -m pytest -n 2 tests/browser

test-engine: $(STAMP) ## run the tests that need a real ComfyUI, which is installed first
	@$(RUN) -m tests.engine.install
	@$(RUN) -m pytest tests/engine

test-modal: $(STAMP) ## deploy to a control plane of Modal on this machine, and ask what is deployed
	@$(RUN) -m tests.modal.oldest > /dev/null
	@$(RUN) -m pytest -n 2 --dist loadfile tests/modal

test-api: $(STAMP) ## ask the API 1,000 times what its OpenAPI document allows and forbids
	@$(RUN) -m tests.fuzz_api

fuzz: $(STAMP) ## the same 10,000 times; SEED=
	@$(RUN) -m tests.fuzz_api --cases 10000 --examples 300 $(if $(SEED),--seed $(SEED))

lint: $(STAMP) ## check the code's style and types, the rendered code's too
	@$(RUN) -m generator build --quiet
	$(RUN) -m ruff check $(SOURCES) build
	$(RUN) -m ruff format --check $(SOURCES) build
	$(RUN) -m mypy $(SOURCES) build

golden: $(STAMP) ## update tests/golden and docs/reference after a change to specs, schemas or templates
	@$(RUN) -m pytest -q tests/test_golden.py tests/test_references.py --update-golden

docs: $(STAMP) ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet && \
	  echo "site/index.html; with its search: $(RUN) -m http.server --bind 127.0.0.1 --directory site"

pictures: $(STAMP) ## make the pictures of README and docs
	@$(RUN) -m docs.pictures

bench: $(STAMP) ## measure how long a build takes, against the imports that it needs
	@$(RUN) -m bench.build

bench-validate: $(STAMP) ## measure how long validate takes, against parsing the same files
	@$(RUN) -m bench.validate

bench-front: $(STAMP) ## measure what the API costs over a bare client of a real ComfyUI
	@$(RUN) -m tests.engine.install
	@$(RUN) -m bench.front

bench-download: $(STAMP) ## measure how long models take, 8 at a time against one by one
	@$(RUN) -m bench.download

bench-recovery: $(STAMP) ## measure how soon answers are good again after the engine was killed under load
	@$(RUN) -m tests.engine.install
	@$(RUN) -m bench.recovery

bench-watch: $(STAMP) ## measure how soon make watch serves what is saved
	@$(RUN) -m bench.watch

soak: $(STAMP) ## thousands of jobs of all sorts, with an engine that is killed: nothing is lost or left
	@$(RUN) -m tests.engine.install
	@$(RUN) -m bench.soak

clean: ## remove build/, .venv and caches
	rm -rf build .build-* site $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

# The requirements of gpu.yaml come second, so that what is tested is what is deployed.
$(STAMP): pyproject.toml Makefile $(wildcard gpu.yaml)
	@"$(PYTHON)" -c 'import sys; sys.version_info >= (3, 11) or sys.exit( \
	  "this needs Python 3.11 or newer; $(PYTHON) is " + sys.version.split()[0] + \
	  " (set PYTHON=/path/to/python3.11)")'
	@if command -v uv >/dev/null; then \
	  [ -x $(RUN) ] || uv venv --quiet --python "$(PYTHON)" $(VENV) || exit 1; \
	  install="uv pip install --quiet --python $(RUN)"; \
	else \
	  $(RUN) -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV) || exit 1; \
	  install="$(RUN) -m pip install --quiet --disable-pip-version-check"; \
	fi; \
	echo "setting up $(VENV) …" >&2; \
	$$install -e '.[dev,docs]' || exit 1; \
	[ -f gpu.yaml ] || exit 0; \
	if $(RUN) -m generator requirements --quiet > $(VENV)/requirements.txt; then \
	  $$install -r $(VENV)/requirements.txt && touch $@; \
	else \
	  echo "gpu.yaml has errors; its requirements are installed once they are mended" >&2; \
	fi
