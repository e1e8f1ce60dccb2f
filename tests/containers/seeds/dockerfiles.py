"""Every Dockerfile of the older images' documentation, and every other docker command in it."""

from __future__ import annotations

from .applications import HOOK_MARK
from .looks import answers, contains, logs, workers
from .row import Dockerfile, Other

# What the documentation calls the images, and ours in their place.
OURS = {
    "cormorack/hypercorn:python3.7-conda4.9.2": "mooring:hypercorn",
    "mkeller7/conda-starlette:python3.7": "mooring:conda-starlette",
    "docker.pkg.github.com/br3ndonland/inboard/base": "mooring:inboard-base",
    "docker.pkg.github.com/br3ndonland/inboard/fastapi": "mooring:inboard-fastapi",
    "docker.pkg.github.com/br3ndonland/inboard/starlette": "mooring:inboard-starlette",
    "tiangolo/meinheld-gunicorn-flask:python3.9": "mooring:meinheld-flask",
    "python:3.9": "mooring:base",
}

DOCKERFILES = (
    Dockerfile(
        "000",
        "How to use",
        "FROM cormorack/hypercorn:python3.7-conda4.9.2\nCOPY ./app /app\n",
        "plain",
        (answers(), workers(per_core=1)),
    ),
    Dockerfile(
        "001",
        "How to use",
        "FROM mkeller7/conda-starlette:python3.7\nCOPY ./app /app\n",
        "package",
        (answers(), workers(per_core=1)),
    ),
    Dockerfile(
        "001",
        "Quick Start",
        "FROM mkeller7/conda-starlette:python3.7\nCOPY ./app /app\n",
        "plain",
        (answers(), workers(per_core=1)),
    ),
    Dockerfile(
        "002",
        "Use images in a _Dockerfile_",
        "FROM docker.pkg.github.com/br3ndonland/inboard/fastapi\n"
        "COPY poetry.lock pyproject.toml /\n"
        "RUN poetry install --no-dev --no-interaction --no-root\n"
        "COPY package /app/\n",
        "project",
        (answers('{"message":"hello-world","isort":false}'), logs(HOOK_MARK.replace(" ", "-"))),
        "an ARG line makes Poetry trust the system's certificate authorities, for machines behind a proxy",
    ),
    Dockerfile(
        "002",
        "Configuration",
        "FROM docker.pkg.github.com/br3ndonland/inboard/fastapi\n"
        'ENV APP_MODULE="custom.module:api" WORKERS_PER_CORE="2" VARIABLE_NAME="value"\n',
        "module",
        (answers(), workers(per_core=2)),
        "`COPY package /app/` is added: the fragment brings no application",
    ),
    Dockerfile(
        "004",
        "🚨 WARNING: You Probably Don't Need this Docker Image",
        "FROM python:3.9\n"
        "WORKDIR /code\n"
        "COPY ./requirements.txt /code/requirements.txt\n"
        "RUN pip install --no-cache-dir --upgrade -r /code/requirements.txt\n"
        "COPY ./app /code/app\n"
        'CMD ["gunicorn", "--conf", "app/gunicorn_conf.py", "--bind", "0.0.0.0:80", "app.main:app"]\n',
        "alone",
        (answers(), logs("Using worker: gthread")),
        "it is for the bare Python image; on ours the same lines run gunicorn without mooring",
    ),
    Dockerfile(
        "004",
        "How to use",
        "FROM tiangolo/meinheld-gunicorn-flask:python3.9\n"
        "COPY ./requirements.txt /app/requirements.txt\n"
        "RUN pip install --no-cache-dir --upgrade -r /app/requirements.txt\n"
        "COPY ./app /app\n",
        "requirements",
        (contains("hello-world-from-flask"), workers(per_core=2)),
    ),
)

_NO_REGISTRY = "the registry's own: test_publish.py pushes our images to one, pulls and runs them"
_BUILDS = "every row of the table builds so, with a tag of its own"
_THEIRS = "builds that project's own images; `make images` builds ours"

OTHERS = (
    Other("000 001 004", "docker build -t myimage ./", _BUILDS),
    Other("001", "docker build -t myimage .", _BUILDS),
    Other("002", "docker build . -t imagename:latest", _BUILDS),
    Other("002", "docker login", _NO_REGISTRY),
    Other("002", "cat pat-github-packages.txt | docker login", _NO_REGISTRY),
    Other("002", "keybase pgp decrypt -i pat-github-packages.asc | docker login", _NO_REGISTRY),
    Other("002", "docker pull docker.pkg.github.com/br3ndonland/inboard/base", _NO_REGISTRY),
    Other("002", "docker pull docker.pkg.github.com/br3ndonland/inboard/fastapi", _NO_REGISTRY),
    Other("002", "docker pull docker.pkg.github.com/br3ndonland/inboard/starlette", _NO_REGISTRY),
    Other("002", "docker build . --target base -t localhost/br3ndonland/inboard/base:latest", _THEIRS),
    Other("002", "docker build . --target fastapi -t localhost/br3ndonland/inboard/fastapi:latest", _THEIRS),
    Other(
        "002", "docker build . --target starlette -t localhost/br3ndonland/inboard/starlette:latest", _THEIRS
    ),
    Other("004", "docker logs -f your_container_name_here", "every look at a log is `docker logs`"),
)
