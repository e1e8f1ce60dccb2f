"""Boot, crash, stop: what the supervisor promises about its workers' lives (architecture.md, "Signals")."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time

import pytest
from harness import ASGI_APP, eventually, pids_marked

APP_THAT_WAITS = "import time\nprint('importing', flush=True)\ntime.sleep(60)\n" + ASGI_APP


def in_background(call):
    """Run a request in a thread; `.result` has its answer or its exception."""

    def run():
        try:
            thread.result = call()
        except OSError as error:
            thread.result = error

    thread = threading.Thread(target=run, daemon=True)
    thread.result = None
    thread.start()
    return thread


# -- boot --------------------------------------------------------------------------------------------------


def test_boot_is_announced_and_the_other_workers_start_after_the_first(mooring):
    app = mooring.run(workers=3)
    assert "uvicorn serves ASGI with 3 workers" in app.wait_log("plan: ")
    assert sorted(row["slot"] for row in app.status()["workers"]) == [0, 1, 2]
    assert app.control(path="/readyz").status == 200


def test_the_application_has_the_environment_of_the_start(mooring):
    app = mooring.run(workers=1, DATABASE_URL="postgres://x", EMPTY="")
    environ = json.loads(app.get("/env").text)
    assert environ["DATABASE_URL"] == "postgres://x"
    assert environ["EMPTY"] == ""
    assert environ["PATH"] == os.environ["PATH"]


def test_nothing_is_ready_before_a_worker_is(mooring):
    app = mooring.start("run", files={"main.py": APP_THAT_WAITS})
    app.wait_log("importing")
    assert app.control(path="/livez").status == 200
    not_ready = app.control(path="/readyz")
    assert (not_ready.status, not_ready.text) == (503, "no worker is ready\n")
    assert app.status()["state"] == "booting"
    assert app.stop() == 0
    assert app.leftovers == []


def test_an_application_that_cannot_boot_ends_with_3_its_own_traceback_and_one_line(mooring):
    files = {
        "main.py": "import helper\n",
        "helper.py": "def go():\n    raise RuntimeError('no database')\ngo()\n",
    }
    app = mooring.start("run", files=files, WEB_CONCURRENCY=4)
    assert app.wait_exit() == 3
    assert app.leftovers == []
    assert app.last_line.startswith("mooring: ")
    assert "RuntimeError: no database" in app.last_line
    assert "helper.py:2" in app.last_line
    shown = app.stderr[app.stderr.index("Traceback") :]
    assert "site-packages/mooring" not in shown
    assert "src/mooring" not in shown
    assert shown.count("Traceback") == 1


@pytest.mark.parametrize("way", ["os._exit(7)", "os._exit(0)", "os.kill(os.getpid(), 9)", "os.abort()"])
def test_an_application_that_ends_its_process_while_it_boots_ends_with_3(mooring, way):
    app = mooring.start("run", files={"main.py": f"import os\n{way}\n"})
    assert app.wait_exit() == 3
    assert "the application ended its worker before it was ready" in app.last_line


def test_the_boot_deadline_ends_with_3_and_names_its_setting(mooring):
    app = mooring.start("run", files={"main.py": APP_THAT_WAITS}, MOORING_BOOT_TIMEOUT="0.5")
    assert app.wait_exit() == 3
    assert app.last_line == "mooring: the application was not ready within 0.5 s (MOORING_BOOT_TIMEOUT)"
    assert app.leftovers == []


def test_a_failing_lifespan_startup_ends_with_3(mooring):
    source = (
        "async def app(scope, receive, send):\n"
        "    assert scope['type'] == 'lifespan'\n    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no broker'})\n"
    )
    app = mooring.start("run", files={"main.py": source})
    assert app.wait_exit() == 3
    assert app.last_line.startswith("mooring: ")
    assert "no broker" in app.last_line


# -- crash -------------------------------------------------------------------------------------------------


def test_a_killed_worker_is_replaced_and_the_others_keep_serving(mooring):
    app = mooring.run(workers=2)
    first, second = app.ready()
    os.kill(first, signal.SIGKILL)
    app.wait_log(re.compile(r"\[ERROR\] worker 0 exited while ready: killed by SIGKILL"))
    assert app.get("/pid").text == str(second)
    pids = app.wait_ready(2)
    assert first not in pids
    assert second in pids
    assert app.status()["last_exits"][-1]["reason"] == "killed by SIGKILL"


def test_a_slot_that_keeps_failing_backs_off_exponentially_and_the_rest_serves(mooring):
    app = mooring.run(workers=2)
    kept = app.ready()[1]
    app.write("main.py", "raise SystemExit('broken')\n")
    os.kill(app.ready()[0], signal.SIGKILL)
    waits = []
    for count in (2, 3, 4):
        line = app.wait_log(f"worker 0 failed {count} times in a row")
        waits.append(float(line.split("next try in ")[1].split()[0]))
        assert app.get("/pid").text == str(kept)
    assert waits[0] < waits[1] < waits[2]
    assert app.control(path="/readyz").status == 200
    app.write("main.py", ASGI_APP)
    assert kept in app.wait_ready(2)
    assert app.stop() == 0


def test_all_workers_killed_at_once_come_back(mooring):
    app = mooring.run(workers=3)
    before = app.ready()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    app.wait_status(lambda s: len(s["last_exits"]) == 3)
    assert not set(app.wait_ready(3)) & set(before)
    assert app.get("/").text == "hello"


def test_what_a_crashed_worker_has_started_ends_with_it(mooring):
    source = "import subprocess\nchild = subprocess.Popen(['sleep', '1000'])\n" + ASGI_APP
    app = mooring.run(files={"main.py": source}, workers=1)
    os.kill(app.ready()[0], signal.SIGKILL)
    app.wait_log("worker 0 exited while ready")
    app.wait_ready(1)
    eventually(lambda: len(pids_marked(app.mark)) == 4, "supervisor, log writer, worker, its child")
    assert app.stop() == 0
    eventually(lambda: not pids_marked(app.mark), "the end of all")


# -- stop --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_in_flight_is_answered_then_all_stop(mooring, number):
    app = mooring.run(workers=2)
    request = in_background(lambda: app.get("/slow?s=1"))
    app.wait_log("in flight")
    app.signal(number)
    app.wait_log("stopping (asked to stop)")
    assert app.wait_exit() == 0
    request.join()
    assert request.result.text == "hello"
    assert app.leftovers == []
    assert list(app.runtime.iterdir()) == []


def test_readiness_goes_off_at_once(mooring):
    app = mooring.run(workers=1)
    request = in_background(lambda: app.get("/slow?s=2"))
    app.wait_log("in flight")
    app.signal(signal.SIGTERM)
    app.wait_log("stopping")
    assert app.control(path="/readyz").text == "stopping\n"
    assert app.control(path="/livez").status == 200
    app.wait_exit()
    request.join()


def test_listeners_accept_for_the_drain_delay_while_readiness_is_off(mooring):
    app = mooring.run(workers=2, MOORING_DRAIN_DELAY=3)
    began = time.monotonic()
    app.signal(signal.SIGTERM)
    app.wait_log("stopping")
    assert app.control(path="/readyz").status == 503
    assert app.get("/").text == "hello"
    assert app.wait_exit() == 0
    assert time.monotonic() - began > 3
    assert app.leftovers == []


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGINT), (signal.SIGQUIT,)])
def test_a_second_int_or_a_quit_stops_now(mooring, numbers):
    app = mooring.run(workers=2, GRACEFUL_TIMEOUT=60)
    request = in_background(lambda: app.get("/slow?s=50"))
    app.wait_log("in flight")
    for number in numbers:
        app.signal(number)
        app.wait_log("stopping")
    assert app.wait_exit() == 0
    request.join()
    assert isinstance(request.result, OSError)
    assert app.leftovers == []


def test_the_grace_period_ends_what_does_not_end(mooring):
    app = mooring.run(workers=1, GRACEFUL_TIMEOUT=1)
    request = in_background(lambda: app.get("/slow?s=50"))
    app.wait_log("in flight")
    assert app.stop(timeout=15) == 0
    request.join()
    assert app.leftovers == []


def test_term_while_a_worker_boots_stops_with_0(mooring):
    app = mooring.start("run", files={"main.py": APP_THAT_WAITS})
    app.wait_log("importing")
    assert app.stop(timeout=10) == 0
    assert app.leftovers == []


@pytest.mark.parametrize("seconds", [3_000_000, 1_000_000_000])  # more than epoll_wait(2) and poll(2) count
def test_times_of_months_are_as_good_as_short_ones(mooring, seconds):
    names = ("BOOT_TIMEOUT", "GRACEFUL_TIMEOUT", "PRE_START_TIMEOUT", "TIMEOUT", "KEEP_ALIVE")
    files = {"main.py": ASGI_APP, "prestart.sh": "true\n"}
    app = mooring.run(files=files, workers=1, **{f"MOORING_{name}": str(seconds) for name in names})
    assert app.get("/").status == 200
    assert app.stop() == 0


def test_term_while_the_hook_runs_stops_it_and_starts_nothing(mooring):
    files = {"main.py": ASGI_APP, "prestart.sh": "echo hooked\nsleep 1000 &\nsleep 1000\n"}
    app = mooring.start("run", files=files)
    app.wait_log("hooked")
    assert app.stop() == 0
    assert "listening" not in app.stderr
    assert app.leftovers == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_a_configuration_file_hangs_stops_it_and_starts_nothing(mooring, number):
    conf = "import subprocess, sys, time\nsubprocess.Popen(['sleep', '1000'])\n"
    conf += "open('reading', 'w').close()\ntime.sleep(1000)\n"
    app = mooring.start("run", files={"main.py": ASGI_APP, "g.py": conf}, GUNICORN_CONF="g.py")
    eventually((app.folder / "reading").exists)
    app.signal(number)
    assert app.wait_exit(timeout=15) == 0
    assert "listening" not in app.stderr
    assert app.leftovers == []


def test_term_while_a_slot_backs_off_stops_at_once(mooring):
    app = mooring.run(workers=2)
    app.write("main.py", "1/0\n")
    os.kill(app.ready()[0], signal.SIGKILL)
    app.wait_log("worker 0 failed 3 times in a row")
    assert app.stop(timeout=10) == 0


def test_signals_after_the_end_has_begun_change_nothing(mooring):
    app = mooring.run(workers=2)
    for _ in range(50):
        app.signal(signal.SIGTERM)
        app.signal(signal.SIGHUP)
        app.signal(signal.SIGTTIN)
    assert app.wait_exit() == 0
    assert app.last_line.endswith("stopped (asked to stop)")
    assert app.leftovers == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_at_the_very_end_change_nothing_either(mooring, number):
    app = mooring.run(workers=1)
    app.signal(signal.SIGTERM)
    app.wait_log("stopped (asked to stop)")
    while app.process.poll() is None:
        app.signal(number)
    assert app.wait_exit() == 0
    assert "Traceback" not in app.stderr


def test_a_stop_is_not_held_by_a_connected_silent_client(mooring):
    app = mooring.run(workers=1)
    with app.connect(), app.connect() as half:
        half.sendall(b"GET / HTTP/1.1\r\nhost:")
        assert app.stop(timeout=20) == 0


def test_a_signal_to_a_worker_that_is_meant_for_the_supervisor_does_not_end_it(mooring):
    app = mooring.run(workers=1)
    (pid,) = app.ready()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU):
        os.kill(pid, number)
    assert app.get("/pid").text == str(pid)
    assert app.ready() == [pid]
