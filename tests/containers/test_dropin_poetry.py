"""The poetry image's scenarios by their numbers: a user's multi-stage Dockerfile in real containers.

The entry points of scenario 28 and a start without .venv: test_image_entry_points_docker.py.
"""

from __future__ import annotations

import re

import pytest
from dropin import again, check, conf, edit, ends, envs, once, refused, summary

pytestmark = pytest.mark.docker

CONF = "/application_server/gunicorn_configuration.py"
# The README's own pins, but Python's: what serves is the image's, whatever is in the virtual environment.
# By PyPI's pages for pip: a mirror may not have its JSON, which Poetry takes otherwise.
PROJECT = """[[tool.poetry.source]]
name = "pages"
url = "https://pypi.org/simple/"

[tool.poetry]
name = "example"
version = "1.0.0"
description = ""
authors = []
package-mode = false

[tool.poetry.dependencies]
python = "^3.11"
gunicorn = "20.1.0"
uvicorn = "0.15.0"
fastapi = "0.70.0"
"""
EXAMPLE = """
import os

from fastapi import FastAPI

app = FastAPI()
ITEMS = {1: "sausage", 2: "ham", 3: "tofu"}


@app.get("/")
def root():
    return "Hello World!"


@app.get("/items/{number}")
def item(number: int):
    return ITEMS[number]


@app.get("/env")
def env():
    return dict(os.environ)
"""
DOCKERFILE = """
FROM mooring:poetry AS packages
WORKDIR /application_root
COPY pyproject.toml ./
RUN poetry lock && poetry install --no-interaction --no-root --no-dev

FROM mooring:poetry AS production
WORKDIR /application_root
COPY --from=packages ${VIRTUAL_ENVIRONMENT_PATH} ${VIRTUAL_ENVIRONMENT_PATH}
COPY app /application_root/app/
"""
DEFAULTS = {
    "bind": "0.0.0.0:80",
    "workers": 1,
    "timeout": 30,
    "graceful_timeout": 30,
    "keepalive": 2,
    "loglevel": "info",
    "errorlog": "-",
    "accesslog": "-",
    "reload": False,
    "worker_tmp_dir": "/dev/shm",
}


@pytest.fixture(scope="module")
def user(images):
    files = {"pyproject.toml": PROJECT, "app/__init__.py": "", "app/main.py": EXAMPLE}
    return images.user(DOCKERFILE, files)


def test_h26_the_example_project(user, start):
    """It answers; the object has the ten keys with the documented defaults; a request is one bare line."""
    container = start(user)
    assert container.text() == '"Hello World!"'
    assert container.get("/items/3").json() == "tofu"
    status = container.serving()
    assert (status["application"], status["size"]) == ("app.main:app", 1)
    assert conf(container, CONF) == summary(container) == DEFAULTS
    assert list(conf(container, CONF)) == list(summary(container)) == list(DEFAULTS)
    line = container.wait_log('"GET / HTTP/1.1" 200')
    assert re.fullmatch(r'[\d.]+:\d+ - "GET / HTTP/1\.1" 200', line)
    assert line in container.output()[0]
    assert container.output()[0].splitlines()[0] == "Activating virtual environment..."
    environ = container.get("/env").json()
    assert environ["VIRTUAL_ENV"] == environ["VIRTUAL_ENVIRONMENT_PATH"] == "/application_root/.venv"
    code, found = container.execute("poetry", "config", "virtualenvs.in-project")
    assert (code, found.strip()) == (0, "true")
    again(container)


def test_h26_workers_timeout_and_the_other_variables(user, start):
    """As the object says, so it is planned; HOST and PORT count while there is no BIND (decision 5)."""
    environ = {"WORKERS": 2, "TIMEOUT": 20, "GRACEFUL_TIMEOUT": 10, "KEEP_ALIVE": 5, "LOG_LEVEL": "warning"}
    environ |= {"BIND": "0.0.0.0:8080", "ACCESS_LOG": "/tmp/a.log", "ERROR_LOG": "", "WORKER_TMP_DIR": "/tmp"}
    container = start(user, *envs(**environ, WEB_CONCURRENCY=3), port=8080)
    container.text()
    assert container.serving()["size"] == 2
    assert conf(container, CONF) == summary(container)
    assert summary(container) == {
        "bind": "0.0.0.0:8080",
        "workers": 2,
        "timeout": 20,
        "graceful_timeout": 10,
        "keepalive": 5,
        "loglevel": "warning",
        "errorlog": None,
        "accesslog": "/tmp/a.log",
        "reload": False,
        "worker_tmp_dir": "/tmp",
    }
    container.until(lambda: '"GET / HTTP/1.1" 200' in container.execute("cat", "/tmp/a.log")[1], "its line")
    assert check(container, BIND="", PORT=81)["plan"]["bind"]["value"] == ["0.0.0.0:81"]
    again(container)
    assert container.output()[1] == ""
    assert "GET /" not in container.output()[0]


def test_h26_a_gunicorn_configuration_of_the_users_own(user, start):
    """gunicorn serves where its configuration is given, by the image's own release."""
    container = start(user, *envs(GUNICORN_CMD_ARGS="--workers 2", WORKERS=1))
    assert container.text() == '"Hello World!"'
    plan = container.status()["plan"]
    assert (plan["engine"]["value"], plan["workers"]["value"]) == ("gunicorn", 2)
    again(container)


def test_h26_no_application(docker, images, user):
    image = images.user(f"FROM {user}\nRUN rm -r /application_root/app\n")
    assert "/application_root/app/main.py" in refused(once(docker, image), 3)


def test_h27_reload(user, start):
    """A touched file is named on the log; a changed one changes the body."""
    container = start(user, *envs(RELOAD="True", LOG_LEVEL="debug"))
    assert container.text() == '"Hello World!"'
    shown = {**DEFAULTS, "reload": True, "loglevel": "debug"}
    assert conf(container, CONF) == summary(container) == shown
    assert conf(container, CONF, RELOAD="False")["reload"] is False
    reloading = "Worker reloading: /application_root/app/main.py modified"
    assert container.execute("touch", "/application_root/app/main.py")[0] == 0
    container.wait_log(reloading)
    container.wait_log("rolled: generation 2")
    edit(container, "/application_root/app/main.py", EXAMPLE.replace("Hello World!", "two"))
    container.until(lambda: container.text() == '"two"', "the new body")
    assert container.logs().count(reloading) >= 2
    ends(container)


def test_h30_one_worker_and_start_sh(user, start):
    """/start.sh starts it too, on the same environment."""
    container = start(user, *envs(WORKERS=1), command=("/start.sh",))
    assert container.text() == '"Hello World!"'
    assert container.serving()["size"] == 1
    assert conf(container, CONF) == summary(container) == DEFAULTS
    again(container)
