"""The acceptance scenarios of the meinheld-flask image by their numbers, as docs/profiles.md promises."""

from __future__ import annotations

import platform

import pytest
from profile_tools import CORES, check, conf, serve, stop, summary

PROFILE = "meinheld-flask"
PYTHON = ".".join(platform.python_version_tuple()[:2])
FLASK = """
from flask import Flask

app = Flask(__name__)


@app.route("/")
def hello():
    return "Hello World from Flask"
"""


def test_h29_with_nothing_given(mooring):
    """The demo answers as HTML, served as WSGI, by two workers for each core."""
    app = serve(mooring, PROFILE)
    answer = app.get()
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text == f"Hello world! From mooring, granian and Python {PYTHON}"
    assert app.status()["interface"] == "wsgi"
    assert app.status()["size"] == 2 * CORES
    assert conf(PROFILE) == {
        "loglevel": "info",
        "workers": 2 * CORES,
        "bind": "0.0.0.0:80",
        "workers_per_core": 2.0,
        "host": "0.0.0.0",
        "port": "80",
    }
    assert summary(app) == {**conf(PROFILE), "bind": "127.0.0.1:0", "host": "127.0.0.1", "port": "0"}
    stop(app)


def test_h29_half_a_worker_for_each_core(mooring):
    """WORKERS_PER_CORE=0.5: no minimum of two, but at least one."""
    pytest.importorskip("flask")
    app = serve(mooring, PROFILE, {"main.py": FLASK}, WORKERS_PER_CORE=0.5)
    workers = max(1, CORES // 2)
    assert app.status()["size"] == summary(app)["workers"] == workers
    assert conf(PROFILE, WORKERS_PER_CORE=0.5)["workers"] == workers
    assert app.get().text == "Hello World from Flask"
    stop(app)


def test_h29_the_application_and_the_configuration_file_in_use(mooring):
    """`mooring check` tells both."""
    pytest.importorskip("gunicorn")
    (mooring.folder / "main.py").write_text(FLASK)
    assert check(mooring, PROFILE)["application"]["target"] == "main:app"
    (mooring.folder / "gunicorn_conf.py").write_text("workers = 1\n")
    plan = check(mooring, PROFILE)["plan"]
    assert plan["app"]["value"] == "main:app"
    assert plan["gunicorn_conf"]["value"] == f"{mooring.folder}/gunicorn_conf.py"
    assert plan["workers"]["value"] == 1
