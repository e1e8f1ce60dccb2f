"""mooring's own log on real streams: nothing forges a line, no reader stops the serving, files rotate."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest
from harness import ASGI_APP, eventually
from processes import descriptors, log_writers

RECORD = re.compile(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\] \[[A-Z]+\] ")
FORGED = "[2026-01-01 00:00:00 +0000] [1] [INFO] forged"
RAISES = f"""
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    raise ValueError("bad value: x\\n{FORGED}\\x1b[31m\\rred")
"""


def lines(text: str) -> list[str]:
    return text.splitlines()


# -- forging -----------------------------------------------------------------------------------------------


def test_a_traceback_keeps_its_lines_and_none_of_them_passes_for_a_record(mooring):
    app = mooring.run(workers=1, files={"main.py": RAISES})
    assert app.get("/").status == 500
    app.wait_log("ValueError: bad value: x")
    app.stop()
    shown = app.stderr
    assert "\n  Traceback (most recent call last):\n" in shown
    assert f"\n  {FORGED}\\x1b[31m\n" in shown.replace("\\rred", "\n")
    assert not any(line.startswith(FORGED) for line in lines(shown))
    assert "\x1b" not in shown
    for line in lines(shown):
        assert RECORD.match(line) or line.startswith("  "), line


def test_the_same_as_json_is_one_object_a_line(mooring):
    app = mooring.run(workers=1, files={"main.py": RAISES}, MOORING_LOG_FORMAT="json")
    assert app.get("/").status == 500
    app.wait_log("ValueError")
    os.kill(app.ready()[0], signal.SIGKILL)
    app.wait_log("backoff")
    app.stop()
    records = [json.loads(line) for line in lines(app.stderr)]
    assert all({"time", "pid", "level", "message"} <= set(record) for record in records)
    (failed,) = [record for record in records if "traceback" in record]
    assert "ValueError: bad value: x\n" + FORGED in failed["traceback"]


def test_what_fails_at_boot_cannot_forge_the_last_line(mooring):
    source = f"raise RuntimeError('x\\nmooring: all is well\\n{FORGED}\\x1b[2J')\n"
    app = mooring.start("run", files={"main.py": source})
    assert app.wait_exit() == 3
    assert app.last_line.startswith("mooring: ")
    assert "RuntimeError" in app.last_line
    assert "\x1b" not in app.stderr


def test_a_worker_that_says_nonsense_to_the_supervisor_does_it_no_harm(mooring):
    source = (
        "import os, threading\n"
        "def shout():\n"
        "    for fd in map(int, os.listdir('/proc/self/fd')):\n"
        "        try:\n"
        "            if fd > 2 and os.readlink(f'/proc/self/fd/{fd}').startswith('pipe:'):\n"
        "                for junk in JUNK:\n"
        "                    os.write(fd, junk)\n"
        "        except OSError:\n            pass\n"
        "JUNK = [b'\\n', b'[' * 4000 + b'\\n', b'null\\n', b'7\\n', b'\\xff\\xfe\\n', b'{\"event\": 3}\\n',"
        ' b\'{"event": "ready", "interface": [], "engine": {}}\\n\','
        ' b\'{"event": "ready", "memory": 1e999, "workers": "x"}\\n\','
        ' b\'{"event": "failed", "code": true, "message": 5}\\n\', b\'1\' * 5000 + b\'\\n\']\n'
        "threading.Thread(target=shout).start()\n"
    )
    app = mooring.run(workers=2, files={"main.py": source + ASGI_APP})
    assert app.get("/").text == "hello"
    assert app.stop() == 0


# -- readers -----------------------------------------------------------------------------------------------

CHATTY = """
import logging
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    for _ in range(50):
        logging.getLogger("uvicorn.error").error("x" * 3000)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""


def _status_and_stop(app):
    app.wait_status(lambda s: s["state"] == "serving")
    for _ in range(20):
        assert app.get("/").status == 200
    app.signal(signal.SIGHUP)
    app.wait_status(lambda s: s["generation"] == 2 and s["state"] == "serving")
    for _ in range(20):
        assert app.get("/").status == 200
    assert app.stop() == 0
    assert app.leftovers == []


def test_a_reader_of_stderr_that_has_stopped_stops_nothing(mooring):
    read, write = os.pipe()
    try:
        app = mooring.start("run", files={"main.py": CHATTY}, options={"stderr": write}, WEB_CONCURRENCY=1)
        os.close(write)
        _status_and_stop(app)
        assert os.read(read, 65536).startswith(b"[")
    finally:
        os.close(read)


def test_a_socket_as_stderr_whose_reader_has_stopped_stops_nothing(mooring):
    ours, theirs = socket.socketpair()
    with ours:
        app = mooring.start("run", files={"main.py": CHATTY}, options={"stderr": theirs}, WEB_CONCURRENCY=1)
        theirs.close()
        _status_and_stop(app)


def test_a_reader_that_has_gone_stops_nothing(mooring):
    read, write = os.pipe()
    app = mooring.start("run", files={"main.py": CHATTY}, options={"stderr": write}, WEB_CONCURRENCY=1)
    os.close(write)
    app.wait_status(lambda s: s["state"] == "serving")
    os.close(read)
    _status_and_stop(app)


def test_what_a_slow_reader_has_missed_is_told(mooring):
    read, write = os.pipe()
    app = mooring.start("run", files={"main.py": CHATTY}, options={"stderr": write}, WEB_CONCURRENCY=1)
    os.close(write)
    app.wait_status(lambda s: s["state"] == "serving")
    app.get("/")
    received = b""
    with open(read, "rb", buffering=0) as stream:
        thread = threading.Thread(target=lambda: app.get("/"), daemon=True)
        received += stream.read(65536)
        thread.start()
        while b"log records were dropped" not in received:
            received += stream.read(65536)
    thread.join()
    whole = received.decode().splitlines()
    assert all(RECORD.match(line) or line.startswith("  ") for line in whole[1:-1])


def test_the_applications_own_streams_stay_blocking(mooring):
    source = "import os, sys\nprint('blocking', os.get_blocking(1), os.get_blocking(2), file=sys.stderr)\n"
    app = mooring.run(workers=1, files={"main.py": source + ASGI_APP})
    app.wait_log("blocking True True")


def test_a_file_as_stderr_is_appended_to_by_all(mooring):
    path = mooring.base / "err"
    path.write_text("before\n")
    with path.open("a") as file:
        app = mooring.run(workers=2, files={"main.py": ASGI_APP}, options={"stderr": file})
    app.get("/slow?s=0")
    assert app.stop() == 0
    text = path.read_text()
    assert text.startswith("before\n")
    assert "in flight" in text
    assert text.rstrip().endswith("stopped (asked to stop)")


def test_lines_for_a_closed_stdout_are_counted_and_told_of_once(mooring):
    app = mooring.run(workers=1, options={"stdout": subprocess.DEVNULL, "preexec_fn": lambda: os.close(1)})
    for _ in range(5):
        assert app.get("/").status == 200

    def lost() -> bool:
        page = app.control(path="/metrics").text
        return "\nmooring_access_log_dropped_lines_total 5\n" in page

    eventually(lost, "they are counted")
    assert app.stop() == 0
    assert app.stderr.count("the access log cannot be written: lines are dropped") == 1


def test_records_for_a_closed_stderr_are_counted(mooring):
    app = mooring.start(
        "run", files={"main.py": ASGI_APP}, options={"stderr": None, "preexec_fn": lambda: os.close(2)},
    )  # fmt: skip
    app.wait_status(lambda s: s["state"] == "serving")
    page = app.control(path="/metrics").text
    assert re.search(r"\nmooring_log_dropped_records_total [1-9]", page)
    assert app.stop() == 0


# -- rotation ----------------------------------------------------------------------------------------------


def test_usr1_reopens_the_log_files_everywhere_and_ends_nobody(mooring):
    access, error = mooring.base / "access", mooring.base / "error"
    app = mooring.run(workers=2, ACCESS_LOG=access, ERROR_LOG=error)
    pids = app.ready()
    app.get("/first")
    eventually(lambda: "GET /first" in access.read_text(), "the first line")
    access.rename(mooring.base / "access.1")
    error.rename(mooring.base / "error.1")
    app.signal(signal.SIGUSR1)
    eventually(lambda: error.exists() and "log files are open anew" in error.read_text(), "the reopening")

    def both_write_to_the_new_file():
        app.get("/second")
        return access.exists() and access.read_text().count("GET /second") >= 1

    eventually(both_write_to_the_new_file, "the second line")
    (writer,) = log_writers(app.pid)
    for pid in (app.pid, writer, *pids):
        links = descriptors(pid).values()
        assert (str(access) in links) == (pid not in pids)  # workers have the ring
        assert str(error) in links
        assert str(mooring.base / "access.1") not in links
        assert str(mooring.base / "error.1") not in links
    assert app.ready() == pids
    assert "GET /second" not in (mooring.base / "access.1").read_text()
    assert app.stop() == 0
    assert "stopped" in error.read_text()


def test_usr1_without_log_files_does_nothing(mooring):
    app = mooring.run(workers=2)
    pids = app.ready()
    for _ in range(20):
        app.signal(signal.SIGUSR1)
        app.control()
    assert app.get("/").text == "hello"
    assert app.ready() == pids


def test_a_log_file_that_cannot_be_reopened_is_told_and_the_old_one_kept(mooring):
    folder = mooring.base / "logs"
    folder.mkdir()
    app = mooring.run(workers=1, ACCESS_LOG=folder / "access")
    folder.rename(mooring.base / "moved")
    app.signal(signal.SIGUSR1)
    app.wait_log("cannot be opened again: No such file or directory; going on with the old one")
    app.get("/kept")
    assert app.stop() == 0
    assert "GET /kept" in (mooring.base / "moved" / "access").read_text()


@pytest.mark.parametrize("name", ["ACCESS_LOG", "ERROR_LOG"])
def test_a_log_file_that_cannot_be_opened_is_refused_and_leaves_nothing(mooring, name):
    app = mooring.start("run", files={"main.py": ASGI_APP}, **{name: "/nonexistent/log"})
    assert app.wait_exit() == 2
    assert app.last_line.startswith(f"mooring: {name.lower()}: /nonexistent/log cannot be opened")
    assert not mooring.runtime.exists() or list(mooring.runtime.iterdir()) == []


def test_a_pager_that_closes_early_leaves_no_traceback():
    script = f"{sys.executable} -m mooring settings | head -1"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr == ""
