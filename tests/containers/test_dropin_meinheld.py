"""The meinheld-flask image's scenarios by their numbers: users' Dockerfiles, real containers and meinheld.

What its entry point tells other commands (scenario 29): test_image_entry_points_docker.py.
"""

from __future__ import annotations

import json
import re

import pytest
from dropin import again, check, conf, edit, ends, envs, summary

pytestmark = pytest.mark.docker

CONF = "/gunicorn_conf.py"
DOCKERFILE = "FROM mooring:meinheld-flask\n\nCOPY ./app /app\n"
CLASS = "egg:meinheld#gunicorn_worker"
FLASK = """
import os

from flask import Flask

NAME = Flask(__name__)


@NAME.route("/")
def hello():
    return "Hello World from Flask"


@NAME.route("/env")
def env():
    return dict(os.environ)
"""
DEMO = "Hello world! From mooring, {} and Python {}"
# As docs/engines.md has it: its release of 2020, built for today's greenlet where there is a compiler.
MEINHELD = """
FROM python:{python}-slim-bookworm AS builder
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null
RUN pip install greenlet setuptools && \
    pip wheel --no-deps --no-build-isolation --wheel-dir /wheels meinheld==1.0.2

FROM {base}
RUN --mount=from=builder,source=/wheels,target=/wheels pip install --no-deps --force-reinstall /wheels/*
COPY ./app /app
"""


def flask(text: str = "Hello World from Flask", name: str = "app") -> str:
    return FLASK.replace("NAME", name).replace("Hello World from Flask", text)


@pytest.fixture(scope="module")
def user(images):
    files = {
        "app/app/main.py": flask("inner"),
        "app/main.py": flask("outer"),
        "app/custom_app/custom_main.py": flask("custom", "api"),
        "app/prestart.sh": '#! /usr/bin/env bash\n[[ -n $BASH ]] && . "/app/$HOOK.sh"\n',
        "app/exports.sh": "export FOO=1; BAR=2\n",
        "app/redirects.sh": "APP_MODULE=main:app; GUNICORN_CONF=/app/other_conf.py\n",
        "app/other_conf.py": "workers = 1\nloglevel = 'warning'\n",
    }
    return images.user(DOCKERFILE, files)


def test_h29_with_nothing_given(images, start, cores):
    """The demo answers as HTML, by two workers for each core; there is no access log."""
    container = start(images.target("meinheld-flask"))
    answer = container.get()
    assert (answer.status_code, answer.text) == (200, DEMO.format("granian", "3.13"))
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    expected = {"loglevel": "info", "workers": 2 * cores, "bind": "0.0.0.0:80"}
    expected |= {"workers_per_core": 2.0, "host": "0.0.0.0", "port": "80"}
    status = container.serving()
    assert (status["interface"], status["size"]) == ("wsgi", 2 * cores)
    assert conf(container, CONF) == summary(container) == expected
    assert list(conf(container, CONF)) == list(summary(container)) == list(expected)
    head = container.output()[0].splitlines()[:3]
    assert head[:2] == ["Checking for script in /app/prestart.sh", "Running script /app/prestart.sh"]
    assert head[2].startswith("Running inside /app/prestart.sh")
    again(container)
    assert "GET /" not in container.logs()


def test_h29_half_a_worker_for_each_core(user, start, cores):
    """No minimum of two, but at least one. The hook's exports count."""
    container = start(user, *envs(WORKERS_PER_CORE=0.5, HOOK="exports"))
    assert container.text() == "inner"
    environ = json.loads(container.text("/env"))
    assert environ["FOO"] == "1"
    assert "BAR" not in environ
    workers = max(1, cores // 2)
    assert container.serving()["size"] == conf(container, CONF)["workers"] == workers
    assert summary(container)["workers"] == workers
    # What a start with other variables would take:
    assert check(container)["application"]["target"] == "app.main:app"
    assert check(container, MAX_WORKERS=1, WORKERS_PER_CORE=3)["plan"]["workers"]["value"] == 1
    again(container)


def test_the_hook_redirects_to_another_application_and_configuration(user, start):
    """Without an export, as in the older image, whose entry point had exported both."""
    container = start(user, *envs(HOOK="redirects", MODULE_NAME="custom_app.custom_main"))
    assert container.text() == "outer"
    status = container.status()
    assert (status["application"], status["conf"]) == ("main:app", "/app/other_conf.py")
    assert status["plan"]["engine"]["value"] == "gunicorn"
    again(container)
    assert "serving" not in container.logs()  # by its log level


def test_gunicorns_arguments(user, start):
    """They bring gunicorn, and are how the older image's access log was turned on."""
    environ = {"GUNICORN_CMD_ARGS": "--access-logfile - --workers 2", "BIND": "0.0.0.0:8080", "PORT": 1}
    container = start(user, *envs(**environ, WEB_CONCURRENCY=1, HOOK="exports"), port=8080)
    assert container.text() == "inner"
    plan = container.status()["plan"]
    assert (plan["engine"]["value"], plan["workers"]["value"]) == ("gunicorn", 2)
    line = container.wait_log('"GET / HTTP/1.1" 200')
    assert re.fullmatch(r'[\d.]+ - - \[.+\] "GET / HTTP/1\.1" 200 5 "-" "python-httpx/.+"', line)
    again(container)


def test_start_reload(user, start):
    container = start(user, *envs(HOOK="exports"), command=("/start-reload.sh",))
    assert container.text() == "inner"
    edit(container, "/app/app/main.py", flask("two"))
    container.until(lambda: container.text() == "two", "the new body")
    ends(container)


def test_h30_one_worker(user, start):
    environ = {"WEB_CONCURRENCY": 1, "HOST": "0.0.0.0", "PORT": 8080, "LOG_LEVEL": "warning"}
    container = start(user, *envs(**environ, HOOK="exports"), port=8080)
    assert container.text() == "inner"
    assert container.serving()["size"] == 1
    shown = conf(container, CONF)
    assert shown == summary(container)
    assert (shown["workers"], shown["bind"], shown["loglevel"]) == (1, "0.0.0.0:8080", "warning")
    again(container)


@pytest.mark.parametrize("python", ["3.12", "3.13"])
def test_real_meinheld(images, start, python):
    """On Python 3.12 it serves; from 3.13 on, one line says what serves instead."""
    base = images.target("meinheld-flask-slim", python=python)
    image = images.user(MEINHELD.format(python=python, base=base), {"app/main.py": flask()})
    container = start(image, *envs(WORKER_CLASS=CLASS, WEB_CONCURRENCY=2, ACCESS_LOG="-"))
    answer = container.get()
    assert (answer.status_code, answer.text) == (200, "Hello World from Flask")
    if python == "3.12":
        assert answer.headers["server"] == "meinheld/1.0.2"
        assert container.status()["plan"]["engine"]["value"] == "gunicorn"
        container.wait_log(f"Using worker: {CLASS}")
    else:
        line = f"WORKER_CLASS={CLASS} is ignored (meinheld cannot be imported by this Python): granian serves"
        assert container.logs().count(line) == 1
        assert container.status()["engine"] == "granian"
    container.wait_log('"GET / HTTP/1.1" 200')
    again(container)


FROZEN = """click==8.0.1
Flask==2.0.1
greenlet==0.4.17
gunicorn==20.1.0
itsdangerous==2.0.1
Jinja2==3.0.1
MarkupSafe==2.0.1
meinheld==1.0.2
Werkzeug==2.0.1
"""


def test_a_frozen_file_with_meinheld_installs_and_the_image_serves(images, start):
    """So does the application's own gunicorn with the worker class that it names."""
    text = "FROM mooring:meinheld-flask\nCOPY requirements.txt /\nRUN pip install -q -r /requirements.txt\n"
    image = images.user(text + "COPY ./app /app\n", {"requirements.txt": FROZEN, "app/main.py": flask()})
    container = start(image, *envs(WORKER_CLASS=CLASS, WEB_CONCURRENCY=1))
    assert container.text() == "Hello World from Flask"
    line = (
        f"WORKER_CLASS={CLASS} is ignored (what stands in for it here are gunicorn's threads): granian serves"
    )
    assert container.logs().count(line) == 1
    ends(container)
    command = ("gunicorn", "-k", CLASS, "-c", CONF, "main:app")
    gunicorn = start(image, *envs(WEB_CONCURRENCY=1), command=command)
    assert gunicorn.text() == "Hello World from Flask"
    assert "Starting gunicorn 20.1.0" in gunicorn.logs()
    assert f"Using worker: {CLASS}" in gunicorn.logs()
    ends(gunicorn)


def test_the_images_own_gunicorn_takes_the_worker_class_too(images, start):
    """As a command, and as mooring's engine by its arguments; a program may call meinheld itself."""
    files = {"app/main.py": flask(), "app/serve.py": "import main, meinheld\nmeinheld.run(main.app)\n"}
    image = images.user(DOCKERFILE, files)
    gunicorn = start(image, command=("gunicorn", "--bind", "0.0.0.0:80", "-k", CLASS, "main:app"))
    container = start(image, *envs(GUNICORN_CMD_ARGS=f"-k {CLASS}", WEB_CONCURRENCY=1))
    program = start(image, command=("python", "serve.py"), port=8000)
    for each in (gunicorn, container, program):
        assert each.text() == "Hello World from Flask"
    assert container.status()["engine"] == "gunicorn"
    for each in (gunicorn, container, program):
        ends(each)
