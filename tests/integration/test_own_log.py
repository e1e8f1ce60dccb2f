"""mooring's own log on real engines: one form for all but an application with logging of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from pathlib import Path

import pytest
from harness import ASGI_APP, PATIENCE, eventually

RECORD = re.compile(
    r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\] \[(DEBUG|INFO|WARNING|ERROR|CRITICAL)\] "
)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d")

COMMON = """
import logging, os, threading, warnings
LOG = logging.getLogger("shop.orders")
LOG.info("imported", extra={"tables": 3})
LOG.debug("hidden")
logging.info("the root logger has %s", "no handler")
warnings.warn("an old thing", UserWarning)

def act(path):
    if path == "/log":
        LOG.info("ordered", extra={"order": 17, "who": "J. Doe"})
    elif path == "/raise":
        raise ValueError("bad value")
    elif path == "/thread":
        threading.Thread(target=act, args=["/raise"], name="mailer").start()
    elif path == "/mistake":
        LOG.info("%d", "x")
"""
ASGI = (
    COMMON
    + """
import asyncio, gc

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            LOG.info("%s", message["type"])
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    act(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
)
WSGI = (
    COMMON
    + """
def app(environ, start_response):
    act(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
)
ENGINES = {
    "uvicorn": ({"MOORING_ENGINE": "uvicorn"}, ASGI, "uvicorn.error"),
    "granian-asgi": ({"MOORING_ENGINE": "granian"}, ASGI, "_granian"),
    "granian-wsgi": ({"MOORING_ENGINE": "granian"}, WSGI, "_granian"),
    "hypercorn": ({"MOORING_ENGINE": "hypercorn"}, ASGI, "hypercorn.error"),
    "hypercorn-wsgi": ({"MOORING_ENGINE": "hypercorn"}, WSGI, "hypercorn.error"),
    "hypercorn-trio": ({"MOORING_ENGINE": "hypercorn", "WORKER_CLASS": "trio"}, ASGI, "hypercorn.error"),
    "gunicorn-sync": ({"MOORING_ENGINE": "gunicorn", "WORKER_CLASS": "sync"}, WSGI, "gunicorn.error"),
    "gunicorn-gthread": ({"MOORING_ENGINE": "gunicorn", "WORKER_CLASS": "gthread"}, WSGI, "gunicorn.error"),
    "gunicorn-asgi": ({"MOORING_ENGINE": "gunicorn", "WORKER_CLASS": "asgi"}, ASGI, "gunicorn.error"),
    "gunicorn-uvicorn": (
        {"MOORING_ENGINE": "gunicorn", "WORKER_CLASS": "uvicorn.workers.UvicornWorker"},
        ASGI,
        "uvicorn.error",
    ),
}
engines = pytest.mark.parametrize("engine", ENGINES)


def records(text: str) -> list[dict]:
    """Each line of stderr; that each is a record is the point."""
    found = [json.loads(line) for line in text.splitlines()]
    for each in found:
        assert list(each)[:5] == ["time", "level", "pid", "logger", "message"], each
        assert TIME.fullmatch(each["time"])
        assert each["level"] in ("debug", "info", "warning", "error", "critical")
        assert isinstance(each["pid"], int)
    return found


def check_text(text: str) -> None:
    for line in text.splitlines():
        assert RECORD.match(line) or line.startswith("  "), line


def exercise(app) -> None:
    """An application that logs, fails, fails in a thread and logs wrongly; a client that speaks no HTTP."""
    for path in ("/log", "/mistake", "/thread"):
        assert app.get(path).status == 200
    assert app.get("/raise").status == 500
    with app.connect() as sock:
        sock.sendall(b"\x01\x02nonsense\x1b[31m /\r\n\r\n")
        sock.settimeout(PATIENCE)
        try:
            while sock.recv(65536):
                pass
        except ConnectionError:
            pass
    app.wait_log("ordered")
    app.wait_log("exception in thread mailer: ValueError: bad value")
    app.wait_log("Traceback (most recent call last)", count=2)


# -- one form, on every engine -----------------------------------------------------------------------------


@engines
def test_as_json_every_line_is_a_record(mooring, engine):
    environ, source, logger = ENGINES[engine]
    app = mooring.run(workers=1, files={"main.py": source}, MOORING_LOG_FORMAT="json", **environ)
    exercise(app)
    assert app.stop() == 0
    found = records(app.stderr)
    by = {each["message"]: each for each in found}

    assert by["imported"].items() >= {"logger": "shop.orders", "level": "info", "tables": 3}.items()
    assert by["ordered"].items() >= {"logger": "shop.orders", "order": 17, "who": "J. Doe"}.items()
    assert by["the root logger has no handler"]["logger"] == "root"
    assert "hidden" not in by
    (warning,) = [each for each in found if each["logger"] == "py.warnings"]
    assert re.fullmatch(r"UserWarning: an old thing \(.*/main\.py:7\)", warning["message"])

    failed = [each for each in found if each["logger"].startswith(logger) and "traceback" in each]
    assert any(each["traceback"].endswith("ValueError: bad value") for each in failed), found
    assert "main.py" in failed[0]["traceback"]
    in_thread = by["exception in thread mailer: ValueError: bad value"]
    assert in_thread["logger"] == "threading"
    assert in_thread["traceback"].endswith("ValueError: bad value")
    (mistake,) = [each for each in found if "could not be logged" in each["message"]]
    assert mistake.items() >= {"logger": "shop.orders", "level": "error", "format": "%d"}.items()

    (ready,) = [each for each in found if each.get("notice") == "ready"]
    assert ready.items() >= {"slot": 0, "generation": 1, "logger": "mooring", "pid": app.pid}.items()
    assert found[-1].items() >= {"message": "stopped (asked to stop)", "logger": "mooring"}.items()
    if source is ASGI:
        assert {"lifespan.startup", "lifespan.shutdown"} <= by.keys()


@engines
def test_as_text_every_line_is_a_record_or_belongs_to_one(mooring, engine):
    environ, source, _ = ENGINES[engine]
    source = source.replace("warnings.warn", "(lambda *_: None)")  # as text, Python shows those itself
    app = mooring.run(workers=1, files={"main.py": source}, **environ)
    exercise(app)
    assert app.stop() == 0
    check_text(app.stderr)
    assert re.search(r"\] \[INFO\] shop\.orders: ordered order=17 who=\"J\. Doe\"\n", app.stderr)
    assert re.search(r"\] \[INFO\] shop\.orders: imported tables=3\n", app.stderr)
    assert "\n  ValueError: bad value\n" in app.stderr
    assert re.search(r"worker 0 is ready after [\d.]+ s serial=\d generation=1\n", app.stderr)
    assert "\x1b" not in app.stderr


BROKEN = {
    "import": ("raise RuntimeError('no\\ndatabase')\n", "RuntimeError"),
    "exit": ("import sys\nsys.exit('no database')\n", "sys.exit"),
}


@engines
@pytest.mark.parametrize("how", BROKEN)
def test_a_start_that_fails_says_so_in_json_too(mooring, engine, how):
    environ, _, _ = ENGINES[engine]
    source, why = BROKEN[how]
    app = mooring.start("run", files={"main.py": source}, MOORING_LOG_FORMAT="json", **environ)
    assert app.wait_exit() == 3
    *before, last = records(app.stderr)
    assert last.items() >= {"level": "critical", "logger": "mooring"}.items()
    assert why in last["message"]
    assert "\n" not in last["message"]
    assert any("database" in each.get("traceback", "") for each in before)


FAILS_TO_START = """
async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
"""


@pytest.mark.parametrize("engine", [name for name, row in ENGINES.items() if row[1] is ASGI])
def test_a_failing_lifespan_says_so_in_json_too(mooring, engine):
    environ, _, _ = ENGINES[engine]
    app = mooring.start("run", files={"main.py": FAILS_TO_START}, MOORING_LOG_FORMAT="json", **environ)
    assert app.wait_exit() == 3
    last = records(app.stderr)[-1]
    assert last["message"] == "the application's lifespan startup failed: no database"


def test_bad_configuration_is_one_json_line_however_json_was_asked_for(mooring):
    for args, environ in (
        (["run"], {"MOORING_LOG_FORMAT": "json"}),
        (["run", "--log-format", "json"], {}),
    ):
        app = mooring.start(*args, files={"main.py": ASGI_APP}, **environ, WEB_CONCURRENCY="many")
        assert app.wait_exit() == 2
        (found,) = records(app.stderr)
        assert "WEB_CONCURRENCY" in found["message"]
        assert found["level"] == "critical"


def test_a_configuration_file_that_fails_is_shown_in_json_too(mooring):
    files = {"main.py": ASGI_APP, "conf.py": "print('hello')\nraise ValueError('bad conf')\n"}
    app = mooring.start("run", files=files, GUNICORN_CONF="conf.py", MOORING_LOG_FORMAT="json")
    assert app.wait_exit() == 2
    assert "bad conf" in records(app.stderr)[-1]["message"]


def test_the_commands_for_people_stay_text(mooring):
    app = mooring.start("check", files={"main.py": "raise ValueError('x')\n"}, MOORING_LOG_FORMAT="json")
    assert app.wait_exit() == 3
    assert app.last_line.startswith("mooring: ")


def test_a_worker_that_the_engine_ends_is_told_in_the_logs_form(mooring):
    source = ASGI.replace("LOG.debug", "import uvicorn; uvicorn.Config.load = None; LOG.debug")
    app = mooring.start("run", files={"main.py": source}, MOORING_LOG_FORMAT="json", WEB_CONCURRENCY="1")
    assert app.wait_exit() != 0
    assert any("the worker failed: TypeError" in each["message"] for each in records(app.stderr))


@pytest.mark.parametrize("engine", ["uvicorn", "gunicorn-gthread"])
def test_a_log_file_has_the_same_form_after_a_rotation(mooring, engine):
    environ, source, _ = ENGINES[engine]
    path = mooring.base / "log"
    app = mooring.run(
        workers=1, files={"main.py": source}, MOORING_LOG_FORMAT="json", ERROR_LOG=path, **environ
    )
    assert app.get("/log").status == 200
    path.rename(mooring.base / "log.1")
    app.signal(signal.SIGUSR1)
    eventually(lambda: path.exists() and "open anew" in path.read_text(), "the new file")

    def logged() -> bool:
        app.get("/log")
        return "ordered" in path.read_text()

    eventually(logged, "the worker's new file")
    assert app.stop() == 0
    assert {"imported", "ordered"} <= {
        each["message"] for each in records((mooring.base / "log.1").read_text())
    }
    assert records(path.read_text())[-1]["message"] == "stopped (asked to stop)"
    assert app.stderr == ""


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_file_that_gunicorn_s_configuration_names_has_the_form_too(mooring, form):
    files = {"main.py": WSGI, "conf.py": "errorlog = 'gunicorn.log'\nworker_class = 'sync'\n"}
    app = mooring.run(workers=1, files=files, GUNICORN_CONF="conf.py", MOORING_LOG_FORMAT=form)
    assert app.get("/raise").status == 500
    path = mooring.folder / "gunicorn.log"
    eventually(lambda: "ValueError: bad value" in path.read_text(), "the error")
    assert app.stop() == 0
    if form == "json":
        (failed,) = [each for each in records(path.read_text()) if "traceback" in each]
        assert failed["logger"] == "gunicorn.error"
        assert failed["message"].startswith("Error handling request")

    else:
        check_text(path.read_text())
        assert "\n  ValueError: bad value\n" in path.read_text()


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_secret_is_shown(mooring, form):
    app = mooring.run(
        workers=1, MOORING_TLS_KEY_PASSWORD="swordfish", DATABASE_URL="pg://u:hunter2@h/d",
        LOG_LEVEL="debug", MOORING_LOG_FORMAT=form, MOORING_ENGINE="gunicorn", WORKER_CLASS="asgi",
    )  # fmt: skip
    app.get("/")
    assert app.stop() == 0
    for secret in ("swordfish", "hunter2"):
        assert secret not in app.stderr + app.stdout
    if form == "text":
        assert (
            "\n    loglevel: debug\n" in app.stderr
        )  # in a pipe, JSON has room for a part of gunicorn's dump


# -- an application that has configured its own ------------------------------------------------------------

SAY = """
def say():
    logging.getLogger("shop").info("hello")
    logging.getLogger("shop").warning("beware")
"""
CONFIGURES = {
    "basicConfig": 'logging.basicConfig(format="MINE %(message)s", level="INFO")',
    "basicConfig-without-level": 'logging.basicConfig(format="MINE %(message)s")',
    "basicConfig-imported": 'basicConfig(format="MINE %(message)s", level="INFO")',
    "dictConfig": """logging.config.dictConfig({"version": 1,
    "formatters": {"mine": {"format": "MINE %(message)s"}},
    "handlers": {"mine": {"class": "logging.StreamHandler", "formatter": "mine"}},
    "root": {"level": "INFO", "handlers": ["mine"]}})""",
    "addHandler": "logging.root.addHandler(MINE); logging.root.setLevel(logging.INFO)",
    "handlers": "logging.root.handlers = [MINE]; logging.root.setLevel(logging.INFO)",
    "own-logger": 'logging.getLogger("shop").addHandler(MINE); logging.getLogger("shop").setLevel("INFO")',
}
HEAD = """
import logging, logging.config
from logging import basicConfig
MINE = logging.StreamHandler()
MINE.setFormatter(logging.Formatter("MINE %(message)s"))
def configure():
    """
APP = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if WHEN == "startup" and message["type"] == "lifespan.startup":
                configure()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if WHEN == "request":
        configure()
    say()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""


def configuring(how: str, when: str) -> str:
    at_import = "configure()\n" if when == "import" else ""
    return f"{HEAD}{CONFIGURES[how]}\nWHEN = {when!r}\n{at_import}{SAY}{APP}"


@pytest.mark.parametrize("when", ["import", "startup", "request"])
@pytest.mark.parametrize("how", CONFIGURES)
def test_an_application_that_configures_logging_is_left_alone(mooring, how, when):
    app = mooring.run(workers=1, files={"main.py": configuring(how, when)}, MOORING_LOG_FORMAT="json")
    assert app.get("/").status == 200
    app.wait_log("MINE beware")
    assert app.stop() == 0
    mine = [line for line in app.stderr.splitlines() if "hello" in line or "beware" in line]
    wanted = ["MINE beware"] if how == "basicConfig-without-level" else ["MINE hello", "MINE beware"]
    assert mine == wanted


@pytest.mark.parametrize("when", ["import", "startup", "request"])
@pytest.mark.parametrize("engine", ["granian", "hypercorn", "gunicorn"])
def test_so_it_is_on_the_other_engines(mooring, engine, when):
    source = configuring("basicConfig", when)
    app = mooring.run(workers=1, files={"main.py": source}, MOORING_ENGINE=engine, MOORING_LOG_FORMAT="json")
    assert app.get("/").status == 200
    app.wait_log("MINE beware")
    assert app.stop() == 0
    mine = [line for line in app.stderr.splitlines() if "hello" in line or "beware" in line]
    assert mine == ["MINE hello", "MINE beware"]


def test_engines_are_heard_after_a_dict_config_that_disables_them(mooring):
    source = """
import logging.config
logging.config.dictConfig({"version": 1, "root": {"level": "WARNING"}})
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    raise ValueError("bad value")
"""
    app = mooring.run(workers=1, files={"main.py": source}, MOORING_LOG_FORMAT="json")
    assert app.get("/").status == 500
    app.wait_log("ValueError: bad value")
    assert app.stop() == 0
    records(app.stderr)


def test_what_an_application_with_loggers_of_its_own_shows_nowhere_has_mooring_s_form(mooring):
    """Python shows warnings without a handler, and only those: as they are, but in the log's form."""
    say = 'logging.getLogger("library").warning("odd"); logging.getLogger("library").info("chatty")'
    source = configuring("own-logger", "import").replace('.warning("beware")', f'.warning("beware"); {say}')
    app = mooring.run(workers=1, files={"main.py": source}, MOORING_LOG_FORMAT="json")
    app.get("/")
    app.wait_log("odd")
    assert app.stop() == 0
    assert '"logger": "library", "message": "odd"' in app.stderr
    assert "chatty" not in app.stderr


# -- frameworks that log by themselves ---------------------------------------------------------------------

FLASK = """
from flask import Flask
app = Flask(__name__)
app.logger.info("imported")

@app.route("/raise")
def fail():
    raise ValueError("bad value")
"""
DJANGO = """
import logging
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.urls import path

def fail(request):
    raise ValueError("bad value")

urlpatterns = [path("raise", fail)]
settings.configure(DEBUG={debug}, SECRET_KEY="x", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"])
app = get_wsgi_application()
"""


@pytest.mark.parametrize("engine", ["granian", "gunicorn"])
def test_flask_s_errors_are_records(mooring, engine):
    app = mooring.run(workers=1, files={"main.py": FLASK}, MOORING_LOG_FORMAT="json", MOORING_ENGINE=engine)
    assert app.get("/raise").status == 500
    app.wait_log("bad value")
    assert app.stop() == 0
    found = records(app.stderr)
    assert any(each["message"] == "imported" and each["logger"] == "main" for each in found)
    (failed,) = [each for each in found if "traceback" in each]
    assert failed["message"] == "Exception on /raise [GET]"


@pytest.mark.parametrize("debug", [False, True])
def test_django_s_errors_are_records_and_not_shown_twice(mooring, debug):
    source = DJANGO.format(debug=debug)
    app = mooring.run(workers=1, files={"main.py": source}, MOORING_LOG_FORMAT="json")
    assert app.get("/raise").status == 500
    app.wait_log("Internal Server Error: /raise")
    assert app.stop() == 0
    shown = [line for line in app.stderr.splitlines() if "Internal Server Error: /raise" in line]
    assert len(shown) == 1
    if not debug:  # Django's own console handler shows it while DEBUG is on
        (failed,) = [each for each in records(app.stderr) if "traceback" in each]
        assert failed.items() >= {"logger": "django.request", "status_code": 500}.items()


# -- colours -----------------------------------------------------------------------------------------------


def on_a_terminal(mooring, **environ) -> str:
    """What a terminal as stderr is given from start to stop."""
    master, slave = os.openpty()
    app = mooring.start(
        "run", files={"main.py": ASGI}, options={"stderr": slave}, WEB_CONCURRENCY=1, **environ
    )
    os.close(slave)
    shown = b""
    while b"serving" not in shown:
        shown += os.read(master, 65536)
    app.signal(signal.SIGTERM)
    try:
        while data := os.read(master, 65536):
            shown += data
    except OSError:  # EIO: nobody has the other end any more
        pass
    os.close(master)
    assert app.wait_exit() == 0
    return shown.decode().replace("\r\n", "\n")


def test_a_terminal_has_colours_in_supervisor_and_worker(mooring):
    shown = on_a_terminal(mooring, TERM="xterm")
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown)
    assert shown.count("\x1b[2m[") >= 8
    assert re.search(r"\x1b\[2m\[[^\]]+\] \[\d+\]\x1b\[0m \[INFO\] Application startup complete\.\n", shown)
    assert RECORD.match(plain)
    assert "\x1b" not in plain


@pytest.mark.parametrize("environ", [{"TERM": "dumb"}, {}, {"TERM": "xterm", "NO_COLOR": "1"}])
def test_a_terminal_that_is_not_to_be_coloured_is_not(mooring, environ):
    assert "\x1b" not in on_a_terminal(mooring, **environ)


def test_neither_are_a_file_nor_a_socket_even_where_colours_are_forced(mooring):
    path: Path = mooring.base / "log"
    app = mooring.run(workers=1, ERROR_LOG=path, TERM="xterm", FORCE_COLOR="1")
    assert app.stop() == 0
    assert "\x1b" not in path.read_text()
    ours, theirs = socket.socketpair()
    with ours:
        app = mooring.start("run", options={"stderr": theirs}, TERM="xterm", FORCE_COLOR="1")
        theirs.close()
        app.wait_status(lambda s: s["state"] == "serving")
        assert app.stop() == 0
        received = b""
        while data := ours.recv(65536):
            received += data
    assert b"serving" in received
    assert b"\x1b" not in received


def test_json_has_no_colours_on_a_terminal(mooring):
    shown = on_a_terminal(mooring, TERM="xterm", MOORING_LOG_FORMAT="json")
    records(shown)
