"""Live reload: a save is served, on every engine, and nothing that goes wrong ends it."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from harness import WSGI_APP, eventually, pids_marked
from live import code, dev, reloads, replace_file, wait_version, watcher

WSGI = WSGI_APP.replace('"/pid": str(os.getpid())', '"/version": "1"')

ENGINES = {
    "uvicorn": ("uvicorn", code(1)),
    "granian-asgi": ("granian", code(1)),
    "granian-wsgi": ("granian", WSGI),
    "hypercorn-asgi": ("hypercorn", code(1)),
    "hypercorn-wsgi": ("hypercorn", WSGI),
    "gunicorn-wsgi": ("gunicorn", WSGI),
}


@pytest.mark.parametrize(("engine", "source"), ENGINES.values(), ids=ENGINES)
def test_a_save_is_served_on_every_engine(mooring, engine, source):
    app = dev(mooring, "--engine", engine, files={"main.py": source})
    assert app.get("/version").text == "1"
    app.write("main.py", source.replace('"1"', '"2"'))
    wait_version(app, 2)
    assert app.status()["engine"] == engine
    assert reloads(app) == ["main.py"]
    assert app.stop(timeout=10) == 0
    assert app.leftovers == []


@pytest.mark.parametrize("engine", [(), ("--engine", "gunicorn")], ids=["default", "gunicorn"])
def test_with_gunicorn_configuration(mooring, engine):
    """Another engine by default: gunicorn's reloader never worked with uvicorn's workers."""
    files = {"main.py": code(1), "conf.py": "reload = True\nworker_class = 'uvicorn_worker.UvicornWorker'\n"}
    app = mooring.start("run", *engine, files=files, GUNICORN_CONF=mooring.folder / "conf.py")
    app.wait_status(lambda s: s["state"] == "serving")
    app.write("main.py", code(2))
    wait_version(app, 2)
    assert app.status()["engine"] == (engine[-1] if engine else "uvicorn")
    assert app.stop() == 0


BROKEN = {
    "syntax": ("def broken(:\n", "SyntaxError"),
    "import": ("import nothing_like_it\n", "nothing_like_it"),
    "exception": ("raise RuntimeError('no luck')\n", "no luck"),
    "exit": ("import os\nos._exit(7)\n", "exit code 7"),
}


@pytest.mark.parametrize(("text", "shown"), BROKEN.values(), ids=BROKEN)
def test_a_broken_application_waits_for_the_next_save(mooring, text, shown):
    """At the very first start, after another failure, and later on."""
    app = mooring.start("dev", files={"main.py": text}, RELOAD_DELAY=0.1)
    assert shown in app.wait_log("waiting for the next save")
    app.write("main.py", text + "#\n")
    app.wait_log("waiting for the next save", count=2)
    app.write("main.py", code(2))
    wait_version(app, 2)
    app.write("main.py", text)
    app.wait_log("waiting for the next save", count=3)
    app.write("main.py", code(3))
    wait_version(app, 3)
    assert app.stop() == 0


def test_the_traceback_is_the_applications_own(mooring):
    app = mooring.start("dev", files={"main.py": "import other\n", "other.py": "\n1 / 0\n"})
    app.wait_log("waiting for the next save")
    assert f'File "{app.folder}/other.py", line 2' in app.stderr
    assert "/mooring/" not in app.stderr
    app.write("other.py", "from typing import *\n")
    app.write("main.py", code(1))
    wait_version(app, 1)


FAILING = """
async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
"""


def test_a_failing_lifespan_waits_too(mooring):
    app = mooring.start("dev", files={"main.py": FAILING})
    assert "no database" in app.wait_log("waiting for the next save")
    app.write("main.py", code(2))
    wait_version(app, 2)


@pytest.mark.parametrize("name", [(), ("nope:app",), ("pkg.nope:app",)], ids=["any", "module", "submodule"])
def test_no_application_at_all_is_exit_code_3(mooring, name):
    files = {"pkg/__init__.py": "", "README": ""}
    app = mooring.start("dev", *name, files=files)
    assert app.wait_exit() == 3
    assert "no application found" in app.last_line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_a_stop_while_waiting_on_a_broken_application(mooring, number):
    app = mooring.start("dev", files={"main.py": "def broken(:\n"})
    app.wait_log("waiting for the next save")
    app.signal(number)
    assert app.wait_exit(timeout=10) == 0
    assert app.leftovers == []


def test_a_change_while_reloading_leads_to_the_newest_code(mooring):
    app = dev(mooring)
    slow = "print('importing', __file__, flush=True)\nimport time\ntime.sleep(600)\n"
    app.write("main.py", slow + code(2))
    app.wait_log("importing")
    app.write("main.py", code(3))
    wait_version(app, 3)
    assert reloads(app) == ["main.py", "main.py"]


def test_a_save_in_the_same_second_with_the_same_size_is_not_hidden_by_bytecode(mooring):
    path = mooring.folder / "part.py"
    files = {"main.py": code(1, "\nfrom part import VERSION\n"), "part.py": "VERSION = '1'\n"}
    app = dev(mooring, files=files, PYTHONDONTWRITEBYTECODE=None)
    moment = time.time() + 600  # however long a reload takes here: all of it was saved "a moment ago"
    for number in "23":
        path.write_text(f"VERSION = '{number}'\n")
        os.utime(path, (moment, moment))
        wait_version(app, number)


def test_bytecode_is_still_written_for_what_was_not_just_saved(mooring):
    part = mooring.folder / "part.py"
    part.write_text("VERSION = '1'\n")
    os.utime(part, (1e9, 1e9))
    files = {"main.py": code(1, "\nfrom part import VERSION\n")}
    dev(mooring, files=files, PYTHONDONTWRITEBYTECODE=None)
    assert [each.name.split(".")[0] for each in (mooring.folder / "__pycache__").iterdir()] == ["part"]


STREAM = """
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"tick", "more_body": True})
            await asyncio.sleep(0.1)
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await receive()
    query"""
STREAMING = b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.parametrize(
    ("engine", "request_"),
    [("uvicorn", UPGRADE), ("granian", STREAMING), ("hypercorn", UPGRADE)],
    ids=["uvicorn-websocket", "granian-stream", "hypercorn-websocket"],
)
def test_an_open_stream_does_not_hold_the_reload(mooring, engine, request_):
    source = code(1).replace("\n    query", STREAM)
    app = dev(mooring, "--engine", engine, files={"main.py": source}, GRACEFUL_TIMEOUT=600, TIMEOUT=600)
    with app.connect() as open_one:
        open_one.sendall(request_)
        assert open_one.recv(4) == b"HTTP"
        app.write("main.py", source.replace('"1"', '"2"'))
        wait_version(app, 2)


WSGI_STREAM = """
import itertools, time

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/version":
        return [b"1"]
    return ((b"tick", time.sleep(0.1))[0] for _ in itertools.count())
"""


@pytest.mark.parametrize("engine", ["granian", "hypercorn", "gunicorn"])
def test_an_open_wsgi_stream_does_not_hold_the_reload(mooring, engine):
    app = dev(mooring, "--engine", engine, files={"main.py": WSGI_STREAM}, GRACEFUL_TIMEOUT=600, TIMEOUT=600)
    with app.connect() as open_one:
        open_one.sendall(STREAMING)
        assert open_one.recv(4) == b"HTTP"
        app.write("main.py", WSGI_STREAM.replace('b"1"', 'b"2"'))
        wait_version(app, 2)


def test_no_request_is_refused_while_reloading(mooring):
    app = dev(mooring)
    failed, answers, end = [], [], threading.Event()

    def ask():
        while not end.is_set():
            try:
                answers.append(app.get("/version").text)
            except OSError as error:
                failed.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    for number in range(2, 6):
        app.write("main.py", code(number))
        wait_version(app, number)
    end.set()
    asking.join()
    assert failed == []
    assert {"1", "5"} <= set(answers)


def test_requests_wait_for_a_broken_application_to_be_mended(mooring):
    app = dev(mooring)
    app.write("main.py", "def broken(:\n")
    app.wait_log("waiting for the next save")
    with app.connect() as waiting:
        waiting.sendall(b"GET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        app.write("main.py", code(2))
        assert waiting.recv(65536).startswith(b"HTTP/1.1 200")


def test_the_watcher_is_started_again_and_misses_nothing(mooring):
    app = dev(mooring)
    first = watcher(app)
    os.kill(first, signal.SIGKILL)
    replace_file(mooring.folder / "main.py", code(2))  # it may be that nobody watches now
    wait_version(app, 2)
    app.wait_log("live reload watches", count=2)
    assert watcher(app) != first
    app.write("main.py", code(3))
    wait_version(app, 3)
    assert app.stop() == 0


def test_a_watcher_that_keeps_ending_is_given_up(mooring):
    app = dev(mooring)
    killed = []
    for _ in range(3):
        killed.append(watcher(app, but=killed))
        os.kill(killed[-1], signal.SIGKILL)
    app.wait_log("live reload is off: its watcher keeps ending")
    assert app.get("/version").text == "1"
    assert app.stop() == 0


def test_a_supervisor_killed_outright_leaves_nothing(mooring):
    app = dev(mooring)
    assert len(pids_marked(app.mark)) == 4  # supervisor, log writer, worker, watcher
    app.signal(signal.SIGKILL)
    app.wait_exit()
    eventually(lambda: not pids_marked(app.mark), "the end of worker and watcher", timeout=10)
    app.leftovers = []  # seen by wait_exit before the kernel was through


def test_hup_reloads_too(mooring):
    app = dev(mooring)
    app.signal(signal.SIGHUP)
    app.wait_status(lambda s: s["generation"] == 2 and s["ready"])
    assert reloads(app) == []
    app.write("main.py", code(2))
    wait_version(app, 2)
