"""`mooring status`, `reload`, `health`, `settings`, `demo`: what people and scripts ask an instance."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from harness import ASGI_APP

PROMISED = {
    "state",
    "generation",
    "engine",
    "interface",
    "pid",
    "uptime_s",
    "workers",
    "last_roll",
    "last_exits",
}
ROW = {"slot", "pid", "state", "generation", "requests", "in_flight", "memory_bytes", "age_s"}
DOCS = Path(__file__).parent.parent.parent / "docs"


def said(mooring, *args, code=0, **environ):
    """A command's stdout."""
    command = mooring.start(*args, **environ)
    assert command.wait_exit() == code, command.report()
    return command.stdout if code == 0 else command.last_line


def test_status_as_json_has_the_promised_shape(mooring):
    app = mooring.run(workers=2)
    found = json.loads(said(mooring, "status", "--json"))
    assert set(found) >= PROMISED
    assert (found["state"], found["engine"], found["interface"], found["pid"]) == (
        "serving",
        "uvicorn",
        "asgi",
        app.pid,
    )
    assert [set(row) >= ROW for row in found["workers"]] == [True, True]
    assert [row["slot"] for row in found["workers"]] == [0, 1]
    assert all(row["memory_bytes"] > 2**20 for row in found["workers"])
    assert found["last_roll"] is None


def test_status_for_people(mooring):
    app = mooring.run(workers=2)
    text = said(mooring, "status")
    assert f"127.0.0.1-{app.port}: serving, generation 1, pid {app.pid}" in text
    assert "main:app (asgi) on uvicorn at http://127.0.0.1:" in text
    assert text.count(" MiB") == 2


def test_several_instances_are_listed_and_a_name_picks_one(mooring):
    one, two = mooring.run(workers=1, MOORING_NAME="one"), mooring.run(workers=1, MOORING_NAME="two")
    assert one.port != two.port
    assert "several instances are running: one, two; choose one with --name" in said(
        mooring, "status", code=2
    )
    assert json.loads(said(mooring, "status", "--json", "--name", "two"))["pid"] == two.pid
    assert json.loads(said(mooring, "status", "--json", MOORING_NAME="one"))["pid"] == one.pid
    assert "no instance named 'three' is running" in said(mooring, "status", "--name", "three", code=2)
    assert one.stop() == 0
    assert json.loads(said(mooring, "status", "--json"))["pid"] == two.pid


def test_without_an_instance_there_is_one_line(mooring):
    assert "no instance is running here" in said(mooring, "status", code=2)
    assert "no instance is running here" in said(mooring, "reload", code=2)
    assert "no instance is running here" in said(mooring, "health", code=1)


def test_what_a_killed_supervisor_left_is_no_instance(mooring):
    app = mooring.run(workers=1)
    app.process.kill()
    app.process.wait()
    assert "no instance is running here" in said(mooring, "status", code=2)
    again = mooring.run(workers=1)
    assert json.loads(said(mooring, "status", "--json"))["pid"] == again.pid


def test_health_is_0_only_while_ready(mooring):
    app = mooring.start(
        "run", files={"main.py": "import time\nprint('importing', flush=True)\ntime.sleep(1.5)\n" + ASGI_APP}
    )
    app.wait_log("importing")
    assert "not ready: no worker is ready" in said(mooring, "health", code=1)
    app.wait_log("] serving")
    said(mooring, "health")


def test_a_configuration_that_was_spoilt_later_makes_no_serving_instance_unhealthy(mooring):
    app = mooring.run(workers=1)
    for text in ("= =", 'timeout = "long"\n', "wrokers = 3\n"):
        app.write("mooring.toml", text)
        said(mooring, "health")
        assert json.loads(said(mooring, "status", "--json"))["ready"] is True
        assert "the roll was refused" in said(mooring, "reload", code=1)
    said(mooring, "health", WEB_CONCURRENCY="abc")


def test_reload_waits_for_the_outcome(mooring):
    app = mooring.run(workers=2)
    app.write("main.py", ASGI_APP.replace('VERSION = "1"', 'VERSION = "2"'))
    assert "generation 2 serves" in said(mooring, "reload")
    assert app.get("/version").text == "2"
    app.write("main.py", "1/0\n")
    line = said(mooring, "reload", code=1)
    assert "the roll failed" in line
    assert "ZeroDivisionError" in line
    assert "generation 2 keeps serving" in line
    assert app.get("/version").text == "2"


def test_what_an_application_says_of_its_failure_cannot_steer_the_terminal(mooring):
    app = mooring.run(workers=1)
    forged = "import glob, os\n" + (
        "for fd in glob.glob('/proc/self/fd/*'):\n"
        "    try:\n"
        "        if 'socket' in os.readlink(fd) and int(fd.rpartition('/')[2]) > 2:\n"
        '            os.write(int(fd.rpartition(\'/\')[2]), rb\'{"event": "failed", "code": 3, '
        '"message": "\\u001b[2Jforged"}\' + b\'\\n\')\n'
        "    except OSError:\n"
        "        pass\n"
        "os._exit(1)\n"
    )
    app.write("main.py", forged)
    line = said(mooring, "reload", code=1)
    assert "\\x1b[2Jforged" in line
    assert "\x1b" not in line


def test_a_removed_working_folder_is_no_hindrance(mooring):
    app = mooring.run(workers=1)
    prefix = ["sh", "-c", 'mkdir gone && cd gone && rmdir ../gone && exec "$@"', "sh"]
    for command in ("status", "health", "reload"):
        asked = mooring.start(command, prefix=prefix)
        assert asked.wait_exit() == 0, asked.stderr
    assert app.stop() == 0


def test_reload_of_an_instance_that_stops_meanwhile_ends(mooring):
    app = mooring.run(workers=1)
    app.write("main.py", "import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    command = mooring.start("reload")
    app.wait_log("importing")
    app.signal(signal.SIGTERM)
    app.wait_exit()
    assert command.wait_exit() in {1, 2}
    assert command.last_line.startswith("mooring: ")


def test_the_control_socket_answers_only_what_it_knows(mooring):
    app = mooring.run(workers=1)
    assert app.control("GET", "/nope").status == 404
    assert app.control("DELETE", "/status").status == 405
    assert app.control("GET", "/roll").status == 404
    assert app.control("HEAD", "/livez").status == 200
    assert app.control("GET", "/livez?x=1").text == "ok\n"
    assert app.control("GARBAGE REQUEST LINE WITH", "WORDS").status == 400


def test_clients_that_say_nothing_hold_neither_others_nor_the_loop(mooring):
    import socket

    app = mooring.run(workers=1)
    (path,) = app.runtime.glob("*/control.sock")
    held = [socket.socket(socket.AF_UNIX) for _ in range(30)]
    for sock in held:
        sock.connect(str(path))
    assert app.get("/").text == "hello"
    for sock in held:
        sock.close()
    assert app.wait_status(lambda s: s["state"] == "serving")
    assert app.stop() == 0


def test_the_runtime_folder_is_the_users_own(mooring):
    app = mooring.run(workers=1)
    (folder,) = app.runtime.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert app.stop() == 0
    assert not folder.exists()


def test_the_reference_of_settings_is_made_from_the_table(mooring):
    page = said(mooring, "settings", "--markdown")
    assert (DOCS / "settings.md").read_text() == page, "run make docs"


def test_settings_for_people_names_every_variable(mooring):
    from mooring.settings.table import ROWS

    text = said(mooring, "settings")
    for row in ROWS.values():
        assert row.canonical in text
        assert (row.option in text) != row.secret, row.name  # a secret has none


def test_the_options_of_run_are_the_table(mooring):
    from mooring.settings.table import ROWS

    text = said(mooring, "run", "--help", COLUMNS="200")
    for row in ROWS.values():
        if row.name != "app":
            assert (row.option in text) != row.secret, row.name


def test_the_demo_serves(mooring):
    app = mooring.start("demo", WEB_CONCURRENCY=1)
    app.wait_log("] serving")
    assert app.get("/").status == 200
    assert app.stop() == 0


def test_help_and_version_start_no_machinery():
    code = (
        "import sys\nfrom mooring.cli import main\n"
        "try:\n    main(['run', '--help'], standalone_mode=False)\nexcept SystemExit:\n    pass\n"
        "print(sorted(name for name in sys.modules if name.startswith('mooring.')), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "mooring.supervisor" not in done.stderr
    assert "mooring.plan" not in done.stderr
