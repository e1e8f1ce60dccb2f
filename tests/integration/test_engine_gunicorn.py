"""gunicorn behind mooring's protocol: its own precedence and hooks, mooring's listeners and drain."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from engine_process import listen, read_reply, receive, running, send
from harness import eventually
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

pytest.importorskip("gunicorn")

WSGI = ("sync", "gthread", "gevent")
UVICORN = (
    "uvicorn.workers.UvicornWorker",
    "uvicorn.workers.UvicornH11Worker",
    "uvicorn_worker.UvicornWorker",
)
ASGI = ("asgi", *UVICORN)
ALL = [*((name, "wsgi") for name in WSGI), *((name, "asgi") for name in ASGI)]
EACH = pytest.mark.parametrize(("worker_class", "interface"), ALL)
PATIENCE = 40


def serve(worker_class, interface, *settings, app=None, **more):
    words = [f"worker_class={worker_class}"] if worker_class else []
    if not any(word.startswith("workers=") for word in settings):
        words.append("workers=1")
    return running(
        "gunicorn", f"engine_apps:{app or interface}", *words, *settings, interface=interface, **more
    )


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pid, timeout=PATIENCE):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


# requests


@EACH
def test_requests(worker_class, interface):
    with serve(worker_class, interface) as server:
        assert f"Using worker: {worker_class}" in server.output
        assert server.get("/echo", method="POST", body=b"x" * 300_000).body == b"x" * 300_000
        assert server.get("/stream").body == b"0\n1\n2\n3\n4\n"
        head = server.get("/echo", method="HEAD")
        assert (head.status, head.body) == (200, b"")
        assert server.get("/cookies").all("set-cookie") == ["a=1", "b=2"]
        assert server.get("/raise").status == 500
        server.wait_for("ValueError: the application raised")
        shown = server.json("/caf%C3%A9?q=1")
        path = shown.get("path") or shown["PATH_INFO"].encode("latin-1").decode()
        assert path == "/café"
        assert shown["pid"] != server.process.pid


@EACH
def test_chunked_upload_and_100_continue(worker_class, interface):
    with serve(worker_class, interface) as server:
        with server.connect() as client:
            client.sendall(b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
            for part in (b"one ", b"two ", b"three"):
                client.sendall(b"%x\r\n%s\r\n" % (len(part), part))
                time.sleep(0.02)
            client.sendall(b"0\r\n\r\n")
            assert receive(client).body == b"one two three"
        with server.connect() as client, client.makefile("rb") as file:
            send(client, "/echo", "POST", "Content-Length: 2\r\nExpect: 100-continue\r\n")
            assert read_reply(file).status == 100
            client.sendall(b"ok")
            assert read_reply(file).body == b"ok"


@pytest.mark.parametrize(("worker_class", "interface"), [each for each in ALL if each[0] != "sync"])
def test_keep_alive_and_pipelining(worker_class, interface):
    with serve(worker_class, interface) as server, server.connect() as client, client.makefile("rb") as file:
        for number in range(3):
            send(client, "/echo", "POST", body=b"%d" % number)
            assert read_reply(file).body == b"%d" % number
        for number in range(3):
            send(client, "/echo", "POST", body=b"%d" % number)
        assert [read_reply(file).body for _ in range(3)] == [b"0", b"1", b"2"]


@pytest.mark.parametrize("worker_class", ASGI)
def test_websocket(worker_class):
    with serve(worker_class, "asgi") as server:
        address = f"ws://127.0.0.1:{server.port()}/"
        with connect(address, subprotocols=["one", "two"]) as client:
            assert client.subprotocol == "one"
            for message in ("text é", b"\x00bytes"):
                client.send(message)
                assert client.recv(PATIENCE) == message
            client.close(4321)
        server.wait_for("APP websocket 4321")
        with connect(address) as client:
            client.send("close")
            with pytest.raises(ConnectionClosed):
                client.recv(PATIENCE)
            assert (client.close_code, client.close_reason) == (4000, "asked")


def test_gthread_has_the_plan_s_threads():
    with serve("gthread", "wsgi", "threads=4") as server:
        clients = [server.connect() for _ in range(4)]
        start = time.monotonic()
        for client in clients:
            send(client, "/slow?2")
        assert [receive(client).body for client in clients] == [b"slow"] * 4
        assert time.monotonic() - start < 6  # one after the other: 8


# the worker class


@pytest.mark.parametrize(
    ("interface", "expected"), [("asgi", "uvicorn.workers.UvicornWorker"), ("wsgi", "gthread")]
)
@pytest.mark.parametrize("known", [True, False])
def test_without_a_worker_class_the_application_decides(interface, expected, known):
    settings = [f"interface={interface}"] if known else []
    with serve(None, interface, *settings) as server:
        assert f"Using worker: {expected}" in server.output
        assert server.get("/echo", method="POST", body=b"x").body == b"x"


@pytest.mark.parametrize(
    ("worker_class", "interface"), [("sync", "asgi"), ("gthread", "asgi"), ("asgi", "wsgi")]
)
def test_a_class_for_the_other_interface_is_one_clear_line(worker_class, interface):
    with serve(worker_class, interface, "workers=2", ready=False) as server:
        assert server.ended() == 2
        line = next(line for line in server.lines if line.startswith("ERROR"))
        assert line == (
            f"ERROR ConfigurationError gunicorn's worker class {worker_class} cannot serve the "
            f"{interface.upper()} application engine_apps:{interface}"
        )
        assert "READY" not in server.output
        assert "Traceback" not in server.output


@pytest.mark.parametrize("name", ["engine_apps.NoSuchWorker", "json"])
def test_a_class_that_is_none_is_a_configuration_error(name):
    with serve(name, "wsgi", ready=False) as server:
        assert server.ended() == 2
        assert f"{name}" in next(line for line in server.lines if line.startswith("ERROR ConfigurationError"))


def test_sync_stays_sync_whatever_the_plan_says_of_threads():
    with serve("sync", "wsgi") as server:
        assert "Using worker: sync" in server.output


# the user's configuration


CONF = """
import os
workers = 2
bind = "127.0.0.1:1"
daemon = True
pidfile = "clash.pid"
reload = True
control_socket = "gunicorn.ctl"
timeout = 33

def say(text):
    os.write(1, f"HOOK {text}\\n".encode())

def on_starting(server): say("on_starting")
def when_ready(server): say("when_ready")
def pre_fork(server, worker): say("pre_fork")
def post_fork(server, worker): say("post_fork")
def post_worker_init(worker): say("post_worker_init")
def worker_exit(server, worker): say("worker_exit")
def child_exit(server, worker): say("child_exit")
def on_exit(server): say("on_exit")
"""


def test_configuration_file_with_hooks(tmp_path):
    (tmp_path / "conf.py").write_text(CONF.replace("reload = True\n", ""))
    settings = [f"gunicorn_conf={tmp_path}/conf.py", f"app_root={tmp_path}"]
    with running(
        "gunicorn", "engine_apps:wsgi", *settings, "worker_class=sync", interface="wsgi", cwd=tmp_path
    ) as server:
        assert server.get("/echo", method="POST", body=b"x").body == b"x"
        eventually(lambda: server.lines.count("HOOK post_worker_init") == 2, "both workers have booted")
        assert len(children(server.process.pid)) == 2
        assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["conf.py"]
        server.signal()
        assert server.ended() == 0
        hooks = [line.removeprefix("HOOK ") for line in server.lines if line.startswith("HOOK")]
        assert hooks[:2] == ["on_starting", "when_ready"]
        for each in ("pre_fork", "post_fork", "post_worker_init", "worker_exit", "child_exit"):
            assert hooks.count(each) == 2, (each, hooks)
        assert hooks[-1] == "on_exit"


def test_arguments_over_file_over_settings(tmp_path):
    (tmp_path / "conf.py").write_text("proc_name = 'file'\nlimit_request_line = 100\nkeepalive = 1\n")
    environ = {"GUNICORN_CMD_ARGS": "--limit-request-line 200 --log-level debug -k gthread"}
    with running(
        *(
            "gunicorn",
            "engine_apps:wsgi",
            f"gunicorn_conf={tmp_path}/conf.py",
            "worker_class=sync",
            "workers=1",
        ),
        *("timeout=7.5", "keep_alive=9"),
        interface="wsgi",
        environ=environ,
    ) as server:
        told = {key: value for key, _, value in (line.strip().partition(": ") for line in server.lines)}
        assert told["limit_request_line"] == "200"
        assert told["proc_name"] == "file"
        assert told["keepalive"] == "1"
        assert told["worker_class"] == "gthread"
        assert told["timeout"] == "7.5"
        assert told["control_socket_disable"] == "True"


def test_a_class_of_the_user_s_own(tmp_path):
    (tmp_path / "conf.py").write_text(
        "from uvicorn_worker import UvicornWorker\n"
        "class Mine(UvicornWorker):\n"
        "    CONFIG_KWARGS = {'http': 'h11', 'loop': 'asyncio', 'server_header': True}\n"
        "worker_class = Mine\n"
    )
    with running("gunicorn", "engine_apps:asgi", f"gunicorn_conf={tmp_path}/conf.py", "workers=1") as server:
        assert "Using worker: Mine" in server.output
        assert server.get("/").headers["server"] == "uvicorn"
        assert server.json("/")["state"] == {"made": "in lifespan"}


def test_access_log_is_off_unless_gunicorn_s_configuration_asks():
    with serve("sync", "wsgi") as server:
        server.get("/echo")
        server.signal()
        server.ended()
        assert "GET /echo" not in server.output
    environ = {"GUNICORN_CMD_ARGS": "--access-logfile -"}
    with serve("sync", "wsgi", environ=environ) as server:
        server.get("/echo")
        server.wait_for('"GET /echo HTTP/1.1" 200')


def test_max_requests_stays_gunicorn_s():
    with serve("sync", "wsgi", environ={"GUNICORN_CMD_ARGS": "--max-requests 2"}) as server:
        pids = {server.json("/")["pid"] for _ in range(4)}
        assert len(pids) >= 2
        assert sum(line.startswith("READY") for line in server.lines) == 1


# listeners


@pytest.mark.parametrize(
    ("worker_class", "interface"), [("sync", "wsgi"), ("gevent", "wsgi"), *((n, "asgi") for n in ASGI[:2])]
)
def test_several_listeners_and_the_unix_path_survives(worker_class, interface, tmp_path):
    listeners = [listen(), listen(socket.AF_INET6), listen(socket.AF_UNIX, tmp_path / "s")]
    with serve(worker_class, interface, listeners=listeners) as server:
        for number in range(3):
            assert server.get("/echo", number, "POST", body=b"x").body == b"x"
        server.signal()
        assert server.ended() == 0
        assert (tmp_path / "s").exists()
        with server.connect(2):  # the listener is the supervisor's, and still open
            pass


@EACH
def test_backlog_is_the_setting(worker_class, interface):
    with serve(worker_class, interface, "backlog=77") as server:
        command = ["ss", "-Hltn", f"sport = :{server.port()}"]
        assert subprocess.run(command, capture_output=True, text=True).stdout.split()[2] == "77"


# start


def test_ready_once_for_the_first_worker():
    with serve("uvicorn_worker.UvicornWorker", "asgi", "workers=3") as server:
        for _ in range(2):
            server.wait_for("Application startup complete")
        server.signal()
        assert server.ended() == 0
        ready = [line for line in server.lines if line.startswith("READY")]
        assert len(ready) == 1
        assert server.lines.index(ready[0]) > server.lines.index("APP lifespan.startup")


@pytest.mark.parametrize("worker_class", ASGI)
def test_failing_lifespan_startup(worker_class):
    with serve(worker_class, "asgi", "workers=2", app="failing", ready=False) as server:
        assert server.ended() == 3
        line = next(line for line in server.lines if line.startswith("ERROR"))
        assert line.startswith("ERROR BootError the application's lifespan startup failed:")
        assert "no database" in line
        assert 1 <= server.output.count("Traceback (most recent call last)") <= 2  # each worker tries
        assert "READY" not in server.output


@pytest.mark.parametrize("worker_class", ASGI)
def test_application_without_lifespan(worker_class):
    with serve(worker_class, "asgi", app="without_lifespan") as server:
        assert server.get("/").body == b"without"
        assert not any("ERROR" in line or "Traceback" in line for line in server.lines)


@pytest.mark.parametrize(("worker_class", "interface"), [("sync", "wsgi"), ("asgi", "asgi"), (None, "wsgi")])
def test_failing_import_does_not_loop(worker_class, interface):
    environ = {"FAIL_IMPORT": "engine_apps"}
    with serve(worker_class, interface, "workers=2", environ=environ, ready=False) as server:
        assert server.ended() == 3
        line = next(line for line in server.lines if line.startswith("ERROR"))
        assert line == "ERROR BootError cannot import engine_apps: no such luck"
        assert 1 <= server.lines.count("importing") <= 2
        assert "READY" not in server.output


# supervision


def test_ttin_and_ttou_change_the_number_of_workers():
    with serve("sync", "wsgi", "workers=1") as server:
        for number, expected in ((signal.SIGTTIN, 2), (signal.SIGTTIN, 3), (signal.SIGTTOU, 2)):
            server.signal(number)
            deadline = time.monotonic() + PATIENCE
            while len(children(server.process.pid)) != expected and time.monotonic() < deadline:
                time.sleep(0.02)
            assert len(children(server.process.pid)) == expected


@EACH
def test_workers_die_with_the_arbiter(worker_class, interface):
    with serve(worker_class, interface) as server:
        workers = children(server.process.pid)
        server.signal(signal.SIGKILL)
        assert workers
        assert all(gone(pid) for pid in workers)


def test_a_killed_worker_is_replaced():
    with serve("sync", "wsgi") as server:
        pid = server.json("/")["pid"]
        os.kill(pid, signal.SIGKILL)
        assert server.json("/")["pid"] != pid
        assert sum(line.startswith("READY") for line in server.lines) == 1


# stop


@EACH
def test_stop_when_idle(worker_class, interface):
    with serve(worker_class, interface) as server:
        assert server.get("/echo", method="POST", body=b"x").body == b"x"
        server.signal(signal.SIGINT)  # ignored
        assert server.get("/echo", method="POST", body=b"x").body == b"x"
        asked = server.signal()
        assert server.ended() == 0
        assert time.monotonic() - asked < 4  # below the grace period
        if interface == "asgi":
            assert server.lines.count("APP lifespan.shutdown") == 1


@pytest.mark.parametrize(("worker_class", "interface"), [each for each in ALL if each[0] != "sync"])
def test_stop_does_not_wait_for_idle_connections(worker_class, interface):
    with serve(worker_class, interface) as server, server.connect() as kept, server.connect():
        send(kept, "/echo", "POST", body=b"x")
        assert receive(kept).body == b"x"
        asked = server.signal()
        assert server.ended() == 0
        assert time.monotonic() - asked < 4  # below the grace period


@pytest.mark.parametrize("worker_class", ASGI)
def test_stop_closes_websockets(worker_class):
    with serve(worker_class, "asgi") as server, connect(f"ws://127.0.0.1:{server.port()}/") as client:
        client.send("hello")
        assert client.recv(PATIENCE) == "hello"
        asked = server.signal()
        with pytest.raises(ConnectionClosed):
            client.recv(PATIENCE)
        assert client.close_code == 1012
        assert server.ended() == 0
        assert time.monotonic() - asked < 4


@EACH
def test_stop_answers_what_is_in_flight(worker_class, interface):
    with serve(worker_class, interface) as server, server.connect() as busy:
        send(busy, "/slow?1")
        server.wait_for("slow started")
        server.signal()
        reply = receive(busy)
        assert (reply.status, reply.body) == (200, b"slow")
        assert server.ended(5) == 0


@EACH
def test_a_worker_that_is_told_twice_to_leave_answers_what_is_in_flight(worker_class, interface):
    """As when a TTIN or TTOU comes while it leaves: the arbiter then tells a surplus worker again."""
    with serve(worker_class, interface) as server, server.connect() as busy:
        (pid,) = children(server.process.pid)
        send(busy, "/slow?1")
        server.wait_for("slow started")
        for _ in range(2):
            os.kill(pid, signal.SIGTERM)
            time.sleep(0.2)
        reply = receive(busy)
        assert (reply.status, reply.body) == (200, b"slow")
        assert "CancelledError" not in server.output


@EACH
def test_stop_cuts_stuck_requests_at_the_grace_period(worker_class, interface):
    with serve(worker_class, interface, "graceful_timeout=1.5") as server, server.connect() as stuck:
        send(stuck, "/slow?100")
        server.wait_for("slow started")
        asked = server.signal()
        assert server.ended() == 0
        assert 0.9 < time.monotonic() - asked < 5
        if interface == "asgi":
            assert "APP lifespan.shutdown" in server.lines


@pytest.mark.parametrize("worker_class", ["sync", "uvicorn.workers.UvicornWorker"])
def test_a_stop_while_workers_boot_is_not_lost(worker_class):
    interface = "wsgi" if worker_class == "sync" else "asgi"
    with serve(worker_class, interface, "workers=4", ready=False) as server:
        server.wait_for("Booting worker")
        asked = server.signal()
        assert server.ended() == 0
        assert time.monotonic() - asked < 4  # below the grace period


# TLS


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-passout", "pass:x"]
    words += ["-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    plain = ["openssl", "pkey", "-in", "key.pem", "-passin", "pass:x", "-out", "plain.pem"]
    subprocess.run(plain, cwd=folder, check=True, capture_output=True)
    return folder


def over_tls(server, folder):
    context = ssl.create_default_context(cafile=folder / "cert.pem")
    with context.wrap_socket(server.connect(), server_hostname="127.0.0.1") as client:
        send(client, "/", headers="Connection: close\r\n")
        shown = json.loads(receive(client).body)
        return shown.get("scheme", shown.get("wsgi.url_scheme"))


@EACH
def test_tls_from_mooring_s_settings(worker_class, interface, certificates):
    settings = [f"tls_certificate={certificates}/cert.pem", f"tls_key={certificates}/key.pem"]
    with serve(worker_class, interface, *settings, "tls_key_password=x") as server:
        assert over_tls(server, certificates) == "https"


@EACH
def test_tls_from_gunicorn_s_arguments(worker_class, interface, certificates):
    arguments = f"--certfile {certificates}/cert.pem --keyfile {certificates}/plain.pem"
    with serve(worker_class, interface, environ={"GUNICORN_CMD_ARGS": arguments}) as server:
        assert over_tls(server, certificates) == "https"


@pytest.mark.parametrize(("worker_class", "interface"), [each for each in ALL if each[0] != "sync"])
def test_stop_does_not_wait_for_idle_connections_over_tls(worker_class, interface, certificates):
    """Their clients do not read, so they never answer the end of TLS."""
    settings = [f"tls_certificate={certificates}/cert.pem", f"tls_key={certificates}/plain.pem"]
    context = ssl.create_default_context(cafile=certificates / "cert.pem")
    with (
        serve(worker_class, interface, *settings, "graceful_timeout=20") as server,
        context.wrap_socket(server.connect(), server_hostname="127.0.0.1") as kept,
        context.wrap_socket(server.connect(), server_hostname="127.0.0.1"),
    ):
        send(kept, "/echo", "POST", body=b"x")
        assert receive(kept).body == b"x"
        asked = server.signal()
        assert server.ended() == 0
        assert time.monotonic() - asked < 10  # half the grace period


def test_without_a_folder_for_temporary_files_it_takes_shared_memory(tmp_path, monkeypatch):
    """A container that is read-only has /dev/shm alone."""
    from mooring.engines.gunicorn import config
    from mooring.settings.resolve import resolve

    def none():
        raise FileNotFoundError

    def folder(**environ):
        plan = SimpleNamespace(settings=resolve({}, environ, tmp_path).settings, max_connections=10)
        return config.defaults(plan).get("worker_tmp_dir")

    assert folder() is None
    assert folder(WORKER_TMP_DIR="/mine") == "/mine"
    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert folder() == "/dev/shm"
    assert folder(WORKER_TMP_DIR="/mine") == "/mine"
