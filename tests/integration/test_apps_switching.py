"""Switching the engine is one variable, and changes nothing else that a user sees.

The same signals, the same exit codes, the same lines of the access log: the same test for every variant.
"""

from __future__ import annotations

import json
import re
import signal
import socket
from pathlib import Path

import pytest
from harness import Mooring, Starter, eventually
from served import Served
from variants import APPS, Variant, each_asgi, each_variant

# Apache's combined form, then the duration: the default of the access log.
LINE = re.compile(
    r'127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "(?P<request>[^"]*)" '
    r'(?P<status>\d{3}) (?P<size>\d+|-) "(?P<referer>[^"]*)" "(?P<agent>(?:[^"\\]|\\.)*)" \d+us'
)


@each_variant
def test_a_term_lets_the_request_in_flight_end_and_exits_with_0(mooring: Starter, variant: Variant):
    gate = mooring.base / "gate"
    served = Served.start(mooring, variant)
    with served.wire() as wire:
        wire.send(f"/slow?gate={gate}")
        served.app.wait_log(f"in flight {gate}")
        served.app.signal(signal.SIGTERM)
        served.app.wait_log("stopping (")
        eventually(lambda: refused(served), "a listener that is closed to newcomers")
        assert served.app.process.poll() is None
        gate.touch()
        reply = wire.reply()
    assert (reply.status, reply.body) == (200, b"done")
    assert served.app.wait_exit() == 0
    assert '"GET /slow' in served.app.stdout  # its line is not lost


def refused(served: Served) -> bool:
    """Whether nobody listens any more, so that a client may go elsewhere at once."""
    try:
        served.app.connect(timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


@each_variant
def test_an_interrupt_stops_like_a_term(mooring: Starter, variant: Variant):
    served = Served.start(mooring, variant)
    assert served.app.get("/cookies").text == "two"
    served.app.signal(signal.SIGINT)
    assert served.app.wait_exit() == 0


@each_variant
def test_a_request_is_one_line_of_the_access_log(mooring: Starter, variant: Variant):
    served = Served.start(mooring, variant)
    agent = [("User-Agent", 'tests "quoted"'), ("Referer", "http://before.example/")]
    with served.wire() as wire:
        wire.send("/gr%C3%BC%C3%9Fe/cookies?q=a%20b", headers=[*agent, ("Connection", "close")])
        assert wire.reply().body == b"two"
    for path, method in (
        ("/nothing-here", "GET"),
        ("/raise", "GET"),
        ("/cookies", "HEAD"),
        ("/digest", "POST"),
    ):
        with served.wire() as wire:
            wire.send(path, method, body=b"12345" if method == "POST" else None)
            wire.reply(method)
    assert served.app.stop() == 0
    lines = [LINE.fullmatch(line) for line in served.app.stdout.splitlines()]
    assert all(lines), served.app.stdout
    assert [(line["request"], line["status"]) for line in lines if line] == [
        ("GET /gr%C3%BC%C3%9Fe/cookies?q=a%20b HTTP/1.1", "200"),
        ("GET /nothing-here HTTP/1.1", "404"),
        ("GET /raise HTTP/1.1", "500"),
        ("HEAD /cookies HTTP/1.1", "200"),
        ("POST /digest HTTP/1.1", "200"),
    ]
    first = lines[0]
    assert first is not None
    assert (first["size"], first["referer"]) == ("3", "http://before.example/")
    assert first["agent"] == r"tests \"quoted\""


@each_variant
def test_a_hup_replaces_the_worker(mooring: Starter, variant: Variant):
    served = Served.start(mooring, variant)
    before = served.app.ready()
    served.app.signal(signal.SIGHUP)
    served.app.wait_log("rolled: generation 2")
    served.app.wait_ready(1)
    assert served.app.get("/cookies").text == "two"
    assert not set(before) & set(served.app.ready())
    assert served.app.stop() == 0


BROKEN = {"failing.py": "import nothing_of_that_name\n", "number.py": "app = 1\n"}


@each_variant
@pytest.mark.parametrize("name", BROKEN)
def test_an_application_that_cannot_boot_is_3(mooring: Starter, variant: Variant, name: str):
    files = {name: BROKEN[name]}
    app = mooring.start("run", f"{name.removesuffix('.py')}:app", files=files, **variant.environ)
    assert app.wait_exit() == 3
    assert app.last_line.startswith("mooring: ")
    assert name.removesuffix(".py") in app.last_line
    assert "Traceback" not in app.stderr or name == "failing.py"


@each_asgi
def test_a_failing_startup_is_3_and_one_line(mooring: Starter, variant: Variant):
    app = plainly(mooring, variant, "plain_asgi:failing")
    assert app.wait_exit() == 3
    assert app.last_line == "mooring: the application's lifespan startup failed: the database is away"
    assert "Traceback" not in app.stderr


@each_asgi
def test_the_lifespan_is_run_from_startup_to_shutdown(mooring: Starter, variant: Variant):
    marks = mooring.base / "marks"
    served = Served.start(mooring, variant, LIFESPAN_MARKS=marks)
    assert marks.read_text() == "lifespan.startup\n"
    assert served.app.stop() == 0
    assert marks.read_text() == "lifespan.startup\nlifespan.shutdown\n"


@each_variant
def test_a_port_in_use_is_4(mooring: Starter, variant: Variant):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        app = plainly(mooring, variant, variant.plain, PORT=port)
        assert app.wait_exit() == 4
    assert str(port) in app.last_line


@each_variant
def test_bad_settings_are_2(mooring: Starter, variant: Variant):
    for more in (
        {"MOORING_KEEP_ALIVE": "long"},
        {"MOORING_TLS_CERTIFICATE": "/nowhere", "MOORING_TLS_KEY": "/nowhere"},
    ):
        app = plainly(mooring, variant, variant.plain, **more)
        assert app.wait_exit() == 2
        assert app.last_line.startswith("mooring: ")
        assert "Traceback" not in app.stderr


def plainly(mooring: Starter, variant: Variant, target: str, **environ) -> Mooring:
    return mooring.start(
        "run", target, files={}, options={"cwd": APPS / "plain"}, **{**variant.environ, **environ}
    )


@each_variant
def test_status_says_the_same_of_every_engine(mooring: Starter, variant: Variant):
    served = Served.start(mooring, variant)
    status = served.app.status()
    assert (status["state"], status["engine"], status["interface"]) == (
        "serving",
        variant.engine,
        variant.interface,
    )
    assert len(status["workers"]) == 1
    assert served.app.get("/scope").json()["pid"] in worker_pids(served.app, json.dumps(status))


def worker_pids(app: Mooring, status: str) -> set[int]:
    """The workers and, under gunicorn's arbiter, their children."""
    pids = {int(pid) for pid in re.findall(r'"pid": (\d+)', status)} - {app.pid}
    for pid in list(pids):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        pids |= set(map(int, children))
    return pids
