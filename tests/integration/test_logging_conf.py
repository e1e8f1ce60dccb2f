"""MOORING_LOGGING_CONF: the application's logging configuration, on every engine."""

from __future__ import annotations

import re

import pytest
from harness import ASGI_APP, WSGI_APP

CONF = """LOGGING_CONFIG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"mine": {"format": "MINE %(levelname)s %(name)s %(message)s %(args)r"}},
    "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "mine", "stream": "ext://sys.stdout"}},
    "loggers": {"uvicorn.access": {"handlers": ["out"], "level": "INFO", "propagate": False}},
    "root": {"handlers": ["out"], "level": "INFO"},
}
"""
ENGINES = [
    ("asgi", {"MOORING_ENGINE": "uvicorn"}),
    ("asgi", {"MOORING_ENGINE": "hypercorn"}),
    ("asgi", {"MOORING_ENGINE": "granian"}),
    ("asgi", {"WORKER_CLASS": "uvicorn.workers.UvicornWorker"}),
    ("wsgi", {"MOORING_ENGINE": "granian"}),
    ("wsgi", {"WORKER_CLASS": "gthread"}),
]


@pytest.mark.parametrize(("interface", "environ"), ENGINES, ids=str)
def test_access_lines_go_to_its_handlers(mooring, interface, environ):
    """Once each, with the arguments that uvicorn's formatters look at, and not to mooring's log too."""
    text = ASGI_APP if interface == "asgi" else WSGI_APP
    files = {"main.py": text, "package/__init__.py": "", "package/logs.py": CONF}
    app = mooring.run(files=files, workers=1, MOORING_LOGGING_CONF="package.logs", **environ)
    app.get("/a?b=1")
    app.wait_log("MINE INFO uvicorn.access")
    assert app.stop() == 0
    lines = [line for line in (app.stdout + app.stderr).splitlines() if "GET /a" in line]
    assert len(lines) == 1, lines
    client = r"127\.0\.0\.1(:\d+)?"
    status = 404 if interface == "asgi" else 200
    line = rf'MINE INFO uvicorn\.access {client} - "GET /a\?b=1 HTTP/1\.1" {status} '
    line += rf"\('{client}', 'GET', '/a\?b=1', '1\.1', {status}\)"
    assert re.fullmatch(line, lines[0]), lines[0]


def test_a_file_and_no_handler_for_the_access_log(mooring):
    """A path works as a module does; mooring writes the access log where nobody else does."""
    conf = CONF.replace('"root"', '"#"').replace("uvicorn.access", "mine").replace('"#": {', '"root": {')
    conf = conf.replace('"root": {"handlers": ["out"], "level": "INFO"},', "")
    app = mooring.run(files={"main.py": ASGI_APP, "logs.py": conf}, workers=1, MOORING_LOGGING_CONF="logs.py")
    app.get("/a")
    app.wait_log('"GET /a HTTP/1.1" 404')
    assert app.stop() == 0
    assert "MINE" not in app.stdout


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "No module named 'logs'"),
        ("1/0", "ZeroDivisionError"),
        ("X = 1", "it has no dictionary LOGGING_CONFIG"),
        ("LOGGING_CONFIG = {'version': 7}", "7"),
    ],
)
def test_a_bad_one_is_exit_code_2(mooring, text, why):
    files = {"main.py": ASGI_APP, **({"logs.py": text} if text else {})}
    app = mooring.start("run", files=files, MOORING_LOGGING_CONF="logs")
    assert app.wait_exit() == 2
    assert "logging_conf=logs: " in app.last_line
    assert why in app.last_line
