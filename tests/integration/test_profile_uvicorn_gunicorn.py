"""The uvicorn-gunicorn images: what their own tests ask of configuration and logs, and docs/profiles.md."""

from __future__ import annotations

import platform
import re
from typing import Any

import pytest
from harness import ASGI_APP, Mooring, eventually, free_port
from profile_tools import CORES, check, conf, refused, says, serve, start, stop, summary

from mooring.application.discovery import demo_file

PROFILE = "uvicorn-gunicorn"
PYTHON = ".".join(platform.python_version_tuple()[:2])
GREETING = f"Hello world! From mooring, uvicorn and Python {PYTHON}"
JSON = f'{{"message":"{GREETING}"}}'
DEFAULTS = {
    "loglevel": "info",
    "workers": max(CORES, 2),
    "bind": "0.0.0.0:80",
    "graceful_timeout": 120,
    "timeout": 120,
    "keepalive": 5,
    "errorlog": "-",
    "accesslog": "-",
    "workers_per_core": 1.0,
    "use_max_workers": None,
    "host": "0.0.0.0",
    "port": "80",
}
HOOK = "echo inside\n"
USING = "Using worker: uvicorn.workers."


def hooked(app: Mooring, path: str = "prestart.sh") -> list[str]:
    """What is printed before the JSON object where there is a hook that says `inside`."""
    return [
        f"Checking for script in {app.folder}/{path}",
        f"Running script {app.folder}/{path}",
        "inside",
    ]


def planned(app: Mooring, *names: str) -> dict[str, Any]:
    """Values of the plan that is in force."""
    plan = app.status()["plan"]
    return {name: plan[name]["value"] for name in names}


@pytest.mark.parametrize(
    ("profile", "kind", "body"),
    [
        ("uvicorn-gunicorn", "text/plain", GREETING),
        ("uvicorn-gunicorn-starlette", "application/json", JSON),
        ("uvicorn-gunicorn-fastapi", "application/json", JSON),
    ],
)
def test_with_nothing_given(mooring, profile, kind, body):
    """The demo; the twelve keys, in their order, here and from `python CONF`; after a restart too."""
    for _ in range(2):
        app = serve(mooring, profile)
        answer = app.get()
        assert (answer.status, answer.headers["content-type"], answer.text) == (200, kind, body)
        assert app.stdout.splitlines()[:2] == [
            f"Checking for script in {app.folder}/prestart.sh",
            f"There is no script {app.folder}/prestart.sh",
        ]
        assert conf(PROFILE) == DEFAULTS
        assert summary(app) == {**DEFAULTS, "bind": "127.0.0.1:0", "host": "127.0.0.1", "port": "0"}
        assert list(summary(app)) == list(conf(PROFILE)) == list(DEFAULTS)
        times = planned(app, "timeout", "graceful_timeout", "keep_alive")
        assert times == {"timeout": 120, "graceful_timeout": 120, "keep_alive": 5}
        assert app.status()["size"] == len(app.ready()) == DEFAULTS["workers"]
        assert '"GET / HTTP/1.1" 200' in app.wait_log('"GET /')
        assert "[INFO] Application startup complete." in app.stderr
        assert app.stderr.count(f"[INFO] {USING}UvicornWorker\n") == 1
        stop(app)


def test_one_core_has_two_workers_and_the_variables_give_one(mooring):
    for environ, workers in (({}, 2), ({"MAX_WORKERS": 1}, 1), ({"WEB_CONCURRENCY": 1}, 1)):
        found = check(mooring, PROFILE, MOORING_CPU_COUNT=1, **environ)["plan"]["workers"]["value"]
        assert found == workers
        assert conf(PROFILE, MOORING_CPU_COUNT=1, **environ)["workers"] == workers


def test_numbers_times_and_no_logs(mooring):
    """Empty ACCESS_LOG and ERROR_LOG: the hook's lines and the object are all that is written."""
    environ = {"WORKERS_PER_CORE": 2, "LOG_LEVEL": "warning", "ACCESS_LOG": "", "ERROR_LOG": ""}
    environ |= {"GRACEFUL_TIMEOUT": 20, "TIMEOUT": 20, "KEEP_ALIVE": 20}
    app = serve(mooring, PROFILE, {"main.py": says("hi"), "prestart.sh": HOOK}, **environ)
    assert app.get().text == "hi"
    assert summary(app) == conf(PROFILE, HOST="127.0.0.1", PORT=0, **environ)
    expected = {"workers_per_core": 2.0, "workers": 2 * CORES, "loglevel": "warning", "timeout": 20}
    expected |= {"graceful_timeout": 20, "keepalive": 20, "errorlog": None, "accesslog": None}
    assert expected.items() <= summary(app).items()
    assert app.status()["size"] == 2 * CORES
    stop(app)
    assert app.stdout.splitlines()[:3] == hooked(app)
    assert len(app.stdout.splitlines()) == 4
    assert app.stderr == ""


def test_gunicorns_arguments_and_the_h11_worker(mooring):
    """Both bring gunicorn, with one worker; its arguments change the level, and not the object."""
    pytest.importorskip("gunicorn")
    environ = {"WEB_CONCURRENCY": 1, "LOG_LEVEL": "warning", "GUNICORN_CMD_ARGS": "--log-level debug"}
    environ |= {"WORKER_CLASS": "uvicorn.workers.UvicornH11Worker"}
    app = serve(mooring, PROFILE, {"main.py": says("hi"), "prestart.sh": HOOK}, **environ)
    assert app.get().text == "hi"
    assert planned(app, "engine", "workers") == {"engine": "gunicorn", "workers": 1}
    assert summary(app) == conf(PROFILE, HOST="127.0.0.1", PORT=0, **environ)
    assert summary(app)["loglevel"] == "warning"
    assert app.stdout.splitlines()[:3] == hooked(app)
    assert re.search(r"loglevel: +debug", app.wait_log("loglevel:"))
    app.wait_log(f"{USING}UvicornH11Worker")
    assert f"{USING}UvicornWorker" not in app.stderr
    stop(app)


def test_bind_beside_host_and_port(mooring):
    """BIND wins; the object has all three as they were given."""
    port = free_port()
    environ = {"BIND": f"127.0.0.1:{port}", "PORT": 9000, "MAX_WORKERS": 1}
    app = serve(mooring, PROFILE, {"main.py": says("hi")}, **environ)
    assert app.urls == [f"http://127.0.0.1:{port}"]
    expected = {"host": "127.0.0.1", "port": "9000", "bind": f"127.0.0.1:{port}", "use_max_workers": 1}
    assert expected.items() <= summary(app).items()
    assert app.status()["size"] == summary(app)["workers"] == 1
    stop(app)


def test_a_package_comes_before_main(mooring):
    """/app/app/main.py before /app/main.py."""
    files = {"app/__init__.py": "", "app/main.py": says("inner"), "main.py": says("outer")}
    app = serve(mooring, PROFILE, files, MAX_WORKERS=1)
    assert app.get().text == "inner"
    assert app.status()["application"] == "app.main:app"
    stop(app)


@pytest.mark.parametrize("path", ["prestart.sh", "custom_app/before.sh"])
@pytest.mark.parametrize(
    "environ",
    [
        {"MODULE_NAME": "custom_app.custom_main", "VARIABLE_NAME": "custom_var"},
        {"APP_MODULE": "custom_app.custom_main:custom_var"},
    ],
    ids=["module-and-variable", "app-module"],
)
def test_a_custom_application_and_hook(mooring, environ, path):
    """Named by either way; PRE_START_PATH takes the place of the hook in the application root."""
    files = {"custom_app/custom_main.py": says("custom", "custom_var"), "main.py": says("main")}
    files |= {"prestart.sh": "echo the usual\n", path: HOOK}
    more = {"PRE_START_PATH": mooring.folder / path} if "/" in path else {}
    app = serve(mooring, PROFILE, files, MAX_WORKERS=1, **environ, **more)
    assert app.get().text == "custom"
    assert app.stdout.splitlines()[:3] == hooked(app, path)
    assert "the usual" not in app.stdout
    stop(app)


def test_where_a_configuration_file_is_looked_for(mooring):
    """GUNICORN_CONF, then the application root, then app in it: each counts where the one before is not."""
    pytest.importorskip("gunicorn")
    places = ["app/gunicorn_conf.py", "gunicorn_conf.py", "mine.py"]
    text = "import json\nworkers = 3\nloglevel = 'warning'\nprint(json.dumps({'from': %r}))\n"
    files = {"app/main.py": says("hi")}
    for place in places:
        files[place] = text % place
        more = {"GUNICORN_CONF": mooring.folder / place} if place == "mine.py" else {}
        app = serve(mooring, PROFILE, files, **more)
        assert app.status()["conf"] == f"{app.folder}/{place}"
        assert planned(app, "workers", "timeout") == {"workers": 3, "timeout": 120}
        assert summary(app) == {"from": place}  # its own object, in place of the profile's
        assert app.get().text == "hi"
        stop(app)


def test_the_hook_is_sourced(mooring):
    """What it exports counts, and the names that the launcher had exported count without it."""
    pytest.importorskip("gunicorn")
    hook = "export FOO=1; BAR=2; WEB_CONCURRENCY=1; APP_MODULE=other:app\n"
    hook += "WORKER_CLASS=uvicorn.workers.UvicornH11Worker\n"
    files = {"main.py": says("main"), "other.py": ASGI_APP, "prestart.sh": hook}
    app = serve(mooring, PROFILE, files, WEB_CONCURRENCY=3)
    environ = app.get("/env").json()
    assert environ["FOO"] == "1"
    assert "BAR" not in environ
    assert app.status()["application"] == "other:app"
    assert summary(app)["workers"] == 1
    app.wait_log(f"{USING}UvicornH11Worker")
    stop(app)


def test_a_hook_that_fails_and_one_that_ends_the_run(mooring):
    app = start(mooring, PROFILE, files={"main.py": says("hi"), "prestart.sh": "echo a; false; echo b\n"})
    refused(app, 1)
    assert app.stdout.splitlines()[2:] == ["a"]
    app = start(mooring, PROFILE, files={"prestart.sh": "exit 0\n"})
    refused(app, 0)
    assert "{" not in app.stdout


def test_live_reload(mooring):
    """uvicorn alone at HOST:PORT, with the hook, without gunicorn's configuration, object and line."""
    port = free_port()
    files = {"main.py": says("one"), "prestart.sh": HOOK, "gunicorn_conf.py": "raise SystemExit('read')\n"}
    environ = {"PORT": port, "BIND": "127.0.0.1:1", "LOG_LEVEL": "debug"}
    app = start(mooring, PROFILE, "dev", files=files, **environ)
    app.wait_log(f"Uvicorn running on http://127.0.0.1:{port}")
    app.wait_log("] serving")
    assert app.stdout.splitlines()[:3] == hooked(app)
    assert app.get().text == "one"
    app.write("main.py", says("two"))
    eventually(lambda: app.get().text == "two", "the new body")
    assert re.fullmatch(r'INFO:     127\.0\.0\.1:\d+ - "GET / HTTP/1\.1" 200 OK', app.wait_log("GET /"))
    stop(app)
    assert "{" not in app.stdout
    assert USING not in app.stderr


def test_live_reload_puts_an_application_in_the_demos_place(mooring):
    """Where the demo's own file is edited, as in the image; another Python file alone changes nothing."""
    app = start(mooring, PROFILE, "dev", files={"main.py": demo_file("app")})
    app.wait_log("] serving")
    app.wait_log("live reload watches")
    app.write("helper.py", "")
    app.wait_log("no application found")
    assert app.get().text == GREETING
    app.write("main.py", says("mine"))
    eventually(lambda: app.get().text == "mine", "the new application")
    app.write("main.py", says("mine too"))
    eventually(lambda: app.get().text == "mine too", "its change")
    stop(app)


def test_the_line_is_true(mooring):
    """Another engine than the profile's is not called uvicorn's worker."""
    environ = {"MOORING_ENGINE": "granian", "MAX_WORKERS": 1}
    app = serve(mooring, PROFILE, {"main.py": says("hi")}, **environ)
    assert app.get().text == "hi"
    stop(app)
    assert USING not in app.stderr
