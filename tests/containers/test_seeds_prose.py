"""What the documentation shows besides Dockerfiles and docker lines: hooks, and 003's project."""

from __future__ import annotations

import json

import pytest
from container import Starter
from images import Images
from seeds.applications import ANSWERS, FASTAPI, files
from seedtools import AUTHORITIES, locked

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

TARGETS = {"000": "hypercorn", "001": "conda-starlette", "004": "meinheld-flask"}

MIGRATIONS = {
    "app/prestart.sh": """#! /usr/bin/env bash

# Let the DB start
sleep 10;
# Run migrations
alembic upgrade head
""",
    "app/alembic.ini": "[alembic]\nscript_location = /app/migrations\nsqlalchemy.url = sqlite:////tmp/things.db\n",
    "app/migrations/env.py": """
from alembic import context
from sqlalchemy import create_engine

with create_engine(context.config.get_main_option("sqlalchemy.url")).connect() as connection:
    context.configure(connection=connection, target_metadata=None)
    with context.begin_transaction():
        context.run_migrations()
""",
    "app/migrations/versions/first.py": """
import sqlalchemy
from alembic import op

revision, down_revision = "1", None

def upgrade():
    op.create_table("things", sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True))
""",
}
TABLES = """
import sqlite3
print(sqlite3.connect("/tmp/things.db").execute("select name from sqlite_master").fetchall())
"""
CUSTOM = """#! /usr/bin/env bash

# Run custom Python script before starting
python /app/my_custom_prestart_script.py
"""


@pytest.mark.parametrize("seed", TARGETS)
def test_migrations_run_before_the_start(images: Images, start: Starter, seed: str) -> None:
    """`sleep 10; alembic upgrade head`, as in all three."""
    text = f"FROM mooring:{TARGETS[seed]}\nRUN pip install alembic\nCOPY ./app /app\n"
    container = start(images.user(text, {**files(seed, "plain"), **MIGRATIONS}))
    assert container.text() == ANSWERS[seed]
    assert "'things'" in container.execute("python", "-c", TABLES)[1]


@pytest.mark.parametrize("seed", TARGETS)
def test_a_python_script_runs_before_the_start(images: Images, start: Starter, seed: str) -> None:
    scripts = {"app/prestart.sh": CUSTOM, "app/my_custom_prestart_script.py": 'print("from the script")\n'}
    text = f"FROM mooring:{TARGETS[seed]}\nCOPY ./app /app\n"
    container = start(images.user(text, {**files(seed, "plain"), **scripts}))
    assert container.text() == ANSWERS[seed]
    assert "from the script" in container.logs().splitlines()


# 003: what its pyproject.toml must at least contain, but for the Python, which is no image's any more.
PROJECT = """
[tool.poetry]
name = "example"
version = "1.0.0"
description = "An application"
authors = ["Somebody <somebody@example.com>"]

[tool.poetry.dependencies]
python = "{python}"
gunicorn = "20.1.0"
uvicorn = "0.15.0"
fastapi = "0.70.0"

[tool.poetry.dev-dependencies]
isort = "5.13.2"

[[tool.poetry.source]]
name = "simple"
url = "https://pypi.org/simple/"

[build-system]
requires = ["poetry-core>=1.0.0"]
build-backend = "poetry.core.masonry.api"
"""
# Its documentation has no Dockerfile, and names the variables and folders that one has to use.
DOCKERFILE = f"""
FROM mooring:poetry
ARG {AUTHORITIES}
WORKDIR /application_root
COPY pyproject.toml poetry.lock /application_root/
RUN poetry install --no-dev --no-interaction --no-root
COPY app /application_root/app/
"""
LAYOUT = {"app/__init__.py": "", "app/main.py": FASTAPI.format(name="app", text="Hello World!")}
DEFAULTS = {
    "bind": "0.0.0.0:80", "workers": 1, "timeout": 30, "graceful_timeout": 30, "keepalive": 2,
    "loglevel": "info", "errorlog": "-", "accesslog": "-", "reload": False, "worker_tmp_dir": "/dev/shm",
}  # fmt: skip


def test_the_versions_that_003_demands_are_served_by_ours(images: Images, start: Starter) -> None:
    """gunicorn 20.1.0 and uvicorn 0.15.0 in the application's environment, which mooring doesn't run."""
    project = PROJECT.format(python=">=3.11,<3.14")
    context = {**LAYOUT, "pyproject.toml": project, "poetry.lock": locked(images, "poetry", project)}
    container = start(images.user(DOCKERFILE, context))
    assert container.text() == '{"message":"Hello World!"}'
    versions = "import fastapi, uvicorn; print(fastapi.__version__, uvicorn.__version__)"
    found = container.execute("python", "-c", versions)
    assert found[1].split() == ["0.70.0", "0.15.0"]
    assert container.execute("python", "-c", "import isort")[0] == 1, "it is for development only"
    code, printed = container.execute("python", "/application_server/gunicorn_configuration.py")
    assert (code, json.loads(printed)) == (0, DEFAULTS)
    assert container.stop() == 0


def test_the_python_that_003_demands_is_refused_by_its_name(images: Images) -> None:
    """`python = "3.9.8"`: no image is for it, so a user changes this line too. Poetry says so."""
    context = {**LAYOUT, "pyproject.toml": PROJECT.format(python="3.9.8"), "poetry.lock": "package = []\n"}
    assert "3.9.8" in images.refuses(DOCKERFILE, context)
