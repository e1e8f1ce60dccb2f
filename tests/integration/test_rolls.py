"""HUP, TTIN, TTOU: new generations and sizes, in any number and order; something serves all the time."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from harness import ASGI_APP, WSGI_APP, free_port

NEW = ASGI_APP.replace('VERSION = "1"', 'VERSION = "2"')
BROKEN = "raise RuntimeError('bad release')\n"


class Client:
    """Asks for /version again and again; `failed` are the requests without an answer."""

    def __init__(self, app):
        self.app, self.answers, self.failed, self._end = app, [], [], threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self._end.is_set():
            try:
                self.answers.append(self.app.get("/version").text)
            except OSError as error:
                self.failed.append(error)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self.thread.join()


def test_a_roll_serves_the_new_code_and_loses_nothing(mooring):
    app = mooring.run(workers=2)
    before = app.ready()
    app.write("main.py", NEW)
    with Client(app) as client:
        app.signal(signal.SIGHUP)
        app.wait_log("rolled: generation 2 serves")
        assert not set(app.wait_ready(2)) & set(before)  # those of before have drained
        assert app.get("/version").text == "2"
    assert client.failed == []
    found = app.status()
    assert (found["generation"], found["state"], found["last_roll"]["outcome"]) == (2, "serving", "rolled")


def test_a_broken_release_is_rolled_back_and_the_next_one_works(mooring):
    app = mooring.run(workers=2)
    before = app.ready()
    app.write("main.py", BROKEN)
    with Client(app) as client:
        app.signal(signal.SIGHUP)
        line = app.wait_log("roll to generation 2 failed")
        assert "bad release" in line
        assert "generation 1 keeps serving" in line
        assert app.wait_ready(2) == before
        app.write("main.py", NEW)
        app.signal(signal.SIGHUP)
        app.wait_log("rolled: generation 3 serves")
        assert not set(app.wait_ready(2)) & set(before)
    assert client.failed == []
    assert app.get("/version").text == "2"
    assert app.stop() == 0


def test_a_release_may_be_of_the_other_interface(mooring):
    app = mooring.run(workers=2)
    app.signal(signal.SIGTTIN)
    app.wait_ready(3)
    for generation, source, expected in (
        (2, WSGI_APP, ("wsgi", "granian")),
        (3, ASGI_APP, ("asgi", "uvicorn")),
    ):
        app.write("main.py", source)
        app.signal(signal.SIGHUP)
        app.wait_log(f"rolled: generation {generation} serves")
        assert app.get("/").text == "hello"
        found = app.status()
        assert (found["interface"], found["engine"]) == expected
        assert len(app.wait_ready(3)) == 3
    assert app.stop() == 0


def test_a_release_that_hangs_is_rolled_back_at_the_boot_deadline(mooring):
    app = mooring.run(workers=1, MOORING_BOOT_TIMEOUT=3)
    before = app.ready()
    app.write("main.py", "import time\ntime.sleep(600)\n")
    app.signal(signal.SIGHUP)
    app.wait_log("roll to generation 2 failed (boot deadline exceeded)")
    assert app.wait_ready(1) == before


def test_a_hup_storm_ends_in_one_more_roll_and_serves_throughout(mooring):
    app = mooring.run(workers=2)
    app.write("main.py", NEW)
    with Client(app) as client:
        for _ in range(200):
            app.signal(signal.SIGHUP)
        app.wait_status(lambda s: s["state"] == "serving" and s["generation"] >= 2 and len(s["workers"]) == 2)
        app.wait_ready(2)
    assert client.failed == []
    assert app.status()["generation"] <= 4
    assert app.get("/version").text == "2"
    assert app.stop() == 0


def test_a_hup_while_booting_is_no_harm(mooring):
    app = mooring.start(
        "run", files={"main.py": "import time\nprint('importing', flush=True)\ntime.sleep(1)\n" + ASGI_APP}
    )
    app.wait_log("importing")
    app.signal(signal.SIGHUP)
    app.wait_log("] serving")
    app.wait_status(lambda s: s["state"] == "serving")
    assert app.get("/").text == "hello"
    assert app.stop() == 0


def test_term_in_the_middle_of_a_roll_is_not_kept_waiting(mooring):
    app = mooring.run(workers=2)
    app.write("main.py", "import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    app.signal(signal.SIGHUP)
    app.wait_log("importing")
    assert app.stop(timeout=10) == 0
    assert app.leftovers == []


def test_ttin_and_ttou_change_the_size(mooring):
    app = mooring.run(workers=1)
    app.signal(signal.SIGTTIN)
    pids = app.wait_ready(2)
    app.signal(signal.SIGTTOU)
    assert app.wait_ready(1) == pids[:1]


def test_a_ttin_while_worker_0_boots_is_not_forgotten(mooring):
    source = "print('importing', flush=True)\nimport os\nwhile not os.path.exists('go'): pass\n" + ASGI_APP
    app = mooring.start("run", files={"main.py": source}, WEB_CONCURRENCY=1)
    app.wait_log("importing")
    app.signal(signal.SIGTTIN)
    app.write("go", "")
    app.wait_ready(2)
    assert app.stop() == 0


def test_a_ttou_storm_leaves_one_worker(mooring):
    app = mooring.run(workers=2)
    with Client(app) as client:
        for _ in range(100):
            app.signal(signal.SIGTTOU)
        app.wait_ready(1)
    assert client.failed == []
    assert app.status()["size"] == 1


def test_ttin_and_ttou_in_turn_end_where_they_began(mooring):
    app = mooring.run(workers=2)
    with Client(app) as client:
        for number in [signal.SIGTTIN, signal.SIGTTOU] * 40:
            app.signal(number)
            app.control()  # the loop has turned: equal signals that are pending are one, signal(7)
        app.wait_ready(2)
    assert client.failed == []
    assert app.stop() == 0


def test_a_worker_that_dies_during_a_roll_does_not_stop_it(mooring):
    app = mooring.run(workers=2)
    app.write("main.py", NEW)
    app.signal(signal.SIGHUP)
    os.kill(app.ready()[1], signal.SIGKILL)
    app.wait_log("rolled: generation 2 serves")
    app.wait_ready(2)
    assert app.get("/version").text == "2"


@pytest.mark.parametrize("count", [1, 2])
def test_a_fixed_port_can_be_taken_again_after_a_stop(mooring, count):
    port = free_port()
    for _ in range(count):
        app = mooring.run(workers=1, PORT=port)
        with app.connect() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert connection.recv(4)
            assert app.stop() == 0
