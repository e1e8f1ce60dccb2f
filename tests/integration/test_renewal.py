"""A roll takes up new settings: which ones, when, and what becomes of bad ones. See docs/how-to/roll.md."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from certificates import Authority, serial_of
from harness import ASGI_APP, WSGI_APP, eventually, free_port
from traffic import APP, Traffic
from traffic import WSGI_APP as WSGI_TRAFFIC

# shows its root_path, which is a part of the path (the ASGI specification)
SHOWING = ASGI_APP.replace('200, "hello"', '200, "hello" + scope["root_path"]').replace(
    'match scope["path"]', 'match scope["path"].removeprefix(scope["root_path"])'
)
WAITING = """
import os, time
print("importing", flush=True)
while not os.path.exists("go"):
    time.sleep(0.01)
"""
LOADED = {"uvicorn": APP, "granian": WSGI_TRAFFIC}
each_engine = pytest.mark.parametrize("engine", LOADED)


def run(mooring, toml, source=SHOWING, **more):
    """Serve with these lines as mooring.toml, and no variable that would win over them but PORT."""
    files = {"main.py": source, "mooring.toml": toml, **more.pop("files", {})}
    return mooring.run(files=files, **{"PORT": None, "MOORING_PORT": "0", "MOORING_CPU_COUNT": "1", **more})


def renew(app, toml):
    """Other settings, and a roll."""
    app.write("mooring.toml", toml)
    app.signal(signal.SIGHUP)


def rolled(app, generation):
    app.wait_log(f"rolled: generation {generation} serves")
    return app.wait_status(lambda s: s["state"] == "serving" and s["last_roll"]["outcome"] == "rolled")


def plan(app):
    return {name: item["value"] for name, item in app.status()["plan"].items() if name != "revision"}


# -- what takes effect -------------------------------------------------------------------------------------


@each_engine
def test_new_settings_are_in_force_after_a_roll_that_loses_nothing(mooring, engine):
    app = run(mooring, "workers = 2\nthreads = 4\n", LOADED[engine])
    with Traffic(app.port, websockets=int(engine == "uvicorn")) as traffic:
        renew(app, "workers = 3\nthreads = 6\ntimeout = 20\ngraceful_timeout = 5\nmax_requests = 100000\n")
        rolled(app, 2)
        app.wait_ready(3)
    assert traffic.failed == {}, traffic.found
    found = plan(app)
    assert (found["engine"], found["workers"], found["threads"]) == (engine, 3, 6)
    assert (found["timeout"], found["graceful_timeout"], found["max_requests"]) == (20, 5, 100_000)
    assert "workers, threads, max_requests, timeout, graceful_timeout" in app.wait_log("new settings: ")
    assert app.status()["plan"]["workers"]["origin"] == f"file:{app.folder / 'mooring.toml'}"
    app.signal(signal.SIGTERM)
    app.wait_log("stopping (asked to stop): at most 5 s")
    assert app.wait_exit() == 0
    assert app.leftovers == []


@pytest.mark.parametrize(("first", "second"), [("uvicorn", "hypercorn"), ("granian", "uvicorn")])
def test_another_engine(mooring, first, second):
    app = run(mooring, f'workers = 2\nengine = "{first}"\n', APP)
    with Traffic(app.port) as traffic:
        renew(app, f'workers = 2\nengine = "{second}"\n')
        assert rolled(app, 2)["engine"] == second
        app.wait_ready(2)
    assert traffic.failed == {}, traffic.found
    assert app.stop() == 0


def test_another_application(mooring):
    other = SHOWING.replace('VERSION = "1"', 'VERSION = "other"')
    app = run(mooring, 'app = "main:app"\n', files={"other.py": other})
    renew(app, 'app = "other:app"\n')
    assert rolled(app, 2)["application"] == "other:app"
    assert app.get("/version").text == "other"


def test_an_application_root_that_is_a_link_to_the_next_release(mooring):
    for number in (1, 2):
        release = mooring.folder / f"releases/{number}"
        release.mkdir(parents=True)
        (release / "main.py").write_text(ASGI_APP.replace('VERSION = "1"', f'VERSION = "{number}"'))
        (release / "mooring.toml").write_text(f"workers = {number}\n")
    link = mooring.folder / "current"
    link.symlink_to("releases/1")
    app = mooring.run(files={}, MOORING_APP_ROOT=link)
    assert app.get("/version").text == "1"
    link.unlink()
    link.symlink_to("releases/2")
    app.signal(signal.SIGHUP)
    rolled(app, 2)
    app.wait_ready(2)
    assert app.get("/version").text == "2"
    assert json.loads(app.get("/who").text)["cwd"] == str(mooring.folder / "releases/2")


def test_what_each_request_goes_by(mooring):
    app = run(mooring, 'root_path = "/old"\n')
    assert app.get("/").text == "hello/old"
    renew(app, 'root_path = "/new"\naccess_log_format = "json"\nrequest_timeout = 0.2\n')
    rolled(app, 2)
    app.wait_ready(1)
    assert app.get("/").text == "hello/new"
    assert app.get("/slow?s=5").status == 504
    assert json.loads(app.wait_log(re.compile(r'^\{.*"/slow')))["status"] == 504


def test_the_log_level_everywhere(mooring):
    app = run(mooring, 'log_level = "warning"\n')
    renew(app, 'log_level = "debug"\n')
    app.wait_log("worker 0 drains")
    app.wait_log("Application startup complete")  # the engine's, in the worker
    app.wait_ready(1)


def test_new_tls_files(mooring, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    first, first_key = Authority(tmp_path / "a").issue(11)
    second, second_key = Authority(tmp_path / "b").issue(12)
    files = 'tls_certificate = "{}"\ntls_key = "{}"\n'
    app = run(mooring, files.format(first, first_key))
    assert _serial(app) == 11
    renew(app, files.format(second, second_key))
    rolled(app, 2)
    app.wait_ready(1)
    assert _serial(app) == 12
    renew(app, "workers = 1\n")
    app.wait_log("changes need a restart: tls_certificate, tls_key")
    rolled(app, 3)
    app.wait_ready(1)
    assert _serial(app) == 12


def _serial(app):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(app.connect()) as connection:
        return serial_of(connection.getpeercert(binary_form=True))


# -- the number of workers ---------------------------------------------------------------------------------


def test_ttin_holds_until_the_configured_number_changes(mooring):
    app = run(mooring, "workers = 1\n")
    app.signal(signal.SIGTTIN)
    app.wait_ready(2)
    renew(app, "workers = 1\ntimeout = 20\n")
    rolled(app, 2)
    app.wait_ready(2)
    assert (app.status()["size"], plan(app)["workers"]) == (2, 1)
    renew(app, "workers = 3\n")
    rolled(app, 3)
    app.wait_ready(3)
    renew(app, "workers = 1\n")
    rolled(app, 4)
    app.wait_ready(1)
    assert (app.status()["size"], plan(app)["workers"]) == (1, 1)


# -- what needs a restart ----------------------------------------------------------------------------------


def test_what_needs_a_restart_is_named_once_and_all_else_takes_effect(mooring):
    port, other = free_port(), free_port()
    app = run(mooring, f"port = {port}\nworkers = 1\n", MOORING_PORT=None)
    fixed = f'port = {other}\nuser = "nobody"\nlog_format = "json"\nreload = true\n'
    renew(app, fixed + 'root_path = "/x"\nworkers = 2\n')
    rolled(app, 2)
    line = app.wait_log("changes need a restart: ")
    assert line.endswith("] changes need a restart: reload, port, user, log_format")
    assert app.stderr.count("need a restart") == 1
    assert app.status()["warnings"] == ["changes need a restart: reload, port, user, log_format"]
    app.wait_ready(2)
    assert app.port == port
    assert app.get("/").text == "hello/x"
    found = plan(app)
    assert (found["port"], found["user"], found["reload"], found["workers"]) == (port, None, False, 2)
    renew(app, f"port = {port}\nworkers = 2\n")
    rolled(app, 3)
    assert app.stderr.count("need a restart") == 1
    assert app.status()["warnings"] == []


# -- bad settings ------------------------------------------------------------------------------------------

BAD = {
    "values": ('workers = "x"\ntimeout = -1\n', ["workers='x': expected", "timeout='-1': expected"]),
    "name": ("wrokers = 2\n", ["wrokers: no such setting; did you mean workers?"]),
    "syntax": ("workers = \n", ["not valid TOML"]),
    "together": ('tls_key = "key.pem"\n', ["tls_certificate is not set"]),
    "missing": ('hypercorn_conf = "nowhere.toml"\n', ["nowhere.toml does not exist"]),
    "failing": ('hypercorn_conf = "bad.py"\n', ["ZeroDivisionError"]),
}


@pytest.mark.parametrize(("toml", "expected"), BAD.values(), ids=BAD)
def test_bad_settings_are_refused_in_one_line_and_the_next_roll_works(mooring, toml, expected):
    app = run(mooring, "workers = 2\n", files={"bad.py": "1 / 0\n"})
    before = app.ready()
    renew(app, toml)
    line = app.wait_log("roll refused")
    assert line.endswith("; generation 1 keeps serving")
    assert all(text in line for text in expected)
    found = app.wait_status(lambda s: s["last_roll"])
    assert (found["state"], found["generation"]) == ("serving", 1)
    roll = found["last_roll"]
    assert (roll["outcome"], roll["rolled_back"]) == ("roll refused", True)
    assert all(text in roll["why"] for text in expected)
    assert app.ready() == before
    assert app.control(path="/stats").json()["totals"]["rolls"] == {"rolled": 0, "failed": 1}
    renew(app, "workers = 1\n")
    rolled(app, 2)
    assert not set(app.wait_ready(1)) & set(before)
    assert app.stop() == 0
    assert app.leftovers == []


@each_engine
def test_a_refused_roll_loses_nothing(mooring, engine):
    app = run(mooring, "workers = 2\n", LOADED[engine])
    with Traffic(app.port, websockets=int(engine == "uvicorn")) as traffic:
        for count in (1, 2, 3):
            renew(app, "workers = 0\n")
            app.wait_log("roll refused", count=count)
    assert traffic.failed == {}, traffic.found
    assert app.stop() == 0


def test_mooring_reload_tells_of_the_refusal(mooring, tmp_path):
    app = run(mooring, "workers = 1\n", MOORING_ADMIN_BIND="127.0.0.1:0")
    app.write("mooring.toml", "workers = 0\n")
    environ = {**os.environ, "MOORING_RUNTIME_DIR": str(app.runtime)}
    command = [sys.executable, "-m", "mooring", "reload"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the roll was refused: bad settings: " in done.stderr
    assert "generation 1 keeps serving" in done.stderr
    with urllib.request.urlopen(app.status()["admin"][0] + "/status") as reply:
        assert "mooring.toml" not in json.load(reply)["last_roll"]["why"]


# -- a new generation that cannot boot ---------------------------------------------------------------------


@each_engine
def test_a_roll_that_fails_goes_back_to_the_old_settings(mooring, engine):
    app = run(mooring, "workers = 2\ngraceful_timeout = 6\n", LOADED[engine])
    before = plan(app)
    with Traffic(app.port, websockets=int(engine == "uvicorn")) as traffic:
        renew(app, 'app = "nowhere:app"\nworkers = 4\ngraceful_timeout = 1\nboot_timeout = 5\n')
        app.wait_log("roll to generation 2 failed")
        app.wait_ready(2)
    assert traffic.failed == {}, traffic.found
    assert plan(app) == before
    assert app.status()["last_roll"]["outcome"] == "roll failed"
    old = app.ready()
    os.kill(old[0], signal.SIGKILL)
    app.wait_log("worker 0 exited while ready")
    assert set(app.wait_ready(2)) - set(old)  # by the old plan: there is no application by the new one
    app.signal(signal.SIGTERM)
    app.wait_log("stopping (asked to stop): at most 6 s")
    assert app.wait_exit() == 0


def test_the_new_boot_timeout_is_the_new_generations(mooring):
    app = run(mooring, "boot_timeout = 100\n")
    app.write("main.py", WAITING + ASGI_APP)
    renew(app, "boot_timeout = 2\n")
    app.wait_log("roll to generation 2 failed (boot deadline exceeded)")
    assert plan(app)["boot_timeout"] == 100


def test_until_a_new_worker_is_ready_the_old_settings_are_shown(mooring):
    app = run(mooring, "workers = 1\n")
    app.write("main.py", WAITING + ASGI_APP)
    renew(app, "workers = 2\ndrain_delay = 1\n")
    app.wait_log("importing")
    assert (plan(app)["workers"], plan(app)["drain_delay"], app.status()["state"]) == (1, 0, "rolling")
    app.write("go", "")
    rolled(app, 2)
    app.wait_ready(2)
    assert (plan(app)["workers"], plan(app)["drain_delay"]) == (2, 1)
    assert app.stop() == 0


# -- each generation's own rules ---------------------------------------------------------------------------


def test_the_old_generation_keeps_its_grace(mooring):
    app = run(mooring, "graceful_timeout = 30\n")
    answer = []
    asking = threading.Thread(target=lambda: answer.append(app.get("/slow?s=3").text))
    asking.start()
    app.wait_log("in flight")
    renew(app, "graceful_timeout = 0.5\n")
    rolled(app, 2)
    asking.join()
    assert answer == ["hello"]
    app.wait_ready(1)
    assert app.stop() == 0


def test_a_new_timeout_finds_hangs_of_the_new_workers(mooring):
    source = ASGI_APP.replace(
        'case "/":', 'case "/block":\n            import time; time.sleep(60)\n        case "/":'
    )
    app = run(mooring, "timeout = 0\n", source)
    renew(app, "timeout = 1\n")
    rolled(app, 2)
    (pid,) = app.wait_ready(1)
    connection = app.connect()
    connection.sendall(b"GET /block HTTP/1.1\r\nhost: x\r\n\r\n")
    assert f"(pid {pid}) is hung" in app.wait_log("is hung")
    connection.close()
    app.wait_ready(1)
    assert app.stop() == 0


# -- several, and a stop meanwhile -------------------------------------------------------------------------

SLOW_CONF = """
import os, time
open("reading", "w").close()
while not os.path.exists("go"):
    time.sleep(0.01)
"""


def slow(mooring):
    """While its hypercorn configuration is evaluated: until there is a file `go`."""
    app = run(mooring, "workers = 1\n", ASGI_APP, files={"conf.py": SLOW_CONF})
    renew(app, 'workers = 2\nhypercorn_conf = "conf.py"\n')
    eventually((app.folder / "reading").exists, "the configuration is evaluated")
    return app


def test_hups_while_settings_are_resolved_are_one_more(mooring):
    app = slow(mooring)
    for _ in range(20):
        app.signal(signal.SIGHUP)
        assert app.get("/").text == "hello"
    assert app.status()["state"] == "serving"
    app.write("go", "")
    app.wait_status(lambda s: s["state"] == "serving" and s["generation"] == 3 and s["engine"] == "hypercorn")
    app.wait_ready(2)
    assert app.stop() == 0
    assert app.leftovers == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_stop_while_settings_are_resolved_is_not_kept_waiting(mooring, number):
    app = slow(mooring)
    app.signal(number)
    assert app.wait_exit(timeout=10) == 0
    assert app.leftovers == []
    assert "roll refused" not in app.stderr


def fifo(app):
    """In place of the configuration file: whoever opens it waits for ever."""
    path, before = app.folder / "settings.toml", set(_children(app))
    path.unlink()
    os.mkfifo(path)
    app.signal(signal.SIGHUP)
    eventually(lambda: set(_children(app)) - before, "somebody resolves the settings")


def _children(app):
    with open(f"/proc/{app.pid}/task/{app.pid}/children", encoding="ascii") as file:
        return file.read().split()


def test_a_stop_while_the_file_system_hangs(mooring):
    app = run(mooring, "", ASGI_APP, files={"settings.toml": "workers = 1\n"}, MOORING_CONFIG="settings.toml")
    fifo(app)
    assert app.get("/").text == "hello"
    assert app.stop(timeout=10) == 0
    assert app.leftovers == []


def test_a_file_system_that_hangs_costs_the_roll_and_no_more(mooring):
    program = "import mooring.supervisor.reconfigure as r, mooring.__main__ as m; r.LONGEST = 1.0; m.main()"
    mooring.command = [sys.executable, "-c", program]
    app = run(mooring, "", ASGI_APP, files={"settings.toml": "workers = 1\n"}, MOORING_CONFIG="settings.toml")
    fifo(app)
    assert "were not resolved within 1 s" in app.wait_log("roll refused")
    (app.folder / "settings.toml").unlink()
    app.write("settings.toml", "workers = 2\n")
    app.signal(signal.SIGHUP)
    rolled(app, 2)
    app.wait_ready(2)
    assert app.stop() == 0
    assert app.leftovers == []


def test_a_storm_with_changing_settings_ends_with_the_last_ones(mooring):
    app = run(mooring, "workers = 2\n", APP)
    with Traffic(app.port) as traffic:
        for number in range(1, 41):
            renew(app, f"workers = {number % 3 + 1}\nkeep_alive = {number}\n")
        app.wait_status(lambda s: s["plan"]["keep_alive"]["value"] == 40 and s["state"] == "serving")
        app.wait_ready(2)
    assert traffic.failed == {}, traffic.found
    assert app.stop() == 0
    assert app.leftovers == []


def test_many_rolls_leave_no_descriptor_behind(mooring):
    app = run(mooring, "workers = 1\n", ASGI_APP)
    renew(app, "keep_alive = 0\n")
    rolled(app, 2)
    app.wait_ready(1)
    before = _descriptors(app)
    for number in range(1, 5):
        renew(app, "keep_alive = -1\n")
        app.wait_log("roll refused", count=number)
        renew(app, f"keep_alive = {number}\n")
        rolled(app, number + 2)
        app.wait_ready(1)
    # a connection to the control socket is closed a moment after its answer
    eventually(lambda: _descriptors(app) <= before, f"{before} descriptors")


def _descriptors(app):
    return len(os.listdir(f"/proc/{app.pid}/fd"))


# -- gunicorn, and live reload -----------------------------------------------------------------------------


def test_gunicorns_own_configuration(mooring):
    conf = "worker_class = 'gthread'\nworkers = {}\ntimeout = {}\n"
    app = run(
        mooring, "", WSGI_TRAFFIC, files={"gunicorn.conf.py": conf.format(2, 30)}, MOORING_ENGINE="gunicorn"
    )
    with Traffic(app.port, websockets=0) as traffic:
        app.write("gunicorn.conf.py", conf.format(3, 25))
        app.signal(signal.SIGHUP)
        rolled(app, 2)
        app.wait_ready(3)
        assert (plan(app)["workers"], plan(app)["timeout"]) == (3, 25)
        app.signal(signal.SIGTTIN)
        app.wait_ready(4)
        app.signal(signal.SIGHUP)
        rolled(app, 3)
        app.wait_ready(4)
    assert traffic.failed == {}, traffic.found
    app.write("gunicorn.conf.py", "1 / 0\n")
    app.signal(signal.SIGHUP)
    assert "ZeroDivisionError" in app.wait_log("roll refused")
    app.wait_ready(4)
    assert app.stop() == 0
    assert app.leftovers == []


def test_to_gunicorn_and_back(mooring):
    app = run(mooring, 'workers = 2\nengine = "granian"\n', WSGI_TRAFFIC)
    with Traffic(app.port, websockets=0) as traffic:
        renew(app, 'workers = 3\nengine = "gunicorn"\n')
        rolled(app, 2)
        app.wait_ready(3)
        assert app.status()["size"] == 1
        renew(app, 'workers = 2\nengine = "granian"\n')
        rolled(app, 3)
        app.wait_ready(2)
        assert app.status()["size"] == 2
    assert traffic.failed == {}, traffic.found
    assert app.stop() == 0
    assert app.leftovers == []


def test_live_reload_takes_new_code_by_a_save_and_new_settings_by_hup(mooring):
    files = {"main.py": SHOWING, "mooring.toml": 'root_path = "/a"\n'}
    app = mooring.start("dev", files=files)
    app.wait_status(lambda s: s["state"] == "serving")
    app.write("mooring.toml", 'root_path = "/b"\nworkers = 3\n')
    app.write("main.py", SHOWING.replace('VERSION = "1"', 'VERSION = "2"'))
    eventually(lambda: _version(app) == "2", "the save is served")
    assert app.get("/").text == "hello/a"
    app.signal(signal.SIGHUP)
    app.wait_status(lambda s: s["plan"]["root_path"]["value"] == "/b" and s["state"] == "serving")
    assert app.get("/").text == "hello/b"
    app.write("mooring.toml", 'rot_path = "/c"\n')
    app.signal(signal.SIGHUP)
    app.wait_log("roll refused")
    app.write("main.py", SHOWING.replace('VERSION = "1"', 'VERSION = "3"'))
    eventually(lambda: _version(app) == "3", "the next save is served")
    assert app.get("/").text == "hello/b"
    assert app.stop() == 0
    assert app.leftovers == []


def _version(app):
    try:
        return app.get("/version", timeout=2).text
    except OSError:
        time.sleep(0.05)  # between two workers
        return ""


def test_wsgi_and_one_worker_by_default(mooring):
    """No configuration file at the start; one that appears is read."""
    app = mooring.run(files={"main.py": WSGI_APP}, workers=None, MOORING_CPU_COUNT="1")
    renew(app, "workers = 2\n")
    rolled(app, 2)
    app.wait_ready(2)
    assert app.stop() == 0
