"""The acceptance scenarios of the conda-starlette image by their numbers, as docs/profiles.md promises."""

from __future__ import annotations

import http.client
import platform
import re

from harness import ASGI_APP, eventually, free_port
from profile_tools import CORES, conf, refused, says, serve, start, stop, summary

PROFILE = "conda-starlette"
PYTHON = ".".join(platform.python_version_tuple()[:2])
KEYS = ["loglevel", "workers", "bind", "workers_per_core", "host", "port"]


def test_h13_with_nothing_given(mooring):
    """The demo answers as JSON; the object has exactly the six keys; idle connections are kept for 120 s."""
    app = serve(mooring, PROFILE)
    answer = app.get()
    assert answer.headers["content-type"] == "application/json"
    assert answer.body == b'{"message":"Hello world! From mooring, uvicorn and Python %s"}' % PYTHON.encode()
    assert app.get("/other").status == 404
    assert app.status()["plan"]["keep_alive"]["value"] == 120
    assert app.status()["size"] == max(CORES, 2)
    shown = summary(app)
    assert list(shown) == list(conf(PROFILE)) == KEYS
    assert conf(PROFILE) == {
        "loglevel": "info",
        "workers": max(CORES, 2),
        "bind": "0.0.0.0:80",
        "workers_per_core": 1.0,
        "host": "0.0.0.0",
        "port": "80",
    }
    stop(app)


def test_h13_the_keep_alive_setting_is_what_closes_an_idle_connection(mooring):
    """With KEEP_ALIVE=1 an idle connection is closed; with the profile's 120 s one as old is still good."""
    files = {"main.py": says("hi")}
    short = serve(mooring, PROFILE, files, KEEP_ALIVE=1, MAX_WORKERS=1)
    long = serve(mooring, PROFILE, MAX_WORKERS=1)
    closed, kept = http.client.HTTPConnection("x"), http.client.HTTPConnection("x")
    for connection, app in ((closed, short), (kept, long)):
        connection.sock = app.connect()
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"hi"
    assert closed.sock.recv(1) == b""
    kept.request("GET", "/")
    assert kept.getresponse().read() == b"hi"
    closed.close()
    kept.close()
    stop(short)
    stop(long)


def test_h14_the_hook_changes_the_environment(mooring):
    """What it exports, and what it reassigns, counts; a new variable that is not exported does not."""
    hook = "export FOO=1\nBAR=2\nWEB_CONCURRENCY=3\n"
    app = serve(mooring, PROFILE, {"main.py": ASGI_APP, "prestart.sh": hook}, WEB_CONCURRENCY=1)
    environ = app.get("/env").json()
    assert environ["FOO"] == "1"
    assert "BAR" not in environ
    assert app.status()["size"] == len(app.ready()) == summary(app)["workers"] == 3
    stop(app)


def test_h14_the_hook_redirects_without_an_export(mooring):
    """The launcher had exported these names before it sourced the hook."""
    hook = "APP_MODULE=other:app; RELOAD=1\n"
    files = {"main.py": says("main"), "other.py": says("other"), "prestart.sh": hook}
    app = start(mooring, PROFILE, files=files)
    app.wait_log("] serving")
    assert app.get().text == "other"
    assert app.status()["plan"]["reload"]["value"] is True
    stop(app)


def test_h15_a_failing_hook(mooring):
    """It ends where it fails, and so does the start, with its exit code."""
    files = {"main.py": says("hi"), "prestart.sh": "echo a; false; echo b\n"}
    app = start(mooring, PROFILE, files=files)
    refused(app, 1)
    assert app.stdout.splitlines()[2:] == ["a"]


def test_h16_a_hook_that_exits_with_0(mooring):
    """The run ends there, with 0, and without listening."""
    app = start(mooring, PROFILE, files={"main.py": says("hi"), "prestart.sh": "exit 0\n"})
    refused(app, 0)
    assert "{" not in app.stdout


def test_h17_reload(mooring):
    """Any text turns it on, at HOST:PORT, without the JSON object; an empty one does not."""
    port = free_port()
    files = {"main.py": says("one"), "gunicorn_conf.py": "raise SystemExit('read')\n"}
    app = start(mooring, PROFILE, files=files, RELOAD="false", PORT=port, BIND="127.0.0.1:1")
    app.wait_log("] serving")
    assert app.urls == [f"http://127.0.0.1:{port}"]
    assert app.status()["engine"] == "uvicorn"
    assert app.status()["size"] == 1
    app.write("main.py", says("two"))
    eventually(lambda: app.get().text == "two", "the new body")
    line = app.wait_log("GET /")
    assert re.fullmatch(r'INFO:     127\.0\.0\.1:\d+ - "GET / HTTP/1\.1" 200 OK', line)
    stop(app)
    assert "{" not in app.stdout
    app.write("gunicorn_conf.py", "# mine\n")
    app = start(mooring, PROFILE, RELOAD="")
    app.wait_log("] serving")
    assert app.status()["engine"] == "gunicorn"
    assert app.status()["plan"]["workers"]["value"] == max(CORES, 2)
    assert app.get().text == "two"
    stop(app)


def test_h18_variables_that_the_image_ignored(mooring):
    """They have their plain meaning: PRE_START_PATH, MAX_WORKERS, TIMEOUT, ACCESS_LOG."""
    files = {"main.py": says("hi"), "prestart.sh": "echo the usual\n", "x.sh": "echo the other\n"}
    path = mooring.folder / "x.sh"
    environ = {"PRE_START_PATH": path, "MAX_WORKERS": 1, "TIMEOUT": 1, "ACCESS_LOG": "-"}
    app = serve(mooring, PROFILE, files, **environ)
    assert app.stdout.splitlines()[:3] == [
        f"Checking for script in {path}",
        f"Running script {path}",
        "the other",
    ]
    assert app.status()["size"] == summary(app)["workers"] == 1
    assert app.status()["plan"]["timeout"]["value"] == 1
    app.get()
    app.wait_log('"GET / HTTP/1.1" 200')
    stop(app)
    assert '"GET / HTTP/1.1" 200' in app.stdout


def test_h18_a_worker_class_that_cannot_serve_asgi(mooring):
    """Refused with exit code 2: it names something installed, so it is not ignored."""
    app = start(mooring, PROFILE, files={"main.py": says("hi")}, WORKER_CLASS="sync")
    assert app.wait_exit() == 2
    assert "sync" in app.last_line
    assert "ASGI" in app.last_line


def test_h18_a_worker_class_that_is_not_installed(mooring):
    """One line says that it is ignored."""
    app = serve(mooring, PROFILE, {"main.py": says("hi")}, WORKER_CLASS="nope.Worker", MAX_WORKERS=1)
    assert "WORKER_CLASS=nope.Worker is ignored" in app.wait_log("nope.Worker")
    assert app.get().text == "hi"
    assert list(summary(app)) == KEYS
    stop(app)


def test_h19_no_application(mooring):
    """Exit code 3 and the list of places, where there are other Python files."""
    app = start(mooring, PROFILE, files={"other.py": "", "prestart.sh": ""})
    last = refused(app, 3)
    assert f"{app.folder}/app/main.py" in last
    assert f"{app.folder}/main.py" in last
