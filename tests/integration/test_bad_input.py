"""What bad input gets: one clear last line, the documented exit code, no traceback of ours, nothing running."""
# ruff: noqa: E501 - a table, a case a line

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from harness import ASGI_APP, WSGI_APP

import mooring as package

OURS = str(Path(package.__file__).parent)
CONFIGURATION, APPLICATION, BIND = 2, 3, 4


@dataclass
class Case:
    """A way to get it wrong, the exit code, and what the last line has to say."""

    name: str
    code: int
    says: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)
    args: tuple[str, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)
    traceback: str = ""  # the application's own first frame, where there is one


APP = {"main.py": ASGI_APP}
TWO = {"main.py": "import helper\n", "helper.py": "def go():\n    1 / 0\n\n\ngo()\n"}

CASES = [
    # -- the application
    Case("nothing there", APPLICATION, ("no application found", "main.py")),
    Case("no such module", APPLICATION, ("nope",), APP, ("nope:app",)),
    Case("no such attribute", APPLICATION, ("main has no attribute ap", "did you mean app?"), APP, ("main:ap",)),
    Case("not callable", APPLICATION, ("main:thing", "expected an ASGI or WSGI"), {"main.py": "thing = 7\n"}, ("main:thing",)),
    Case("a syntax error", APPLICATION, ("SyntaxError", "main.py:2"), {"main.py": "x = 1\ndef (:\n"}, traceback="main.py"),
    Case("a failing import", APPLICATION, ("ZeroDivisionError", "helper.py:2"), TWO, traceback='main.py", line 1'),
    Case("a missing package", APPLICATION, ("nosuchpackage, which was not found", "main.py:1"), {"main.py": "import nosuchpackage\n"}),
    Case("a failing factory", APPLICATION, ("create_app", "ValueError: no"), {"main.py": "def create_app():\n    raise ValueError('no')\n"}, traceback="main.py"),
    Case("sys.exit at import", APPLICATION, ("sys.exit('bye')",), {"main.py": "import sys\nsys.exit('bye')\n"}),
    Case("a factory that gives nothing", APPLICATION, ("create_app() returned",), {"main.py": "def create_app():\n    return None\n"}),
    Case("two applications", APPLICATION, ("several applications", "main:one", "main:two"), {"main.py": "from flask import Flask\none, two = Flask('a'), Flask('b')\n"}),
    Case("a folder that does not exist", CONFIGURATION, ("/nonexistent",), {}, ("main:app",), {"APP_ROOT": "", "MOORING_APP_ROOT": "/nonexistent"}),
    Case("a bad import string", CONFIGURATION, ("main:",), APP, ("main:",)),
    Case("a file that hides the engine", CONFIGURATION, ("engine uvicorn cannot be imported", "uvicorn.py"), {**APP, "uvicorn.py": ""}),
    Case("a name longer than any file's", CONFIGURATION, ("File name too long",), {}, ("a" * 5000,)),
    Case("a hook's name longer than any file's", CONFIGURATION, ("File name too long",), APP, (), {"PRE_START_PATH": "a" * 5000}),
    # -- settings
    Case("bad numbers, all at once", CONFIGURATION, ("WEB_CONCURRENCY='two'", "PORT='99999'", "TIMEOUT='-1'"), APP, (), {"WEB_CONCURRENCY": "two", "PORT": "99999", "TIMEOUT": "-1"}),
    Case("a bad choice", CONFIGURATION, ("LOG_LEVEL='loud'", "debug"), APP, (), {"LOG_LEVEL": "loud"}),
    Case("no workers", CONFIGURATION, ("WEB_CONCURRENCY='0'", "at least 1"), APP, (), {"WEB_CONCURRENCY": "0"}),
    Case("a bad bind", CONFIGURATION, ("BIND='nonsense:port'",), APP, (), {"BIND": "nonsense:port"}),
    Case("an unknown profile", CONFIGURATION, ("MOORING_PROFILE='heroku'", "poetry"), APP, (), {"MOORING_PROFILE": "heroku"}),
    Case("a bad value on the command line", CONFIGURATION, ("--workers='many'",), APP, ("--workers", "many")),
    Case("a configuration file that is none", CONFIGURATION, ("mooring.toml", "not valid TOML"), {**APP, "mooring.toml": "= ="}),
    Case("an unknown name in the file", CONFIGURATION, ("mooring.toml", "wrokers", "did you mean workers"), {**APP, "mooring.toml": "wrokers = 3\n"}),
    Case("a configuration file that is missing", CONFIGURATION, ("conf.toml",), APP, ("--config", "conf.toml")),
    # -- engines
    Case("an unknown engine", CONFIGURATION, ("'waitress'", "uvicorn, granian, hypercorn, gunicorn"), APP, (), {"MOORING_ENGINE": "waitress"}),
    Case("an engine that cannot serve it", CONFIGURATION, ("uvicorn cannot serve a WSGI application", "granian"), {"main.py": WSGI_APP}, (), {"MOORING_ENGINE": "uvicorn"}),
    Case("HTTP/2 on an engine without", CONFIGURATION, ("HTTP/2", "hypercorn"), APP, (), {"MOORING_ENGINE": "uvicorn", "MOORING_HTTP": "2"}),
    Case("the wrong interface", APPLICATION, ("forced to asgi",), {"main.py": "from flask import Flask\napp = Flask('a')\n"}, (), {"MOORING_INTERFACE": "asgi"}),
    Case("an unknown worker class", CONFIGURATION, ("WORKER_CLASS", "nosuch", "asyncio, uvloop, trio"), APP, (), {"MOORING_ENGINE": "hypercorn", "WORKER_CLASS": "nosuch"}),
    Case("a peer that is none", CONFIGURATION, ("FORWARDED_ALLOW_IPS='10.0.0.300'", "10.0.0.0/8"), {"main.py": "1/0\n"}, (), {"FORWARDED_ALLOW_IPS": "10.0.0.300"}),
    # -- listeners and TLS
    Case("an address that is not here", BIND, ("192.0.2.1", "no interface", "(HOST=192.0.2.1, "), APP, (), {"HOST": "192.0.2.1"}),
    Case("a host without an address", BIND, ("shop.invalid", "cannot be resolved", "(HOST=shop.invalid, "), APP, (), {"HOST": "shop.invalid"}),
    Case("a port in quotes", CONFIGURATION, ("PORT='\"8000\"'", "quotes"), APP, (), {"PORT": '"8000"'}),
    Case("a unix socket in no folder", BIND, ("unix:/nonexistent/x.sock", "does not exist"), APP, (), {"BIND": "unix:/nonexistent/x.sock"}),
    Case("a descriptor that is not open", BIND, ("fd://77", "not open"), APP, (), {"BIND": "fd://77"}),
    Case("no systemd", BIND, ("systemd",), APP, (), {"BIND": "systemd"}),
    Case("a certificate without a key", CONFIGURATION, ("tls_key is not set",), APP, (), {"MOORING_TLS_CERTIFICATE": "/x"}),
    Case("a certificate that is missing", CONFIGURATION, ("/nonexistent/c.pem", "No such file"), APP, (), {"MOORING_TLS_CERTIFICATE": "/nonexistent/c.pem", "MOORING_TLS_KEY": "/nonexistent/k.pem"}),
    Case("a certificate and a key that are missing", CONFIGURATION, ("tls_certificate: /nonexistent/c.pem", "tls_key: /nonexistent/k.pem", "No such file"), {"main.py": "1/0\n"}, (), {"MOORING_TLS_CERTIFICATE": "/nonexistent/c.pem", "MOORING_TLS_KEY": "/nonexistent/k.pem"}),
    Case("a certificate that is none", CONFIGURATION, ("main.py", "PEM"), APP, (), {"MOORING_TLS_CERTIFICATE": "main.py", "MOORING_TLS_KEY": "main.py"}),
    # -- the rest of the start
    Case("a hook that fails", 9, ("prestart.sh", "exit code 9"), {**APP, "prestart.sh": "exit 9\n"}),
    Case("a hook that is missing", CONFIGURATION, ("hook.sh",), APP, (), {"PRE_START_PATH": "hook.sh"}),
    Case("a name that is none", CONFIGURATION, ("MOORING_NAME='../x'",), APP, (), {"MOORING_NAME": "../x"}),
    Case("a runtime folder that is a file", CONFIGURATION, ("main.py",), APP, (), {"MOORING_RUNTIME_DIR": "main.py"}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_bad_input_gets_one_clear_last_line_and_its_code(mooring, case):
    app = mooring.start("run", *case.args, files=case.files, **case.environ)
    assert app.wait_exit() == case.code, app.stderr
    _is_clear(app, case)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_check_ends_with_the_same_code_and_line(mooring, case):
    if case.code == 9 or case.says[0].startswith(("unix:", "fd:", "systemd")):
        pytest.skip("check runs no hook, and binds TCP ports only")
    app = mooring.start("check", *case.args, files=case.files, **case.environ)
    assert app.wait_exit() == case.code, app.stderr
    _is_clear(app, case)


def _is_clear(app, case):
    for text in case.says:
        assert text in app.last_line
    assert app.last_line.startswith("mooring: ")
    assert app.stderr.count("mooring: ") == 1
    assert OURS not in app.stderr
    assert app.leftovers == []
    if case.traceback:
        first = app.stderr.index("File ")
        assert case.traceback in app.stderr[first : app.stderr.index("\n", first)]


def test_what_needs_no_application_is_refused_before_anything_is_started(mooring):
    for environ in (
        {"MOORING_TLS_CERTIFICATE": "/nonexistent/c.pem", "MOORING_TLS_KEY": "main.py"},
        {"FORWARDED_ALLOW_IPS": "10.0.0.300"},
    ):
        app = mooring.start("run", files=APP, **environ)
        assert app.wait_exit() == CONFIGURATION
        assert app.stderr.splitlines() == [app.last_line]


def test_a_port_in_use_says_which_and_by_whom(mooring):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        app = mooring.start("run", files=APP, PORT=port)
        assert app.wait_exit() == BIND
    assert f"127.0.0.1:{port}" in app.last_line
    assert "in use" in app.last_line
    assert f"pid {os.getpid()}" in app.last_line
    assert app.leftovers == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give up a capability")
def test_a_port_below_1024_without_the_right(mooring):
    prefix = ["setpriv", "--bounding-set", "-net_bind_service", "--inh-caps", "-all"]
    prefix = ["unshare", "--net", "sh", "-c", 'ip link set lo up 2>/dev/null; exec "$@"', "sh", *prefix]
    app = mooring.start("run", files=APP, prefix=prefix, PORT=80)
    assert app.wait_exit() == BIND
    assert "may not bind port 80" in app.last_line


def test_an_instance_of_that_name_runs_already(mooring):
    mooring.run(workers=1, MOORING_NAME="one")
    app = mooring.start("run", MOORING_NAME="one")
    assert app.wait_exit() == CONFIGURATION
    assert "an instance named one is running already" in app.last_line
    assert "another MOORING_NAME" in app.last_line
    assert app.leftovers == []


def test_unknown_options_and_commands_get_2_and_a_line(mooring):
    for args in (("run", "--wrokers", "2"), ("serve",), ("status", "--nope")):
        app = mooring.start(*args)
        assert app.wait_exit() == CONFIGURATION
        assert app.last_line.startswith("Error: No such")


def test_a_folder_that_was_removed_is_named(mooring):
    prefix = ["sh", "-c", 'mkdir gone && cd gone && rmdir ../gone && exec "$@"', "sh"]
    app = mooring.start("run", prefix=prefix)
    assert app.wait_exit() == CONFIGURATION
    assert "the working folder does not exist any more" in app.last_line
    assert OURS not in app.stderr


def test_control_characters_in_a_value_stay_in_the_line(mooring):
    app = mooring.start("run", "main:app\nmooring: fine\x1b[2J", files=APP)
    assert app.wait_exit() in {CONFIGURATION, APPLICATION}
    assert len(app.stderr.splitlines()) == 1
    assert "\x1b" not in app.stderr
