"""The scoreboard under real engines: what is counted stays counted, whoever ends."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from counters import metric, numbered, requests
from harness import ASGI_APP, WSGI_APP, eventually
from processes import descriptors
from test_engines_supervised import SERVED

TOTAL = "http_requests_total"

HANGS = """
import time
def app(environ, start_response):
    if environ["PATH_INFO"] == "/hang":
        time.sleep(1000)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def counted(app):
    return metric(app, TOTAL, method="GET")


def reaches(app, count, what="the count"):
    eventually(lambda: counted(app) == count, what)


def workers(app):
    return [row for row in app.status()["workers"] if row["state"] == "ready"]


@pytest.mark.parametrize("name", SERVED)
def test_every_engine_counts_exactly(mooring, name):
    environ, source = SERVED[name]
    app = mooring.run(workers=2, files={"main.py": source}, **environ)
    clients = [threading.Thread(target=requests, args=(app, numbered(each, 150))) for each in "abcd"]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    eventually(lambda: counted(app) == 600, "the count")
    assert metric(app, "http_request_duration_seconds_count") == 600
    assert 0 < metric(app, "http_request_duration_seconds_sum") < 600
    eventually(lambda: metric(app, "http_requests_in_flight") == 0, "none in flight")
    assert app.stop() == 0


@pytest.mark.parametrize("name", SERVED)
def test_totals_survive_kills_and_rolls_and_never_go_down(mooring, name):
    environ, source = SERVED[name]
    app = mooring.run(workers=2, files={"main.py": source}, **environ)
    seen, end = [0.0], threading.Event()

    def watch():
        while not end.is_set():
            seen.append(counted(app))

    watcher = threading.Thread(target=watch)
    watcher.start()
    answered = 0
    for round_ in range(1, 4):
        answered += len(requests(app, numbered("a", 100)))
        reaches(app, answered, "the count")
        os.kill(workers(app)[0]["pid"], signal.SIGKILL)
        reaches(app, answered, "the count without it")
        app.signal(signal.SIGHUP)
        app.wait_log(f"rolled: generation {round_ + 1} serves")
        reaches(app, answered, "the count after the roll")
    end.set()
    watcher.join()
    assert seen == sorted(seen)
    assert len(seen) > 10
    assert app.stop() == 0


def test_gunicorns_workers_have_a_row_each(mooring):
    app = mooring.run(workers=3, files={"main.py": WSGI_APP}, MOORING_ENGINE="gunicorn")
    eventually(lambda: len(workers(app)) == 3, "three workers")
    before = descriptors(app.pid)
    assert len({row["pid"] for row in workers(app)}) == 3
    app.signal(signal.SIGTTIN)
    eventually(lambda: len(workers(app)) == 4, "one more")
    answered = len(requests(app, numbered("a", 50)))
    for _ in range(40):  # more than it has rows to spare
        (victim, *_) = workers(app)
        os.kill(victim["pid"], signal.SIGKILL)
        app.wait_ready(4, without=[victim["pid"]])  # another is in its place
        answered += len(requests(app, ["/b"]))
        assert counted(app) == answered
    eventually(lambda: len(descriptors(app.pid)) <= len(before), "the control socket's last client's end")
    assert app.stop() == 0


def test_granians_threads_are_counted_and_logged(mooring):
    app = mooring.run(workers=1, files={"main.py": WSGI_APP}, MOORING_THREADS=16, MOORING_ENGINE="granian")
    clients = [threading.Thread(target=requests, args=(app, numbered(str(each), 100))) for each in range(24)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    eventually(lambda: counted(app) == 2400, "the count")
    app.stop()
    found = [line.split('"')[1].split()[1] for line in app.stdout.splitlines()]
    assert sorted(found) == sorted(path for each in range(24) for path in numbered(str(each), 100))


def test_a_request_that_hangs_is_in_flight(mooring):
    app = mooring.run(workers=1, files={"main.py": HANGS})
    with app.connect() as hanging:
        hanging.sendall(b"PUT /hang HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        eventually(lambda: metric(app, "http_requests_in_flight") == 1, "the request")
        assert len(requests(app, ["/"])) == 1
        assert metric(app, TOTAL, method="PUT") == 0
        os.kill(app.ready()[0], signal.SIGKILL)
        eventually(lambda: metric(app, "http_requests_in_flight") == 0, "none")


def test_a_worker_that_scribbles_over_all_shared_memory_harms_nobody_else(mooring):
    source = (
        "import mmap, os\n"
        "def scribble():\n"
        "    for fd in map(int, os.listdir('/proc/self/fd')):\n"
        "        try:\n            name = os.readlink(f'/proc/self/fd/{fd}')\n"
        "        except OSError:\n            continue\n"
        "        if 'memfd:mooring' in name:\n"
        "            try:\n                os.ftruncate(fd, 0)\n"
        "            except OSError:\n                pass\n"
        "            memory = mmap.mmap(fd, 4 << 20)\n"
        "            memory[:] = os.urandom(4 << 20)\n"
    )
    hit = ASGI_APP.replace('case "/":', 'case "/scribble":\n            scribble()\n        case "/":')
    app = mooring.run(workers=2, files={"main.py": source + hit})
    requests(app, ["/"] * 100)
    before = counted(app)
    with app.connect() as client:
        client.sendall(b"GET /scribble HTTP/1.1\r\nhost: x\r\n\r\n")
        client.recv(65536)
    for _ in range(5):
        assert app.control(path="/metrics").status == 200
        assert app.control(path="/stats").status == 200
        assert app.control(path="/status").status == 200
        assert counted(app) >= before
        app.get("/")
    app.signal(signal.SIGHUP)
    app.wait_log("rolled: generation 2 serves")

    def logged():
        assert app.get("/after").status == 404
        return "GET /after" in app.stdout

    eventually(logged, "the log goes on")  # the first line may be lost with what the ring's cells held
    assert counted(app) >= before
    assert app.stop() == 0
