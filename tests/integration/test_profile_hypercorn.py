"""The acceptance scenarios of the hypercorn image by their numbers, as docs/profiles.md promises."""

from __future__ import annotations

import platform
import re
import urllib.request

import pytest
from harness import eventually, free_port
from profile_tools import CORES, conf, refused, says, serve, start, stop, summary

pytest.importorskip("hypercorn")

PROFILE = "hypercorn"
PYTHON = ".".join(platform.python_version_tuple()[:2])

ASGI_2 = """
class App:
    def __init__(self, scope):
        assert scope["type"] == "http"

    async def __call__(self, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"two"})


app = App
"""


def test_h01_with_nothing_given(mooring):
    """The demo answers; the hook's messages, its output and the JSON object come first; the defaults."""
    app = serve(mooring, PROFILE, {"prestart.sh": "echo from the hook\n"})
    answer = app.get()
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain"
    assert answer.text == f"Hello world! From mooring, hypercorn and Python {PYTHON}"
    assert app.status()["size"] == max(CORES, 2)
    shown = summary(app)
    hook = app.folder / "prestart.sh"
    assert app.stdout.splitlines()[:3] == [
        f"Checking for script in {hook}",
        f"Running script {hook}",
        "from the hook",
    ]
    assert app.stdout.splitlines()[3].startswith("{")
    assert conf(PROFILE) == {
        "loglevel": "info",
        "workers": max(CORES, 2),
        "bind": "0.0.0.0:80",
        "graceful_timeout": 120,
        "worker_class": "asyncio",
        "keepalive": 2,
        "errorlog": "-",
        "accesslog": "-",
        "workers_per_core": 1.0,
        "use_max_workers": None,
        "host": "0.0.0.0",
        "port": "80",
    }
    assert shown == {**conf(PROFILE), "bind": "127.0.0.1:0", "host": "127.0.0.1", "port": "0"}
    stop(app)


def test_h01_a_hook_that_is_not_there(mooring):
    """One line says so, and the server starts."""
    path = mooring.folder / "none.sh"
    app = serve(mooring, PROFILE, {"main.py": says("hi")}, PRE_START_PATH=path, MAX_WORKERS=1)
    assert app.stdout.splitlines()[:2] == [f"Checking for script in {path}", f"There is no script {path}"]
    stop(app)


def test_h02_bind_beats_host_and_port(mooring):
    """It listens at BIND; the JSON object keeps host, port and bind apart."""
    port = free_port()
    app = serve(mooring, PROFILE, {"main.py": says("hi")}, PORT=9000, BIND=f"127.0.0.1:{port}")
    assert app.urls == [f"http://127.0.0.1:{port}"]
    assert app.get().text == "hi"
    shown = summary(app)
    assert (shown["host"], shown["port"], shown["bind"]) == ("127.0.0.1", "9000", f"127.0.0.1:{port}")
    stop(app)


@pytest.mark.parametrize(
    ("environ", "workers"),
    [
        ({"MAX_WORKERS": 1}, 1),
        ({"WEB_CONCURRENCY": 4, "MAX_WORKERS": 2}, 4),
        ({"WORKERS_PER_CORE": 3, "MAX_WORKERS": 4}, min(3 * CORES, 4)),
    ],
)
def test_h03_number_of_workers(mooring, environ, workers):
    """MAX_WORKERS caps the tuned number, never an explicit one."""
    app = serve(mooring, PROFILE, {"main.py": says("hi")}, **environ)
    assert app.status()["size"] == len(app.ready()) == summary(app)["workers"] == workers
    assert conf(PROFILE, **environ)["workers"] == workers
    stop(app)


@pytest.mark.parametrize("value", ["0", "abc"])
def test_h04_bad_web_concurrency(mooring, value):
    """Refused with exit code 2, and nothing listens."""
    app = start(mooring, PROFILE, files={"main.py": says("hi")}, WEB_CONCURRENCY=value)
    assert f"WEB_CONCURRENCY='{value}'" in refused(app, 2)


def test_h04_empty_web_concurrency(mooring):
    """An empty value means unset."""
    app = serve(mooring, PROFILE, {"main.py": says("hi")}, WEB_CONCURRENCY="")
    assert app.status()["size"] == max(CORES, 2)
    stop(app)


def test_h05_empty_logs_are_off(mooring):
    """No request line and no server line on either stream; null in the JSON object."""
    port = free_port()
    environ = {"ACCESS_LOG": "", "ERROR_LOG": "", "BIND": f"127.0.0.1:{port}", "MAX_WORKERS": 1}
    app = start(mooring, PROFILE, files={"main.py": says("hi")}, **environ)
    app.wait_status(lambda status: status["ready"])
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
        assert answer.read() == b"hi"
    shown = summary(app)
    assert shown["accesslog"] is None
    assert shown["errorlog"] is None
    stop(app)
    assert app.stderr == ""
    assert len(app.stdout.splitlines()) == 3  # two of the hook's messages, and the object


def test_h06_access_log_file(mooring):
    """One line for one GET in the file, none on stdout."""
    path = mooring.base / "a.log"
    app = serve(mooring, PROFILE, {"main.py": says("hi")}, ACCESS_LOG=path, MAX_WORKERS=1)
    app.get()
    text = eventually(lambda: path.exists() and path.read_text(), "the access log line")
    assert text.count("\n") == 1
    assert re.search(r'"GET / 1\.1" 200 2 ', text)
    stop(app)
    assert "GET /" not in app.stdout


def test_h07_the_application_in_app_comes_first(mooring):
    """/app/app/main.py before /app/main.py."""
    files = {"app/main.py": says("inner"), "main.py": says("outer")}
    app = serve(mooring, PROFILE, files, MAX_WORKERS=1)
    assert app.get().text == "inner"
    assert app.status()["application"] == "app.main:app"
    stop(app)


def test_h08_module_variable_and_app_module(mooring):
    """MODULE_NAME and VARIABLE_NAME name it; APP_MODULE wins over both."""
    files = {"main.py": says("main"), "custom_app/custom_main.py": says("custom", "api")}
    environ = {"MODULE_NAME": "custom_app.custom_main", "VARIABLE_NAME": "api", "MAX_WORKERS": 1}
    app = serve(mooring, PROFILE, files, **environ)
    assert app.get().text == "custom"
    stop(app)
    app = serve(mooring, PROFILE, **environ, APP_MODULE="main:app")
    assert app.get().text == "main"
    assert app.status()["application"] == "main:app"
    stop(app)


def test_h09_the_search_order_of_configuration_files(mooring):
    """HYPERCORN_CONF, then hypercorn_conf.py in the application root, then the one in app/."""
    files = {
        "main.py": says("hi"),
        "hypercorn_conf.py": "workers = 1\n",
        "app/hypercorn_conf.py": "workers = 2\n",
        "conf/x.py": "workers = 3\n",
    }
    app = serve(mooring, PROFILE, files)
    assert app.status()["conf"] == f"file:{app.folder}/hypercorn_conf.py"
    assert app.status()["size"] == 1
    stop(app)
    app = serve(mooring, PROFILE, HYPERCORN_CONF=mooring.folder / "conf/x.py")
    assert app.status()["conf"] == f"file:{app.folder}/conf/x.py"
    assert app.status()["size"] == 3
    stop(app)
    (mooring.folder / "hypercorn_conf.py").unlink()
    app = serve(mooring, PROFILE)
    assert app.status()["conf"] == f"file:{app.folder}/app/hypercorn_conf.py"
    assert app.status()["plan"]["hypercorn_conf"]["value"] == app.status()["conf"]
    assert app.get().text == "hi"
    stop(app)


def test_h09_a_configuration_file_says_where_the_logs_go(mooring):
    """Its access log and error log are the only ones."""
    files = {"main.py": says("hi"), "hypercorn_conf.py": "workers = 1\naccesslog = 'a'\nerrorlog = 'e'\n"}
    port = free_port()
    app = start(mooring, PROFILE, files=files, PORT=port)
    app.wait_status(lambda status: status["ready"])
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
        assert answer.read() == b"hi"
    access, error = app.folder / "a", app.folder / "e"
    eventually(lambda: access.exists() and '"GET / 1.1" 200' in access.read_text(), "its line")
    stop(app)
    assert "stopped (asked to stop)" in error.read_text()
    assert "GET /" not in app.stdout
    assert app.stderr == ""


def test_h10_live_reload(mooring):
    """As /start-reload.sh: HOST:PORT and not BIND, no configuration file, no JSON object, no access line."""
    port = free_port()
    files = {"app/main.py": says("one"), "hypercorn_conf.py": "raise SystemExit('read')\n"}
    app = start(mooring, PROFILE, "dev", files=files, PORT=port, BIND="127.0.0.1:1")
    app.wait_log("] serving")
    assert app.urls == [f"http://127.0.0.1:{port}"]
    assert app.get().text == "one"
    app.write("app/main.py", says("two"))
    app.wait_log(f"Worker reloading: {app.folder}/app/main.py modified")
    eventually(lambda: app.get().text == "two", "the new body")
    stop(app)
    assert "{" not in app.stdout
    assert "GET /" not in app.stdout + app.stderr


@pytest.mark.parametrize("name", ["uvloop", "trio"])
def test_h11_worker_classes(mooring, name):
    """uvloop and trio serve."""
    app = serve(mooring, PROFILE, {"main.py": says("hi")}, WORKER_CLASS=name, MAX_WORKERS=1)
    assert app.get().text == "hi"
    assert summary(app)["worker_class"] == conf(PROFILE, WORKER_CLASS=name)["worker_class"] == name
    stop(app)


def test_h11_an_unknown_worker_class(mooring):
    """Refused with exit code 2 and its name."""
    app = start(mooring, PROFILE, files={"main.py": says("hi")}, WORKER_CLASS="nope")
    assert "nope" in refused(app, 2)


def test_h12_an_asgi_2_application(mooring):
    """A class that takes the scope is served."""
    app = serve(mooring, PROFILE, {"main.py": ASGI_2}, MAX_WORKERS=1)
    answer = app.get()
    assert (answer.status, answer.text) == (200, "two")
    stop(app)
