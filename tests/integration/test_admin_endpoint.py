"""The admin endpoint of real instances: what it answers where, whom it survives, and what it never says."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import resource
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority
from cryptography.hazmat.primitives import serialization
from harness import ASGI_APP, WSGI_APP, Mooring, Reply, eventually, read_all

from mooring.settings.table import ROWS

PAGES = ("/livez", "/readyz", "/status", "/stats", "/metrics", "/")
LOCAL = "127.0.0.1:0"


def ask(url: str, path: str, method: str = "GET", **fields: str) -> Reply:
    """One request to an admin address: http://HOST:PORT or unix:PATH."""
    connection = http.client.HTTPConnection("127.0.0.1", timeout=20)
    connection.sock = connect(url)
    with contextlib.closing(connection):
        connection.request(method, path, headers=fields)
        answer = connection.getresponse()
        return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())


def connect(url: str) -> socket.socket:
    if url.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(20)
        sock.connect(url.removeprefix("unix:"))
        return sock
    host, _, port = url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), 20)


@pytest.fixture
def app(mooring) -> Mooring:
    return mooring.run(workers=2, MOORING_ADMIN_BIND=LOCAL, MOORING_PROBE_BIND=LOCAL)


def urls(app: Mooring) -> tuple[str, str]:
    """The first admin and probe addresses."""
    status = app.status()
    return status["admin"][0], status["probes"][0]


# -- who may read ------------------------------------------------------------------------------------------


def test_a_page_elsewhere_cannot_read_by_a_name_of_its_own(mooring):
    """DNS rebinding: the browser's Host field has the name that the stranger has made point here."""
    app = mooring.run(
        workers=1, MOORING_ADMIN_BIND="localhost:0,127.0.0.1:0", MOORING_PROBE_BIND=LOCAL,
        MOORING_ADMIN_HOSTS="ops.example",
    )  # fmt: skip
    status = app.status()
    for url in status["admin"]:
        assert [ask(url, path, Host="evil.example").status for path in PAGES] == [
            200,
            200,
            421,
            421,
            200,
            421,
        ]
        assert ask(url, "/status", Host="evil.example:9100").text.startswith("'evil.example:9100' is no name")
        rebound = ask(url, "/x://127.0.0.1/status", Host="evil.example")  # a path that a page may ask for
        assert rebound.status == 421
        for name in ("ops.example:80", "OPS.example", "localhost", "127.0.0.1:1", "[::1]"):
            assert ask(url, "/status", Host=name).status == 200
    assert ask(status["probes"][0], "/readyz", Host="evil.example").status == 200


def test_with_a_token_only_probes_are_for_all(mooring):
    token = mooring.base / "token"
    token.write_text("s3cret\n")
    app = mooring.run(
        workers=1, MOORING_ADMIN_BIND=LOCAL, MOORING_PROBE_BIND=LOCAL, MOORING_ADMIN_TOKEN_FILE=token
    )
    admin, _ = urls(app)
    assert [ask(admin, path).status for path in PAGES] == [200, 200, 401, 401, 401, 401]
    for given in ("Bearer s3cret", "Basic OnMzY3JldA=="):
        assert [ask(admin, path, Authorization=given).status for path in PAGES] == [200] * 6
    assert ask(admin, "/status", Authorization="Bearer s3cre").status == 401
    assert "s3cret" not in everything(app, admin)


def test_a_secret_on_the_command_line_is_refused_and_not_repeated(mooring):
    run = mooring.start("run", "main:app", "--tls-key-password", MARK, files={"main.py": ASGI_APP})
    assert run.wait_exit() == 2
    assert "--tls-key-password: every user of the machine can read a command line" in run.stderr
    assert MARK not in run.stderr


# -- what it answers where ---------------------------------------------------------------------------------


def test_addresses_are_printed_at_the_start_and_shown_by_status(mooring, app):
    status = app.status()
    assert status["admin"] != status["probes"]
    app.wait_log(f"admin endpoint, for reading: {status['admin'][0]}")
    app.wait_log(f"liveness and readiness: {status['probes'][0]}")
    shown = mooring.start("status")
    assert shown.wait_exit() == 0
    assert f"admin endpoint: {status['admin'][0]}" in shown.stdout


def test_pages_have_their_types_and_are_not_kept(app):
    admin, _ = urls(app)
    kinds = ["text/plain; charset=utf-8", "text/plain; charset=utf-8", "application/json", "application/json",
             "text/plain; version=0.0.4; charset=utf-8", "text/html; charset=utf-8"]  # fmt: skip
    for path, kind in zip(PAGES, kinds, strict=True):
        answer, head = ask(admin, path), ask(admin, path, "HEAD")
        assert (answer.status, answer.headers["content-type"]) == (200, kind)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert (head.status, head.body, head.headers["content-type"]) == (200, b"", kind)


def test_tcp_is_for_reading(app):
    admin, probe = urls(app)
    generation = app.status()["generation"]
    assert ask(admin, "/roll", "POST").status == 403
    assert ask(probe, "/roll", "POST").status == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = ask(admin, "/status", method)
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert ask(admin, "/nothing").status == 404
    assert app.status()["generation"] == generation
    assert "rolling" not in app.stderr


def test_probes_tell_liveness_and_readiness_alone(app):
    _, probe = urls(app)
    assert [ask(probe, path).status for path in PAGES] == [200, 200, 404, 404, 404, 404]


def test_readiness_ends_with_the_stop_and_liveness_does_not(mooring):
    app = mooring.run(workers=1, MOORING_PROBE_BIND=LOCAL, MOORING_DRAIN_DELAY=20)
    (probe,) = app.status()["probes"]
    app.signal(signal.SIGTERM)
    reply = eventually(lambda: (found := ask(probe, "/readyz")).status == 503 and found, "not ready")
    assert reply.text == "stopping\n"
    assert ask(probe, "/livez").status == 200
    app.signal(signal.SIGQUIT)
    assert app.wait_exit() == 0


def test_several_addresses_unix_and_tcp(mooring):
    path = mooring.base / "admin.sock"
    app = mooring.run(
        workers=1, MOORING_ADMIN_BIND=f"{LOCAL},unix:{path}", MOORING_PROBE_BIND=f"{LOCAL},127.0.0.2:0"
    )
    status = app.status()
    assert status["admin"][1] == f"unix:{path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(status["probes"]) == 2
    assert len({*status["admin"], *status["probes"]}) == 4
    assert all(ask(url, "/readyz").status == 200 for url in (*status["admin"], *status["probes"]))
    assert app.stop() == 0
    assert not path.exists()


def test_workers_do_not_inherit_the_admin_sockets(app):
    admin, probe = urls(app)
    wanted = {f"0100007F:{int(url.rpartition(':')[2]):04X}" for url in (admin, probe)}

    def listening() -> set[str]:
        rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()]
        found = {f"socket:[{row[9]}]" for row in rows if row[1] in wanted and row[3] == "0A"}
        return found if len(found) == 2 else set()

    # the table is read in pieces, and connections that come and go meanwhile may shift a row past us
    inodes = eventually(listening, "both sockets")

    def held(pid: int) -> set[str]:
        found = set()
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed since
                found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
        return found & inodes

    assert held(app.pid) == inodes
    assert [held(pid) for pid in app.ready()] == [set(), set()]


@pytest.mark.parametrize("name", ["MOORING_ADMIN_BIND", "MOORING_PROBE_BIND"])
def test_a_port_in_use_is_exit_code_4_and_leaves_nothing(mooring, name):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        app = mooring.start("run", files={"main.py": ASGI_APP}, **{name: f"127.0.0.1:{port}"})
        assert app.wait_exit() == 4
    assert app.last_line.startswith(f"mooring: cannot listen on 127.0.0.1:{port}: the port is in use")
    assert app.last_line.endswith(f"; stop it, or choose another port ({name})")
    assert app.leftovers == []
    assert list(mooring.runtime.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "said"), [("systemd", "use HOST:PORT or unix:PATH"), ("nonsense:x", "expected")]
)
def test_an_address_that_makes_no_sense_is_exit_code_2(mooring, value, said):
    app = mooring.start("run", files={"main.py": ASGI_APP}, MOORING_ADMIN_BIND=value)
    assert app.wait_exit() == 2
    assert "admin_bind" in app.last_line.lower()
    assert said in app.last_line


# -- what it says ------------------------------------------------------------------------------------------


def test_status_and_stats_count_requests_and_show_those_in_flight(app):
    admin, _ = urls(app)
    before = ask(admin, "/stats").json()
    for _ in range(10):
        app.get("/")
    app.get("/missing")
    thread = threading.Thread(target=lambda: app.get("/slow?s=2&token=1"))
    thread.start()
    app.wait_log("in flight")
    status = app.wait_status(lambda s: s["requests_in_flight"])
    (request,) = status["requests_in_flight"]
    assert (request["method"], request["path"]) == ("GET", "/slow")
    assert request["pid"] in app.ready()
    assert sum(row["in_flight"] for row in status["workers"]) == 1
    assert sum(row["requests"] for row in status["workers"]) == 11
    thread.join()
    app.wait_status(lambda s: sum(row["requests"] for row in s["workers"]) == 12)
    busy = [row for row in app.status()["workers"] if row["requests"]]
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in busy)
    after = eventually(lambda: (found := ask(admin, "/stats").json())["totals"]["requests"] == 12 and found)
    assert after["now"] > before["now"]
    assert after["totals"]["by_status"] == {"1xx": 0, "2xx": 11, "3xx": 0, "4xx": 1, "5xx": 0}
    assert sum(after["totals"]["buckets"]) == 12
    assert sum(sum(worker["buckets"]) for worker in after["workers"]) == 12
    assert all(len(worker["buckets"]) <= len(after["bounds"]) + 1 for worker in after["workers"])


def test_totals_outlive_rolls_and_kills(app):
    admin, _ = urls(app)
    for _ in range(20):
        app.get("/")
    app.signal(signal.SIGHUP)
    app.wait_log("rolled: generation 2 serves")
    app.get("/")
    os.kill(app.ready()[0], signal.SIGKILL)
    app.wait_log("killed by SIGKILL")
    app.get("/")
    stats = eventually(lambda: (found := ask(admin, "/stats").json())["totals"]["requests"] == 22 and found)
    assert stats["totals"]["rolls"] == {"rolled": 1, "failed": 0}
    assert stats["totals"]["restarts"] == 1
    eventually(lambda: ask(admin, "/stats").json()["exits"]["drained"] == 2, "the old generation's exits")
    assert ask(admin, "/stats").json()["exits"]["signal"] == 1


def test_gunicorns_workers_have_a_row_each(mooring):
    app = mooring.run(
        files={"main.py": WSGI_APP}, MOORING_ENGINE="gunicorn", MOORING_ADMIN_BIND=LOCAL, workers=3
    )
    for _ in range(30):
        app.get("/")
    status = app.wait_status(lambda s: sum(row["requests"] for row in s["workers"]) == 30)
    rows = status["workers"]
    assert [row["slot"] for row in rows] == [0, 0, 0]
    assert len({row["pid"] for row in rows}) == 3
    (arbiter,) = {row["arbiter_pid"] for row in rows}
    assert arbiter not in {row["pid"] for row in rows}
    assert int(Path(f"/proc/{rows[0]['pid']}/stat").read_text().rpartition(")")[2].split()[1]) == arbiter
    page = ask(status["admin"][0], "/metrics").text
    assert 'mooring_workers{state="ready"} 3\n' in page
    assert re.search(r'^mooring_worker_memory_bytes\{slot="0"\} \d{8,}$', page, re.MULTILINE)


def test_the_page_runs_its_own_script_and_no_other(app):
    admin, _ = urls(app)
    one, two = ask(admin, "/"), ask(admin, "/")
    policy = one.headers["content-security-policy"]
    nonce = re.search(r"script-src 'nonce-(\w{32})'", policy)[1]
    assert policy.startswith("default-src 'none'; ")
    assert one.text.count(f'<script nonce="{nonce}">') == 1
    assert one.text.count(f'<style nonce="{nonce}">') == 1
    assert nonce not in two.text


def test_a_path_in_flight_is_escaped_and_has_no_query(mooring):
    app = mooring.run(
        workers=1, files={"main.py": ASGI_APP.replace('case "/slow":', 'case p if "slow" in p:')}
    )
    with app.connect() as client:
        client.sendall(b"GET /slow%0a%1b[31m?s=2&token=t0ken HTTP/1.1\r\nhost: x\r\n\r\n")
        app.wait_log("in flight")
        (request,) = app.wait_status(lambda s: s["requests_in_flight"])["requests_in_flight"]
        assert "\n" not in request["path"]
        assert "\x1b" not in request["path"]
        assert "t0ken" not in json.dumps(app.status())


# -- whom it survives --------------------------------------------------------------------------------------


@contextlib.contextmanager
def many_descriptors() -> Iterator[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else 65536
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield min(most - 200, 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ten_thousand_connections_hold_neither_signals_nor_the_control_socket(app):
    admin, probe = urls(app)
    address = ("127.0.0.1", int(admin.rpartition(":")[2]))
    stop, made = threading.Event(), [0]

    def flood(batch: int) -> None:
        while not stop.is_set():
            held = []
            for _ in range(batch):
                sock = socket.socket()
                sock.setblocking(False)
                sock.connect_ex(address)
                held.append(sock)
                made[0] += 1
            stop.wait(0.05)
            for sock in held:
                sock.close()

    with many_descriptors() as most:
        thread = threading.Thread(target=flood, args=(min(most, 2000),))
        thread.start()
        try:
            slowest = 0.0
            deadline = time.monotonic() + 60
            while made[0] < 10_000:
                assert time.monotonic() < deadline
                for look in (app.status, lambda: ask(probe, "/livez"), lambda: app.get("/")):
                    began = time.monotonic()
                    look()
                    slowest = max(slowest, time.monotonic() - began)
            assert slowest < 5, "on a quiet machine it is milliseconds"
            app.signal(signal.SIGTTIN)
            app.wait_status(lambda s: s["size"] == 3, timeout=10)
        finally:
            stop.set()
            thread.join()
    assert eventually(lambda: ask(admin, "/livez").status == 200, "the admin port again")
    fds = len(os.listdir(f"/proc/{app.pid}/fd"))
    assert fds < 100
    assert app.stop() == 0


def test_it_rests_while_clients_say_nothing(app):
    admin, _ = urls(app)
    held = [connect(admin) for _ in range(40)]
    held[0].sendall(b"GET /metr")

    def spent() -> float:
        fields = Path(f"/proc/{app.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before = spent()
    ended = threading.Event()
    ended.wait(3)  # measures what is used meanwhile; there is no state to wait for
    assert spent() - before < 0.5
    for sock in held:
        sock.close()


def test_a_slow_client_is_sent_away_though_nothing_else_happens(app):
    admin, _ = urls(app)
    with connect(admin) as client:
        client.sendall(b"GET /status HTTP/1.1\r\n")
        began = time.monotonic()
        assert client.recv(1) == b""
        assert 4 < time.monotonic() - began < 15


def test_garbage_resets_and_pipelining_leave_it_well(app):
    admin, _ = urls(app)
    for junk in (b"\x16\x03\x01\x02\x00\x01", b"\0" * 20_000, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5000):
        with connect(admin) as client, contextlib.suppress(OSError):
            client.sendall(junk)
            client.shutdown(socket.SHUT_WR)
            read_all(client)
    with connect(admin) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\n\r\n" * 100)
        assert read_all(client).count(b"HTTP/1.1 200") == 1
    assert ask(admin, "/livez").status == 200
    assert "failed" not in app.stderr


def test_no_descriptor_left_does_not_spin(mooring):
    app = mooring.run(workers=1, MOORING_ADMIN_BIND=LOCAL)
    (admin,) = app.status()["admin"]
    used = len(os.listdir(f"/proc/{app.pid}/fd"))
    soft, hard = resource.prlimit(app.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(app.pid, resource.RLIMIT_NOFILE, (used, hard))
    held = [connect(admin) for _ in range(5)]
    fields = Path(f"/proc/{app.pid}/stat")

    def ticks() -> int:
        return sum(map(int, fields.read_text().rpartition(")")[2].split()[11:13]))

    before = ticks()
    threading.Event().wait(2)
    assert ticks() - before < 50  # hundredths of a second
    resource.prlimit(app.pid, resource.RLIMIT_NOFILE, (soft, hard))
    for sock in held:
        sock.close()
    assert eventually(lambda: ask(admin, "/livez").status == 200)


# -- what it never says ------------------------------------------------------------------------------------

MARK = "s3cr3t-m4rker"


def everything(app: Mooring, admin: str) -> str:
    """All pages of both doors, one after the other."""
    pages = [ask(admin, path).text for path in PAGES]
    return "\n".join(pages + [app.control("GET", path).text for path in PAGES])


def test_no_secret_appears(mooring):
    assert [row.name for row in ROWS.values() if row.secret] == ["tls_key_password", "admin_token"]
    certificate, key = Authority(mooring.base).issue(1)
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    encrypted = serialization.BestAvailableEncryption(MARK.encode())
    key.write_bytes(
        private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encrypted)
    )
    source = "def create_app(_secret):\n    return app\n" + ASGI_APP
    app = mooring.start(
        "run", f"main:create_app({MARK!r})", files={"main.py": source}, WEB_CONCURRENCY=1,
        MOORING_TLS_CERTIFICATE=certificate, MOORING_TLS_KEY=key, MOORING_TLS_KEY_PASSWORD=MARK,
        MOORING_ADMIN_BIND=LOCAL, DATABASE_URL=f"postgres://u:{MARK}@h/d", MOORING_UNKNOWN=MARK,
        MOORING_TLS_KEY_PASSWOR=MARK, WEB_CONCURENCY=MARK, AWS_SECRET_ACCESS_KEY=MARK,
    )  # fmt: skip
    status = app.wait_status(lambda s: s["state"] == "serving" and s["ready"])
    assert status["application"] == "main:create_app(...)"
    assert any("MOORING_TLS_KEY_PASSWOR " in warning for warning in status["warnings"])
    assert MARK not in everything(app, status["admin"][0])


def test_variables_among_gunicorns_arguments_do_not_appear(mooring):
    app = mooring.run(
        files={"main.py": WSGI_APP}, workers=1, MOORING_ADMIN_BIND=LOCAL,
        GUNICORN_CMD_ARGS=f"--env SECRET={MARK} -k gthread",
    )  # fmt: skip
    status = app.status()
    assert status["plan"]["gunicorn_cmd_args"]["value"] == "--env SECRET=(not shown) -k gthread"
    assert MARK not in everything(app, status["admin"][0])


def test_what_a_failing_application_says_stays_on_the_control_socket(mooring):
    app = mooring.run(workers=1, MOORING_ADMIN_BIND=LOCAL)
    (admin,) = app.status()["admin"]
    app.write("main.py", f"raise RuntimeError('cannot connect to postgres://u:{MARK}@h/d')\n")
    app.signal(signal.SIGHUP)
    app.wait_status(lambda s: s["last_roll"] and s["last_exits"])
    assert MARK in app.control().text  # whose reader is the instance's own user
    pages = "\n".join(ask(admin, path).text for path in PAGES)
    assert MARK not in pages
    assert "the application failed: see mooring status, or the log" in pages
