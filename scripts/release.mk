# What a release takes, each step on its own; .github/workflows/publish.yml calls them: docs/how-to/release.md.

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
REVISION := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
# The local images' name, as `make images` gives it.
IMAGE_NAME ?= mooring
SUFFIX = $(if $(filter-out 3.13,$(IMAGE_PYTHON)),-python$(IMAGE_PYTHON))
# One on each base image: the slim Python image, and the full one.
SCANNED := base uvicorn-gunicorn
NEED_REGISTRY = $(or $(REGISTRY),$(error REGISTRY=... is missing: where to push to, as REGISTRY=ghcr.io/someone))
# What an image is published as: TARGET (the default Python's), TARGET-python3.12, and one that never moves.
published = $(if $(filter 3.13,$(IMAGE_PYTHON)),$1) $1-python$(IMAGE_PYTHON) $1-python$(IMAGE_PYTHON)-$(VERSION)

.PHONY: version-check scan publish publish-all-platforms dist sdist wheel wheels dist-check upload

## A tag, the package's version, its own word and the changelog say the same: make version-check TAG=v0.1.0
version-check:
	@python3 scripts/version_check.py $(TAG)

## Known vulnerabilities of what the images hold. Exit code 1: some were found; 3: not everything could be looked up.
scan: $(STAMP)
	@$(BIN)/python scripts/scan.py --docker $(DOCKER) $(SCANNED:%=--image $(IMAGE_NAME):%$(SUFFIX)) $(SCAN_OPTIONS)

## Push what `make images` has built, for this machine's architecture, under all its tags.
publish: $(IMAGES:%=publish-%)

publish-%:
	@for tag in $(call published,$*); do set -e; \
	  $(DOCKER) tag $(IMAGE_NAME):$*$(SUFFIX) $(NEED_REGISTRY)/mooring:$$tag; \
	  $(DOCKER) push --quiet $(REGISTRY)/mooring:$$tag; done

## The same for amd64 and arm64, built by buildx: needs buildx, and QEMU for the other architecture.
publish-all-platforms:
	REGISTRY=$(NEED_REGISTRY)/ PYTHON=$(IMAGE_PYTHON) VERSION=$(VERSION) REVISION=$(REVISION) \
	  $(DOCKER) buildx bake --file images/docker-bake.hcl --push $(BAKE_OPTIONS)

## The source archive, and a wheel with the accelerator for this machine and this Python, in dist/.
dist: sdist wheel dist-check

sdist: $(STAMP)
	$(BIN)/python -m build --sdist --outdir dist .

wheel: sdist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist dist/mooring-$(VERSION).tar.gz

## The wheels that PyPI takes: manylinux and musllinux, amd64 and arm64. Needs Docker and its images from quay.io.
wheels: $(STAMP)
	$(BIN)/python -m pip install --quiet --group wheels
	$(BIN)/python -m cibuildwheel --platform linux --output-dir dist

dist-check: $(STAMP)
	$(BIN)/twine check --strict dist/*

## Upload dist/ to PyPI, or with REPOSITORY_URL=... elsewhere. On the forge it is trusted by its identity.
upload: dist-check
	$(BIN)/twine upload --non-interactive $(if $(REPOSITORY_URL),--repository-url $(REPOSITORY_URL)) dist/*
