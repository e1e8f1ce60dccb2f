# docker buildx bake --file images/docker-bake.hcl [TARGET]: every image, for both architectures.
# `make images` builds the same targets without buildx, for this machine's architecture.

variable "PYTHON" { default = "3.13" }
variable "VERSION" { default = "dev" }
variable "REVISION" { default = "unknown" }
variable "REGISTRY" { default = "" }
# A miniforge image for conda-starlette: it then has conda and mamba. Empty: the Python image.
variable "CONDA_BASE" { default = "" }

group "default" {
  targets = ["images", "slim", "conda-starlette"]
}

# As `make publish` pushes them: the default Python's has the short name too, and one tag never moves.
function "tags" {
  params = [target]
  result = concat(PYTHON == "3.13" ? ["${REGISTRY}mooring:${target}"] : [], [
    "${REGISTRY}mooring:${target}-python${PYTHON}",
    "${REGISTRY}mooring:${target}-python${PYTHON}-${VERSION}",
  ])
}

target "common" {
  context    = "."
  dockerfile = "images/Dockerfile"
  platforms  = ["linux/amd64", "linux/arm64"]
  args = {
    PYTHON   = PYTHON
    VERSION  = VERSION
    REVISION = REVISION
  }
}

target "images" {
  name     = target
  inherits = ["common"]
  target   = target
  tags     = tags(target)
  matrix = {
    target = [
      "base", "starlette", "fastapi", "flask",
      "base-nonroot", "starlette-nonroot", "fastapi-nonroot", "flask-nonroot",
      "hypercorn", "inboard-base", "inboard-starlette", "inboard-fastapi", "poetry", "meinheld-flask",
      "uvicorn-gunicorn", "uvicorn-gunicorn-starlette", "uvicorn-gunicorn-fastapi",
    ]
  }
}

# The drop-ins that stand on the full Python image, without compilers, curl and git.
target "slim" {
  name     = "${target}-slim"
  inherits = ["common"]
  target   = target
  tags     = tags("${target}-slim")
  args     = { DROPIN_BASE = "slim" }
  matrix = {
    target = [
      "inboard-base", "inboard-starlette", "inboard-fastapi", "meinheld-flask",
      "uvicorn-gunicorn", "uvicorn-gunicorn-starlette", "uvicorn-gunicorn-fastapi",
    ]
  }
}

target "conda-starlette" {
  inherits = ["common"]
  target   = "conda-starlette"
  tags     = tags("conda-starlette")
  args = {
    BASE = CONDA_BASE != "" ? CONDA_BASE : "python:${PYTHON}-slim-bookworm"
  }
}
