"""The acceptance scenarios of the poetry image by their numbers, as docs/profiles.md promises."""

from __future__ import annotations

import os

import pytest
from harness import eventually
from profile_tools import conf, refused, says, serve, start, stop, summary

PROFILE = "poetry"
EXAMPLE = """
from fastapi import FastAPI

app = FastAPI()
ITEMS = {1: "sausage", 2: "ham", 3: "tofu"}


@app.get("/")
def root():
    return "Hello World!"


@app.get("/items/{number}")
def item(number: int):
    return ITEMS[number]
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


def test_h26_the_example_project(mooring):
    """It answers; the object has the ten keys with the documented defaults."""
    pytest.importorskip("fastapi")
    app = serve(mooring, PROFILE, {"app/__init__.py": "", "app/main.py": EXAMPLE})
    assert app.get().body == b'"Hello World!"'
    assert app.get("/items/3").json() == "tofu"
    assert app.status()["application"] == "app.main:app"
    assert app.status()["size"] == 1
    assert conf(PROFILE) == DEFAULTS
    assert list(conf(PROFILE)) == list(DEFAULTS)
    assert summary(app) == {**DEFAULTS, "bind": "127.0.0.1:0"}
    stop(app)


def test_h26_workers_and_timeout(mooring):
    """WORKERS=2 TIMEOUT=20 are 2 and 20."""
    app = serve(mooring, PROFILE, {"app/main.py": says("hi")}, WORKERS=2, TIMEOUT=20, BIND="127.0.0.1:0")
    assert app.status()["size"] == len(app.ready()) == 2
    shown = summary(app)
    assert shown == {**DEFAULTS, "bind": "127.0.0.1:0", "workers": 2, "timeout": 20}
    assert conf(PROFILE, WORKERS=2, TIMEOUT=20, BIND="127.0.0.1:0") == shown
    stop(app)


def test_h26_no_application(mooring):
    """The image ships none: exit code 3, and where it looked."""
    assert "app/main.py" in refused(start(mooring, PROFILE), 3)


def test_h27_reload(mooring):
    """RELOAD=True: a touched file is named on the log, a changed one changes the body; the object says so."""
    app = start(mooring, PROFILE, files={"app/main.py": says("one")}, RELOAD="True", LOG_LEVEL="debug")
    app.wait_log("] serving")
    assert app.get().text == "one"
    shown = summary(app)
    assert shown == {**DEFAULTS, "bind": "127.0.0.1:0", "reload": True, "loglevel": "debug"}
    assert conf(PROFILE, RELOAD="True", LOG_LEVEL="debug") == {**shown, "bind": "0.0.0.0:80"}
    reloading = f"Worker reloading: {app.folder}/app/main.py modified"
    os.utime(app.folder / "app/main.py")
    app.wait_log(reloading)
    app.wait_log("rolled: generation 2")
    app.write("app/main.py", says("two"))
    app.wait_log(reloading, count=2)
    eventually(lambda: app.get().text == "two", "the new body")
    stop(app)


def test_h27_reload_false_is_off(mooring):
    """RELOAD=False means what it says."""
    app = serve(mooring, PROFILE, {"app/main.py": says("hi")}, RELOAD="False")
    assert app.status()["plan"]["reload"]["value"] is False
    assert summary(app)["reload"] is conf(PROFILE, RELOAD="False")["reload"] is False
    stop(app)
