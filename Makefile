# The two commands of the README do all the set-up: `make run` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Test files that run at once: most tests wait for processes. 0: one after the other, in this process.
JOBS ?= 3
STAMP := $(VENV)/.installed

# The images: `make images` for Python 3.13, `make images PYTHON=3.12` for another.
IMAGE_PYTHON := $(or $(filter 3.%,$(PYTHON)),3.13)
# Those on the full Python image (compilers, curl, git), which have a tag on the slim one beside.
SLIM := inboard-base inboard-starlette inboard-fastapi meinheld-flask \
  uvicorn-gunicorn uvicorn-gunicorn-starlette uvicorn-gunicorn-fastapi
IMAGES := base starlette fastapi flask base-nonroot starlette-nonroot fastapi-nonroot flask-nonroot \
  hypercorn conda-starlette inboard-base inboard-starlette inboard-fastapi poetry meinheld-flask \
  uvicorn-gunicorn uvicorn-gunicorn-starlette uvicorn-gunicorn-fastapi \
  $(SLIM:%=%-slim)
DOCKER ?= $(or $(wildcard /usr/bin/docker),docker)
BUILD_OPTIONS ?= --network host

.PHONY: run test lint format docs containers longrun sanitize fuzz images lock-images conf clean

## Serve the example application with mooring; Ctrl-C drains and stops it.
run: $(STAMP)
	@$(BIN)/mooring run --app-root examples/hello

## All tests that need no Docker; TESTS names a part of them.
test: $(STAMP)
	@$(BIN)/python -m pytest $(if $(filter-out 0,$(JOBS)),-n $(JOBS) --dist loadfile) $(TESTS)

## Linters and types.
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

## Tests that need a running Docker engine.
containers: $(STAMP)
	$(BIN)/python -m pytest tests/containers

## The long tests: 30 rolls, 60 kills and 200 recycles on the engines, the soak; images that CI doesn't try, where there is a
## Docker engine; fuzzing. Some 75 minutes.
longrun: $(STAMP)
	$(BIN)/python -m pytest -m longrun tests
	$(MAKE) fuzz

# What runs on the accelerator, and REQUESTS that misuse it; SEED makes the same ones again.
SANITIZED := tests/unit/instrument tests/unit/scoreboard tests/unit/engines/granian
REQUESTS ?= 100000

## The accelerator under AddressSanitizer and UndefinedBehaviorSanitizer. Some 3 minutes.
sanitize: $(STAMP)
	@$(BIN)/python scripts/sanitize.py build/sanitize sh -c '\
	  $(BIN)/python -X faulthandler tests/fuzz/hostile.py --requests $(REQUESTS) $(if $(SEED),--seed $(SEED)) & misused=$$!; \
	  $(BIN)/python -X faulthandler -m pytest -q -n 2 --dist loadfile -p no:cacheprovider --timeout 600 $(SANITIZED); \
	  tested=$$?; wait $$misused && exit $$tested'

# For each of TARGETS (by default all), what comes first.
RUNS ?= 5000000
SECONDS ?= 110

## What parses foreign bytes, fed by atheris: some 10 million inputs in 25 minutes.
fuzz: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group fuzz
	@$(BIN)/python tests/fuzz/parsers.py --guided --runs $(RUNS) --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(TARGETS)

## All images, tagged mooring:TARGET; other Pythons than the default mooring:TARGET-python3.12.
images: $(IMAGES:%=image-%)

image-%:
	@DOCKER_BUILDKIT=1 $(DOCKER) build --quiet $(BUILD_OPTIONS) --file images/Dockerfile --target $(*:%-slim=%) \
	  $(if $(filter %-slim,$*),--build-arg DROPIN_BASE=slim) \
	  --build-arg PYTHON=$(IMAGE_PYTHON) \
	  --build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) \
	  --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) \
	  --tag mooring:$*$(if $(filter-out 3.13,$(IMAGE_PYTHON)),-python$(IMAGE_PYTHON)) .

## The images' pinned packages, anew (needs uv).
lock-images:
	$(BIN)/python scripts/lock_images.py

## The configuration files at the older images' paths (images/conf), and the sums by which mooring knows them.
conf: $(STAMP)
	@$(BIN)/python scripts/make_conf.py

## The generated documentation: pages, and sections of pages.
docs: $(STAMP)
	@$(BIN)/python scripts/make_docs.py

include scripts/release.mk

$(STAMP): pyproject.toml setup.py constraints.txt scripts/make_venv.py $(wildcard src/accelerator/*)
	@$(PYTHON) scripts/make_venv.py $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) dist build src/mooring/*.so .mypy_cache .ruff_cache .pytest_cache
