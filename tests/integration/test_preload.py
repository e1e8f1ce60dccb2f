"""Preloading: the application is imported once; what a fork does not carry over is told or refused."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl

import pytest
import traffic
from certificates import Authority, serial_of
from harness import ASGI_APP, WSGI_APP, eventually, pids_marked

PRINTS = "import os\nprint('imported by', os.getpid(), flush=True)\n"
ASGI, WSGI = PRINTS + ASGI_APP, PRINTS + WSGI_APP
NEW = ASGI.replace('VERSION = "1"', 'VERSION = "2"')
THREAD = "import threading, time\n\n\ndef refresh():\n    time.sleep(600)\n\n\n"
THREAD += "threading.Thread(target=refresh, name='refresher', daemon=True).start()\n"
SOCKET = "import socket\nkept = socket.create_connection(('127.0.0.1', {port}))\n"
LOOP = "import asyncio\nloop = asyncio.new_event_loop()\n"
UVLOOP = "import uvloop\nloop = uvloop.new_event_loop()\n"
RUNNING = "import asyncio, threading\nloop = asyncio.new_event_loop()\n"
RUNNING += "threading.Thread(target=loop.run_forever, name='background', daemon=True).start()\n"
WAITS = PRINTS + "import time\ntime.sleep(600)\n"


def imports(app):
    """The pids of the processes that have imported the application."""
    return [int(pid) for pid in re.findall(r"imported by (\d+)", app.stdout)]


def templates(app):
    return [each["pid"] for each in app.status()["templates"]]


def parent(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def start(mooring, source, *, mode="refuse", **more):
    return mooring.start("run", files={"main.py": source}, MOORING_PRELOAD=mode, **more)


def serve(mooring, source=ASGI, *, mode="refuse", workers=2, **more):
    return mooring.run(files={"main.py": source}, workers=workers, MOORING_PRELOAD=mode, **more)


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


# -- served ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "more"),
    [
        (ASGI, {"MOORING_ENGINE": "uvicorn", "MOORING_LOOP": "uvloop"}),
        (ASGI, {"MOORING_ENGINE": "uvicorn", "MOORING_LOOP": "asyncio"}),
        (ASGI, {"MOORING_ENGINE": "granian"}),
        (WSGI, {"MOORING_ENGINE": "granian"}),
        (ASGI, {"MOORING_ENGINE": "hypercorn"}),
        (ASGI, {"MOORING_ENGINE": "hypercorn", "MOORING_WORKER_CLASS": "trio"}),
        (WSGI, {"MOORING_ENGINE": "hypercorn"}),
    ],
    ids=["uvicorn-uvloop", "uvicorn-asyncio", "granian-asgi", "granian-wsgi", "hypercorn", "hypercorn-trio",
         "hypercorn-wsgi"],
)  # fmt: skip
def test_every_engine_serves_and_the_import_is_one(mooring, source, more):
    app = serve(mooring, source, workers=3, **more)
    workers = app.ready()
    assert [parent(pid) for pid in workers] == [app.pid] * 3  # supervised as any other
    assert [os.getpgid(pid) for pid in workers] == workers
    pids = set()

    def both():
        pids.add(int(app.get("/pid").text))
        return len(pids) > 1

    eventually(both, "answers of two workers")
    assert pids <= set(workers)
    assert imports(app) == templates(app)
    assert not set(imports(app)) & set(workers)
    seen = app.status()["workers"]
    assert all(each["memory_bytes"] > 1_000_000 for each in seen)
    eventually(lambda: sum(each["requests"] for each in app.status()["workers"]) >= 2, "counted")
    assert app.stop() == 0
    assert app.leftovers == []
    assert "Traceback" not in app.stderr


def test_without_it_each_worker_imports(mooring):
    app = mooring.run(files={"main.py": ASGI}, workers=2)
    assert sorted(imports(app)) == sorted(app.ready())
    assert app.status()["templates"] == []


def test_gunicorn_is_told_of_its_own(mooring):
    app = start(mooring, WSGI, MOORING_ENGINE="gunicorn")
    assert app.wait_exit() == 2
    assert "preload_app" in app.last_line
    assert "MOORING_PRELOAD=off" in app.last_line


def test_a_bad_value(mooring):
    app = start(mooring, ASGI, mode="maybe")
    assert app.wait_exit() == 2
    assert "MOORING_PRELOAD" in app.last_line
    assert "off, warn, refuse" in app.last_line


def test_live_reload_goes_without(mooring):
    app = mooring.start("dev", files={"main.py": ASGI}, MOORING_PRELOAD="refuse")
    app.wait_ready(1)
    assert app.status()["templates"] == []
    assert app.stop() == 0


# -- what does not survive a fork --------------------------------------------------------------------------

SQLITE = (
    "import sqlite3\nkept = sqlite3.connect('shop.db')\nkept.execute('create table if not exists t(x)')\n"
)
LEFT = [
    (THREAD, "thread refresher (refresh, "),
    (SOCKET, "a socket connected to 127.0.0.1:"),
    ("import socket\nkept = socket.create_server(('127.0.0.1', 0))\n", "a socket that listens at 127.0.0.1:"),
    (LOOP, "an open event loop (asyncio.unix_events._UnixSelectorEventLoop)"),
    (UVLOOP, "an open event loop (uvloop.Loop)"),
    (RUNNING, "a running event loop (asyncio.unix_events._UnixSelectorEventLoop)"),
    ("import select\nkept = select.epoll()\n", "an epoll instance"),
    (SQLITE, "an open SQLite database, /"),
    ("import subprocess\nkept = subprocess.Popen(['sleep', '600'])\n", "a child process (sleep, pid "),
]
NAMES = ["thread", "socket", "listener", "loop", "uvloop", "running", "epoll", "sqlite", "child"]


@pytest.mark.parametrize(("left", "words"), LEFT, ids=NAMES)
def test_what_an_import_leaves_behind_is_refused_with_the_list(mooring, listening, left, words):
    app = start(mooring, left.replace("{port}", str(listening)) + ASGI)
    assert app.wait_exit() == 3
    assert app.leftovers == []
    assert words in app.last_line
    assert "MOORING_PRELOAD=warn" in app.last_line
    assert app.last_line.startswith("mooring: the application cannot be preloaded")
    assert ("thread background" in app.last_line) == (left == RUNNING)
    assert "Traceback" not in app.stderr


@pytest.mark.parametrize(("left", "words"), LEFT, ids=NAMES)
def test_or_it_is_warned_of_and_serves(mooring, listening, left, words):
    app = serve(mooring, left.replace("{port}", str(listening)) + ASGI, mode="warn")
    line = app.wait_log("leaves behind what a fork does not carry over")
    assert "[WARNING]" in line
    assert words in line
    assert app.get("/").text == "hello"
    assert app.stop() == 0
    assert app.leftovers == []


NATIVE = """import _thread, os, time
_thread.start_new_thread(time.sleep, (600,))
"""
MINDS_FORKS = """import _thread, os, time
lock = _thread.allocate_lock()
lock.acquire()
_thread.start_new_thread(lock.acquire, ())
os.register_at_fork(before=lambda: lock.locked() and lock.release())
"""


def test_a_native_thread_is_told_unless_its_library_ends_it_before_a_fork(mooring):
    app = start(mooring, NATIVE + ASGI)
    assert app.wait_exit() == 3
    assert "a native thread (" in app.last_line
    app = serve(mooring, MINDS_FORKS + ASGI)  # as numpy's OpenBLAS does
    assert app.get("/").text == "hello"
    assert app.stop() == 0


def test_check_says_what_run_would(mooring):
    app = mooring.start("check", files={"main.py": THREAD + ASGI}, MOORING_PRELOAD="refuse")
    assert app.wait_exit() == 3
    assert "thread refresher" in app.last_line
    app = mooring.start("check", files={"main.py": ASGI}, MOORING_PRELOAD="refuse")
    assert app.wait_exit() == 0


def test_what_is_over_by_the_end_of_the_import_is_nothing_to_tell(mooring, listening):
    source = THREAD.replace("600", "0.1") + SOCKET.replace("{port}", str(listening)) + "kept.close()\n"
    source += "import asyncio, concurrent.futures as f\nasyncio.run(asyncio.sleep(0))\n"
    source += "import sqlite3, subprocess\nsubprocess.run(['true'])\nended = subprocess.Popen(['true'])\n"
    source += "in_memory = sqlite3.connect(':memory:')\nin_memory.execute('create table t (x)')\n"
    source += "with f.ThreadPoolExecutor() as pool:\n    list(pool.map(str, range(9)))\n"
    app = serve(mooring, source + ASGI)
    assert app.get("/").text == "hello"
    assert app.stop() == 0


# -- failing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["off", "refuse"])
@pytest.mark.parametrize(
    "source",
    [
        "raise RuntimeError('no database')\n",
        "import os\nos._exit(7)\n",
        "import os\nos.kill(os.getpid(), 9)\n",
        "nothing = 1\n",
    ],
)
def test_an_import_that_fails_ends_with_the_same_words_as_without(mooring, mode, source):
    app = start(mooring, source, mode=mode)
    assert app.wait_exit() == 3
    words = {"RuntimeE": "RuntimeError: no database", "os._exit": "exit code 7", "os.kill(": "SIGKILL"}
    expected = next((text for part, text in words.items() if part in source), "has no application")
    assert expected in app.last_line
    if "os." in source:
        assert "the application ended its worker before it was ready" in app.last_line
    assert app.stderr.count("Traceback") == ("RuntimeError" in source)
    assert app.leftovers == []


def test_a_failing_lifespan_startup_ends_with_3(mooring):
    source = (
        "async def app(scope, receive, send):\n"
        "    assert scope['type'] == 'lifespan'\n    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no broker'})\n"
    )
    app = start(mooring, source)
    assert app.wait_exit() == 3
    assert "no broker" in app.last_line
    assert app.leftovers == []


def test_the_boot_deadline_counts_the_import(mooring):
    app = start(mooring, WAITS, MOORING_BOOT_TIMEOUT=1)
    assert app.wait_exit() == 3
    assert app.last_line == "mooring: the application was not ready within 1 s (MOORING_BOOT_TIMEOUT)"
    assert app.leftovers == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_while_the_template_imports_is_at_once(mooring, number):
    app = start(mooring, WAITS)
    app.wait_log("imported by")
    app.wait_status(lambda s: s["state"] == "booting")
    app.signal(number)
    assert app.wait_exit(timeout=5) == 0
    assert app.leftovers == []


# -- rolls, crashes, recycling -----------------------------------------------------------------------------


def test_a_roll_takes_the_new_code_from_a_new_template(mooring):
    app = serve(mooring)
    (before,) = templates(app)
    app.write("main.py", NEW)
    app.signal(signal.SIGHUP)
    app.wait_log("rolled: generation 2 serves")
    app.wait_ready(2)
    assert app.get("/version").text == "2"
    (after,) = eventually(lambda: len(templates(app)) == 1 and templates(app), "the old template's end")
    assert after != before
    assert imports(app) == [before, after]
    assert app.stop() == 0


@pytest.mark.parametrize(
    ("source", "engine"),
    [
        (traffic.APP, "uvicorn"),
        (traffic.APP, "granian"),
        (traffic.WSGI_APP, "granian"),
        (traffic.APP, "hypercorn"),
    ],
    ids=["uvicorn", "granian-asgi", "granian-wsgi", "hypercorn"],
)
def test_rolls_under_full_load_lose_nothing(mooring, source, engine):
    sockets = {"websockets": 0} if source == traffic.WSGI_APP else {}
    app = serve(mooring, source, MOORING_ENGINE=engine)
    with traffic.Traffic(app.port, **sockets) as load:
        for generation in (2, 3, 4):
            app.signal(signal.SIGHUP)
            app.wait_log(f"rolled: generation {generation} serves", timeout=60)
            app.wait_ready(2)
    assert load.failed == {}, load.found
    assert load.ok["fast"] > 0
    assert app.stop() == 0


def test_a_roll_takes_the_new_certificate(mooring):
    authority = Authority(mooring.base)
    certificate, key = authority.issue(1)
    app = serve(mooring, MOORING_TLS_CERTIFICATE=certificate, MOORING_TLS_KEY=key)

    def serial():
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", app.port)) as raw, context.wrap_socket(raw) as sock:
            return serial_of(sock.getpeercert(binary_form=True))

    assert serial() == 1
    authority.issue(2)
    app.signal(signal.SIGHUP)
    app.wait_log("rolled: generation 2 serves")
    for pid in app.wait_ready(2):
        os.kill(pid, signal.SIGKILL)
        app.wait_ready(2, without=[pid])
    assert serial() == 2
    assert len(imports(app)) == 2
    assert app.stop() == 0


def test_a_broken_release_is_rolled_back_and_a_crash_is_replaced_with_the_old_code(mooring):
    app = serve(mooring)
    (before,), workers = templates(app), app.ready()
    app.write("main.py", "raise RuntimeError('bad release')\n")
    app.signal(signal.SIGHUP)
    assert "bad release" in app.wait_log("roll to generation 2 failed")
    assert app.ready() == workers
    os.kill(workers[0], signal.SIGKILL)
    app.wait_ready(2, without=[workers[0]])
    assert templates(app) == [before]
    assert app.get("/version").text == "1"
    app.write("main.py", NEW)
    app.signal(signal.SIGHUP)
    app.wait_log("rolled: generation 3 serves")
    app.wait_ready(2)
    assert app.get("/version").text == "2"
    assert app.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_crash_is_named_and_replaced_without_an_import(mooring, number):
    app = serve(mooring)
    for count in (1, 2, 3):
        victim = app.ready()[0]
        os.kill(victim, number)
        assert f"killed by {signal.Signals(number).name}" in app.wait_log("exited while ready", count=count)
        app.wait_ready(2, without=[victim])
    assert len(imports(app)) == 1
    assert app.status()["last_exits"][-1]["kind"] == "signal"
    assert app.stop() == 0


def test_a_recycled_worker_is_not_replaced_from_where_it_came(mooring):
    app = serve(mooring, MOORING_MAX_REQUESTS=20, MOORING_MAX_REQUESTS_JITTER=0)

    def recycled(count):
        if app.stderr.count("recycling worker") < count:
            app.get("/")
        return sum(each["kind"] == "recycled" for each in app.status()["last_exits"]) >= count

    eventually(lambda: recycled(1))
    assert len(imports(app)) == 2
    eventually(lambda: recycled(2))
    found = {0, 1}
    if set(re.findall(r"recycling worker (\d)", app.stderr)) == {"0", "1"}:
        assert len(imports(app)) == 2  # both replacements come from the second
        found = {0}
    eventually(lambda: len(templates(app)) <= 1 + (1 in found), "the first template has ended")
    assert app.stop() == 0
    assert app.leftovers == []


def test_when_a_template_is_killed_its_workers_serve_and_the_next_one_makes_another(mooring):
    app = serve(mooring)
    (template,), workers = templates(app), app.ready()
    os.kill(template, signal.SIGKILL)
    app.wait_log("template 1 has ended: killed by SIGKILL")
    assert templates(app) == []
    assert app.ready() == workers
    assert app.get("/").text == "hello"
    os.kill(workers[1], signal.SIGKILL)
    ready = app.wait_ready(2, without=[workers[1]])
    assert ready[0] == workers[0]
    assert len(imports(app)) == 2
    assert app.stop() == 0


def test_a_template_that_is_killed_while_it_owes_a_worker_is_replaced(mooring):
    app = serve(mooring)
    (template,), workers = templates(app), app.ready()
    os.kill(template, signal.SIGSTOP)
    os.kill(workers[0], signal.SIGKILL)
    app.wait_status(lambda s: any(w["state"] == "starting" and w["pid"] is None for w in s["workers"]))
    os.kill(template, signal.SIGKILL)
    eventually(lambda: len(app.ready()) == 2 and app.ready()[1] == workers[1], "replaced")
    assert len(imports(app)) == 2
    assert "exited while starting" not in app.stderr
    assert app.stop() == 0
    assert app.leftovers == []


def test_a_frozen_template_is_killed_at_the_boot_deadline(mooring):
    app = serve(mooring, MOORING_BOOT_TIMEOUT=3)
    (template,), workers = templates(app), app.ready()
    os.kill(template, signal.SIGSTOP)
    os.kill(workers[0], signal.SIGKILL)
    app.wait_log("worker 0: boot deadline passed; killing it")
    eventually(lambda: len(app.ready()) == 2 and app.ready()[1] == workers[1], "replaced")
    assert template not in templates(app)
    assert app.stop() == 0
    assert app.leftovers == []


def test_a_hung_worker_is_dumped_and_replaced(mooring):
    source = ASGI.replace(
        'case "/":', 'case "/block":\n            import time; time.sleep(60)\n        case "/":'
    )
    app = serve(mooring, source, MOORING_TIMEOUT=1)
    with app.connect() as client:
        client.sendall(b"GET /block HTTP/1.1\r\nhost: x\r\n\r\n")
        app.wait_log("is hung: no move for")
        app.wait_log("main.py")
    app.wait_ready(2)
    assert len(imports(app)) == 1
    assert app.stop() == 0


def test_the_supervisors_sudden_end_takes_template_and_workers_along(mooring):
    app = serve(mooring)
    app.signal(signal.SIGKILL)
    app.process.wait()
    eventually(lambda: not pids_marked(app.mark), "nobody left", timeout=2)


def test_the_supervisors_sudden_end_while_the_template_imports(mooring):
    app = start(mooring, WAITS)
    app.wait_log("imported by")
    app.signal(signal.SIGKILL)
    app.process.wait()
    eventually(lambda: not pids_marked(app.mark), "nobody left", timeout=2)


def test_twenty_rolls_leave_no_descriptor_and_no_zombie(mooring):
    app = serve(mooring)

    def descriptors():
        return len(os.listdir(f"/proc/{app.pid}/fd"))

    def roll(generation):
        app.signal(signal.SIGHUP)
        app.wait_log(f"rolled: generation {generation} serves", timeout=60)
        app.wait_ready(2)
        eventually(lambda: len(templates(app)) == 1, "one template")

    roll(2)
    before = descriptors()
    for generation in range(3, 23):
        roll(generation)
    eventually(lambda: descriptors() <= before, "as many descriptors as before")
    with open(f"/proc/{app.pid}/task/{app.pid}/children") as file:
        children = [int(pid) for pid in file.read().split()]
    assert set(children) >= {*app.ready(), *templates(app)}
    assert len(children) == 4  # and the log writer
    assert app.stop() == 0
    assert app.leftovers == []


def test_resizing_forks_from_the_template(mooring):
    app = serve(mooring, workers=1)
    app.signal(signal.SIGTTIN)
    app.wait_ready(2)
    app.signal(signal.SIGTTOU)
    app.wait_ready(1)
    assert len(imports(app)) == 1
    assert app.stop() == 0


def test_what_is_printed_at_import_is_printed_once_and_atexit_runs_in_each_worker(mooring):
    source = "import atexit, os, sys\nsys.stdout.write('half a line')\n" + ASGI_APP
    source += "atexit.register(lambda: print('bye', os.getpid(), flush=True))\n"
    app = serve(mooring, source)
    workers = app.ready()
    assert app.stop() == 0
    assert app.stdout.count("half a line") == 1
    assert sorted(int(pid) for pid in re.findall(r"bye (\d+)", app.stdout)) == sorted(workers)


def test_log_files_that_were_reopened_are_those_of_later_workers(mooring):
    error = mooring.base / "error"
    app = serve(mooring, workers=1, ERROR_LOG=error)
    error.rename(mooring.base / "error.1")
    app.signal(signal.SIGUSR1)
    eventually(lambda: error.exists() and "log files are open anew" in error.read_text(), "the reopening")

    def files(pid):
        return {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}

    eventually(lambda: str(error) in files(templates(app)[0]), "the template's reopening")
    (before,) = app.ready()
    os.kill(before, signal.SIGKILL)
    (after,) = eventually(lambda: app.ready() not in ([], [before]) and app.ready(), "replaced")
    assert str(error) in files(after)
    assert str(mooring.base / "error.1") not in files(after)
    assert len(imports(app)) == 1
    assert app.stop() == 0


COUNTING = ASGI.replace('case "/":', 'case "/count":\n            JOBS.inc()\n        case "/":')
COUNTING = "from prometheus_client import Counter\nJOBS = Counter('jobs', 'Jobs.')\nJOBS.inc(5)\n" + COUNTING


def test_the_applications_metrics_add_up(mooring):
    app = serve(mooring, COUNTING, workers=2)

    def jobs():
        text = app.control(path="/metrics").text
        return float(re.search(r"^jobs_total (\S+)", text, re.MULTILINE)[1])

    for _ in range(30):
        assert app.get("/count").status == 200
    assert jobs() == 35  # the import was one
    os.kill(app.ready()[0], signal.SIGKILL)
    app.wait_log("exited while ready")
    app.wait_ready(2)
    os.kill(templates(app)[0], signal.SIGKILL)
    app.wait_log("template 1 has ended")
    assert jobs() == 35
    assert app.stop() == 0


def test_random_numbers_differ(mooring):
    route = 'case "/random":\n            body = str(random.random())\n        case "/":'
    source = ASGI_APP.replace('case "/":', route)
    app = serve(mooring, "import random\nrandom.seed(1)\n" + source)
    found = {}

    def two():
        with app.connect() as client:
            client.sendall(b"GET /pid HTTP/1.1\r\nhost: x\r\n\r\n")
            pid = client.recv(4096).rpartition(b"\r\n")[2]
            client.sendall(b"GET /random HTTP/1.1\r\nhost: x\r\n\r\n")
            found.setdefault(pid, client.recv(4096).rpartition(b"\r\n")[2])
        return len(found) == 2

    eventually(two, "both workers")
    assert len(set(found.values())) == 2
    assert app.stop() == 0
