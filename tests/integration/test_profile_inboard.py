"""The acceptance scenarios of the inboard images by their numbers, as docs/profiles.md promises."""

from __future__ import annotations

import platform
import re
import ssl
import subprocess

import pytest
from harness import ASGI_APP, eventually, free_port
from profile_tools import CORES, conf, refused, says, serve, start, stop, summary

PROFILE = "inboard-base"
PYTHON = ".".join(platform.python_version_tuple()[:2])
GREETING = f"Hello world! From mooring, uvicorn and Python {PYTHON}"


def test_h20_main_comes_first(mooring):
    """/app/main.py before /app/app/main.py, as documented."""
    files = {"app/main.py": says("inner"), "main.py": says("outer")}
    app = serve(mooring, PROFILE, files, MAX_WORKERS=1)
    assert app.get().text == "outer"
    assert app.status()["application"] == "main:app"
    stop(app)


@pytest.mark.parametrize(
    ("profile", "kind", "body"),
    [
        ("inboard-base", "text/plain", GREETING),
        ("inboard-starlette", "application/json", f'{{"message":"{GREETING}"}}'),
        ("inboard-fastapi", "application/json", f'{{"message":"{GREETING}"}}'),
    ],
)
def test_h21_the_demo(mooring, profile, kind, body):
    """Each image's demo, in its content type; the defaults are as documented."""
    app = serve(mooring, profile)
    answer = app.get()
    assert (answer.status, answer.headers["content-type"], answer.text) == (200, kind, body)
    assert summary(app) == {**conf(PROFILE), "bind": "127.0.0.1:0", "host": "127.0.0.1", "port": "0"}
    assert conf(PROFILE) == {
        "loglevel": "info",
        "workers": max(CORES, 2),
        "bind": "0.0.0.0:80",
        "graceful_timeout": 120,
        "timeout": 120,
        "keepalive": 2,
        "errorlog": "-",
        "accesslog": "-",
        "workers_per_core": 1.0,
        "use_max_workers": None,
        "host": "0.0.0.0",
        "port": "80",
    }
    stop(app)


def test_h22_a_failing_prestart_py(mooring):
    """Its output is shown, and its exit code is the start's."""
    files = {"main.py": ASGI_APP, "prestart.py": "print('migrating')\nraise SystemExit(7)\n"}
    app = start(mooring, PROFILE, files=files)
    refused(app, 7)
    path = app.folder / "prestart.py"
    assert app.stdout.splitlines() == [
        f"Checking for pre-start script in {path}.",
        f"Running pre-start script python {path}.",
        "migrating",
    ]


@pytest.mark.parametrize("environ", [{}, {"PRE_START_PATH": ""}])
def test_h22_a_prestart_py_that_succeeds(mooring, environ):
    """The server starts; what it set in os.environ is not visible. An empty PRE_START_PATH means unset."""
    files = {"main.py": ASGI_APP, "prestart.py": "import os\nos.environ['FOO'] = '1'\nprint('migrating')\n"}
    app = serve(mooring, PROFILE, files, MAX_WORKERS=1, **environ)
    assert "FOO" not in app.get("/env").json()
    assert app.stdout.splitlines()[2] == "migrating"
    stop(app)


def test_h23_a_shell_script_is_run_by_sh(mooring):
    """Without execute permission, as a child: its exports are its own."""
    files = {"main.py": ASGI_APP, "x.sh": "echo by sh; export FOO=1\n"}
    path = mooring.folder / "x.sh"
    app = serve(mooring, PROFILE, files, MAX_WORKERS=1, PRE_START_PATH=path)
    assert app.stdout.splitlines()[:3] == [
        f"Checking for pre-start script in {path}.",
        f"Running pre-start script sh {path}.",
        "by sh",
    ]
    assert "FOO" not in app.get("/env").json()
    stop(app)


def test_h23_a_lone_prestart_sh_is_found(mooring):
    """prestart.sh is looked for after prestart.py."""
    app = serve(mooring, PROFILE, {"main.py": says("hi"), "prestart.sh": "echo found\n"}, MAX_WORKERS=1)
    assert app.stdout.splitlines()[1:3] == [f"Running pre-start script sh {app.folder}/prestart.sh.", "found"]
    stop(app)


def test_h24_with_reload(mooring):
    """true: live reload at HOST:PORT, with uvicorn's own access line; false: off, as documented."""
    port = free_port()
    files = {"main.py": says("one")}
    app = start(mooring, PROFILE, files=files, WITH_RELOAD="true", PORT=port, BIND="127.0.0.1:1")
    app.wait_log("] serving")
    assert app.urls == [f"http://127.0.0.1:{port}"]
    app.write("main.py", says("two"))
    eventually(lambda: app.get().text == "two", "the new body")
    line = app.wait_log("GET /")
    assert re.fullmatch(r'INFO:     127\.0\.0\.1:\d+ - "GET / HTTP/1\.1" 200 OK', line)
    stop(app)
    assert "{" not in app.stdout
    app = serve(mooring, PROFILE, WITH_RELOAD="false")
    assert app.status()["size"] == max(CORES, 2)
    assert summary(app)["workers"] == max(CORES, 2)
    stop(app)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    command += ["-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def test_h25_gunicorns_arguments_turn_tls_on(mooring, certificate):
    """GUNICORN_CMD_ARGS with a key and a certificate: https answers."""
    pytest.importorskip("gunicorn")
    arguments = f"--keyfile={certificate}/key.pem --certfile={certificate}/cert.pem"
    app = serve(mooring, PROFILE, {"main.py": says("hi")}, GUNICORN_CMD_ARGS=arguments, MAX_WORKERS=1)
    assert app.urls[0].startswith("https://")
    context = ssl.create_default_context(cafile=certificate / "cert.pem")
    context.check_hostname = False
    with context.wrap_socket(app.connect()) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
    stop(app)


def test_h25_gunicorns_arguments_choose_gunicorn(mooring):
    """GUNICORN_CMD_ARGS brings gunicorn, with its own precedence: workers and class are the arguments'."""
    pytest.importorskip("gunicorn")
    environ = {"GUNICORN_CMD_ARGS": "-w 3 -k asgi", "WEB_CONCURRENCY": 1}
    app = start(mooring, PROFILE, files={"main.py": says("hi")}, **environ)
    app.wait_log("ASGI server listening", count=3)
    plan = app.wait_status(lambda status: status["ready"])["plan"]
    assert plan["engine"]["value"] == "gunicorn"
    assert plan["workers"]["value"] == 3
    assert plan["worker_class"]["value"] == "asgi"
    assert summary(app)["workers"] == conf(PROFILE, WEB_CONCURRENCY=1)["workers"] == 1
    assert app.get().text == "hi"
    stop(app)
