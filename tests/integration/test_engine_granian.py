"""granian behind mooring's protocol: requests as on every engine, and a drain that keeps its word."""

from __future__ import annotations

import json
import select
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from engine_process import listen, read_reply, receive, running, send
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect, unix_connect
from wire import received_over_tls

PROMPT = 4  # seconds for a stop that nobody holds, on a busy machine: half the grace period
MARGIN = 3  # seconds that a busy machine may add to a time that has passed
BOTH = pytest.mark.parametrize("interface", ["asgi", "wsgi"])


def serve(interface="asgi", *settings, app=None, **more):
    return running("granian", f"engine_apps:{app or interface}", *settings, interface=interface, **more)


# requests


@BOTH
def test_requests(interface):
    with serve(interface) as server:
        assert server.get("/echo", method="POST", body=b"x" * 300_000).body == b"x" * 300_000
        assert server.get("/stream").body == b"0\n1\n2\n3\n4\n"
        assert server.get("/stream").headers["transfer-encoding"] == "chunked"
        head = server.get("/echo", method="HEAD")
        assert (head.status, head.body) == (200, b"")
        assert server.get("/cookies").all("set-cookie") == ["a=1", "b=2"]
        assert server.get("/raise").status == 500
        server.wait_for("ValueError: the application raised")
        big = "".join(f"X-Large-{n}: {'v' * 1000}\r\n" for n in range(50))
        assert server.get("/", headers=big).status == 200


@BOTH
def test_chunked_upload(interface):
    with serve(interface) as server, server.connect() as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (b"one ", b"two ", b"three"):
            client.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            time.sleep(0.02)
        client.sendall(b"0\r\n\r\n")
        assert receive(client).body == b"one two three"


@BOTH
def test_keep_alive_and_pipelining(interface):
    with serve(interface) as server, server.connect() as client, client.makefile("rb") as file:
        for _ in range(3):
            send(client, "/echo", "POST", body=b"same connection")
            assert read_reply(file).body == b"same connection"
        for number in range(5):
            send(client, "/echo", "POST", body=b"%d" % number)
        assert [read_reply(file).body for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


BODIES = {
    "chunked": "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0",
    "of a length": "Content-Length: 6\r\n\r\nabcd",  # and the rest
}


@BOTH
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_an_unread_body_ends_its_connection_and_the_answer_says_so(interface, body):
    """Granian closes it, and without us says so nearly always: only a client that is told loses nothing."""
    with serve(interface) as server:
        for path in ["/cookies", "/stream"] * 10:
            with server.connect() as client, client.makefile("rb") as file:
                client.sendall(f"POST {path} HTTP/1.1\r\nHost: t\r\n{body}\r\n\r\n".encode())
                answer = read_reply(file)
                assert (answer.status, answer.headers.get("connection")) == (200, "close")
                assert file.read() == b""


@BOTH
@pytest.mark.parametrize("body", ["0\r\n\r\n", "6\r\n\r\nabcdef"], ids=["none", "read"])
def test_a_connection_is_kept_where_no_body_is_left(interface, body):
    with serve(interface) as server, server.connect() as client, client.makefile("rb") as file:
        for _ in range(3):
            client.sendall(f"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: {body}".encode())
            assert "connection" not in read_reply(file).headers
            send(client, "/cookies")
            assert "connection" not in read_reply(file).headers


def test_the_threads_are_those_of_all_listeners():
    with (
        serve("wsgi", "threads=1", listeners=[listen(), listen()]) as server,
        server.connect(0) as first,
        server.connect(1) as second,
    ):
        send(first, "/slow?3")
        server.wait_for("slow started")
        send(second, "/")
        assert receive(second).status == 200
        assert select.select([first], [], [], 1)[0], "the second had a thread of its own"
        assert receive(first).body == b"slow"


@BOTH
def test_keep_alive_is_the_idle_time(interface):
    with serve(interface, "keep_alive=0.5") as server, server.connect() as client:
        send(client, "/echo", "POST", body=b"x")
        assert receive(client).body == b"x"
        start = time.monotonic()
        assert client.recv(1) == b""
        assert 0.3 < time.monotonic() - start < 0.5 + MARGIN


@BOTH
def test_keep_alive_0_closes_after_the_answer(interface):
    with serve(interface, "keep_alive=0") as server, server.connect() as client:
        send(client, "/echo", "POST", body=b"x")
        assert receive(client).headers["connection"] == "close"


@BOTH
def test_100_continue(interface):
    with serve(interface) as server, server.connect() as client, client.makefile("rb") as file:
        send(client, "/echo", "POST", "Content-Length: 2\r\nExpect: 100-continue\r\n")
        assert read_reply(file).status == 100
        client.sendall(b"ok")
        assert read_reply(file).body == b"ok"


def test_scope_is_that_of_the_specification():
    with serve() as server:
        scope = server.json("/caf%C3%A9/%2Fx?q=%20", headers="Cookie: a=1\r\n")
        assert scope["path"] == "/café//x"
        assert scope["raw_path"] == "/caf%C3%A9/%2Fx"
        assert scope["query_string"] == "q=%20"
        assert scope["http_version"] == "1.1"
        assert scope["scheme"] == "http"
        assert scope["method"] == "GET"
        assert scope["state"] == {"made": "in lifespan"}
        assert scope["root_path"] == ""
        assert scope["server"] == ["127.0.0.1", server.port()]
        assert scope["client"][0] == "127.0.0.1"
        assert isinstance(scope["client"][1], int)
        assert server.get("/bare").body == b"bare"
        assert server.get("/task").body == b"http.request"


def test_http_10_has_its_version_and_no_invented_host():
    with serve() as server, server.connect() as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        scope = json.loads(receive(client).body)
        assert scope["http_version"] == "1.0"
        assert scope["headers"] == []


def test_environ_is_that_of_pep_3333():
    with serve("wsgi", environ={"HTTP_PROXY": "http://proxy", "SECRET": "x"}) as server:
        environ = server.json("/caf%C3%A9/%2Fx?q=%20", headers="X-Twice: a\r\nX-Twice: b\r\n")
        assert environ["PATH_INFO"] == "/café//x".encode().decode("latin-1")
        assert environ["QUERY_STRING"] == "q=%20"
        assert environ["SCRIPT_NAME"] == ""
        assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
        assert environ["HTTP_X_TWICE"] == "a,b"
        assert environ["wsgi.multiprocess"] is True
        assert environ["wsgi.version"] == [1, 0]
        assert environ["REMOTE_ADDR"] == "127.0.0.1"
        assert environ["SERVER_PORT"] == str(server.port())
        assert not {"HTTP_PROXY", "SECRET", "PATH"} & set(environ)
        with server.connect() as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            environ = json.loads(receive(client).body)
            assert environ["SERVER_PROTOCOL"] == "HTTP/1.0"
            assert "HTTP_HOST" not in environ


def test_start_response_as_pep_3333_wants_it():
    with serve("wsgi") as server:
        late = server.get("/generator")
        assert (late.status, late.headers["x-from"], late.body) == (418, "generator", b"from a generator")
        written = server.get("/write")
        assert (written.status, written.body) == (201, b"written returned")
        assert server.get("/replaced").status == 503
        assert server.get("/twice").status == 500


def test_wsgi_input_as_pep_3333_wants_it():
    body = b"abcdef\nghijkl\n\nlast"
    with serve("wsgi") as server:
        parts = json.loads(server.get("/parts", method="POST", body=body).body)
        assert parts == ["abc", "def\n", "gh", "ijkl\n", "\n", "last"]


def test_wsgi_threads_run_at_the_same_time():
    with serve("wsgi", "threads=4") as server:
        clients = [server.connect() for _ in range(4)]
        start = time.monotonic()
        for client in clients:
            send(client, "/slow?2")
        assert [receive(client).body for client in clients] == [b"slow"] * 4
        assert time.monotonic() - start < 6  # one after the other: 8


# listeners


@BOTH
def test_several_listeners_at_once(interface, tmp_path):
    listeners = [listen(), listen(socket.AF_INET6), listen(socket.AF_UNIX, tmp_path / "s"), listen()]
    with serve(interface, listeners=listeners) as server:
        pids = {server.json("/", number)["pid"] for number in range(4)}
        assert pids == {server.process.pid}
        if interface == "asgi":
            assert server.json("/", 1)["client"][0] == "::1"
            unix = server.json("/", 2)
            assert unix["client"] is None
            assert unix["server"] == [str(tmp_path / "s"), None]
        else:
            assert server.json("/", 1)["REMOTE_ADDR"] == "::1"
            assert server.json("/", 2)["REMOTE_ADDR"] == ""
        server.signal()
        assert server.ended(PROMPT) == 0
        assert (tmp_path / "s").exists()  # the supervisor's to remove
        assert server.lines.count(f"READY {server.process.pid}") == 1


@BOTH
def test_backlog_is_the_setting(interface):
    with serve(interface, "backlog=77") as server:
        port = server.port()
        shown = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True).stdout
        assert shown.split()[2] == "77"


# WebSockets


def url(server, path, scheme="ws"):
    return f"{scheme}://127.0.0.1:{server.port()}{path}"


def test_websocket_echo_and_close_codes():
    with serve() as server:
        with connect(url(server, "/"), subprotocols=["one", "two"]) as socket_:
            assert socket_.subprotocol == "one"
            for message in ("text é", b"\x00bytes", "x" * 200_000):
                socket_.send(message)
                assert socket_.recv(PATIENCE) == message
            socket_.close(4321)
        server.wait_for("APP websocket 4321")
        server.wait_for("APP OSError after disconnect")
        with connect(url(server, "/")) as socket_:
            socket_.send("close")
            with pytest.raises(ConnectionClosed):
                socket_.recv(PATIENCE)
            assert (socket_.close_code, socket_.close_reason) == (4000, "asked")
        server.wait_for("APP websocket 4000")


PATIENCE = 40


def test_websocket_close_does_not_wait_for_a_pending_receive():
    with serve() as server, connect(url(server, "/pending")) as socket_:
        with pytest.raises(ConnectionClosed):
            socket_.recv(PATIENCE)
        assert socket_.close_code == 4001
        server.wait_for("APP pending got 4001")


def test_websocket_refused_is_403():
    with serve() as server, pytest.raises(InvalidStatus, match="403"):
        connect(url(server, "/refuse"))


def test_websockets_are_closed_as_going_away_on_stop(tmp_path):
    listeners = [listen(), listen(socket.AF_UNIX, tmp_path / "s")]
    with (
        serve(listeners=listeners) as server,
        connect(url(server, "/")) as first,
        unix_connect(str(tmp_path / "s"), "ws://test/") as second,
    ):
        for each in (first, second):
            each.send("hello")
            assert each.recv(PATIENCE) == "hello"
        server.signal()
        for each in (first, second):
            with pytest.raises(ConnectionClosed):
                each.recv(PATIENCE)
            assert each.close_code == 1012
        assert server.ended(PROMPT) == 0
        assert server.output.count("APP websocket 1012") == 2


# start and stop


def test_lifespan_in_order():
    with serve() as server:
        server.signal()
        assert server.ended() == 0
        told = [line for line in server.lines if line.startswith(("APP", "READY", "DONE"))]
        ready = f"READY {server.process.pid}"
        assert told == ["APP lifespan.startup", ready, "APP lifespan.shutdown", "DONE"]


@pytest.mark.parametrize("loop", ["auto", "asyncio", "uvloop"])
def test_failing_startup_is_an_application_error(loop):
    with serve("asgi", f"loop={loop}", app="failing", ready=False) as server:
        assert server.ended() == 3
        line = next(line for line in server.lines if line.startswith("ERROR"))
        assert line.startswith("ERROR BootError")
        assert "no database" in line
        assert server.output.count("Traceback (most recent call last)") == 1
        assert "READY" not in server.output


@pytest.mark.parametrize("loop", ["auto", "asyncio"])
def test_application_without_lifespan(loop):
    with serve("asgi", f"loop={loop}", app="without_lifespan") as server:
        assert server.get("/").body == b"without"
        server.signal()
        assert server.ended(PROMPT) == 0
        assert [line for line in server.lines if not line.startswith(("READY", "DONE"))] == []


@BOTH
@pytest.mark.parametrize("loop", ["auto", "asyncio"])
def test_stop_when_idle_is_quick_and_quiet(interface, loop):
    with serve(interface, f"loop={loop}") as server, server.connect() as kept, server.connect():
        send(kept, "/echo", "POST", body=b"x")
        assert receive(kept).body == b"x"
        server.process.send_signal(signal.SIGINT)  # ignored
        assert server.get("/echo", method="POST", body=b"y").body == b"y"
        asked = server.signal()
        assert server.ended() == 0
        assert time.monotonic() - asked < PROMPT
        quiet = [line for line in server.lines if not line.startswith(("APP", "READY", "DONE"))]
        assert quiet == []


@BOTH
def test_stop_answers_what_is_in_flight(interface):
    with serve(interface) as server, server.connect() as busy, server.connect() as idle:
        send(idle, "/echo", "POST", body=b"x")
        receive(idle)
        send(busy, "/slow?1")
        server.wait_for("slow started")
        server.signal()
        assert idle.recv(1) == b""
        reply = receive(busy)
        assert (reply.status, reply.body) == (200, b"slow")
        assert server.ended(PROMPT) == 0


@BOTH
def test_stop_accepts_nothing_new_but_leaves_the_listener_open(interface):
    with serve(interface) as server, server.connect() as busy, server.connect() as idle:
        send(idle, "/echo", "POST", body=b"x")
        receive(idle)
        send(busy, "/slow?3")
        server.wait_for("slow started")
        server.signal()
        assert idle.recv(1) == b""  # the drain has begun
        with server.connect() as late:  # the kernel queues it for the next worker
            send(late, "/echo")
            late.settimeout(1)
            with pytest.raises(TimeoutError):
                late.recv(1)
        assert receive(busy).body == b"slow"
        assert server.ended(PROMPT) == 0


def test_stop_waits_for_what_runs_after_the_answer():
    with serve() as server:
        assert server.get("/after").body == b"after"
        server.signal()
        assert server.ended(PROMPT) == 0
        assert server.lines.index("APP after finished") < server.lines.index("APP lifespan.shutdown")


def test_stop_waits_for_close_of_the_iterable():
    with serve("wsgi") as server:
        assert server.get("/closing").body == b"ok"
        server.signal()
        assert server.ended(PROMPT) == 0
        assert "APP closed" in server.lines


def test_stop_cuts_stuck_requests_at_the_grace_period():
    with serve("asgi", "graceful_timeout=1.5") as server, server.connect() as stuck, server.connect() as slow:
        send(stuck, "/stuck")
        server.wait_for("stuck started")
        send(slow, "/slow?100")
        server.wait_for("slow started")
        asked = server.signal()
        assert server.ended() == 0
        assert 1 < time.monotonic() - asked < 1.5 + MARGIN
        assert receive(slow).status == 500  # told, not reset
        assert "2 requests outlived the grace period" in server.output
        assert "APP lifespan.shutdown" in server.lines


def test_stop_leaves_stuck_wsgi_requests_at_the_grace_period():
    with serve("wsgi", "graceful_timeout=1") as server, server.connect() as stuck:
        send(stuck, "/slow?100")
        server.wait_for("slow started")
        asked = server.signal()
        assert server.ended() == 0
        assert 0.7 < time.monotonic() - asked < 1 + MARGIN
        assert "1 request outlived the grace period" in server.output


def test_stop_cuts_a_stuck_lifespan_shutdown():
    with serve("asgi", "graceful_timeout=1", app="stuck_shutdown") as server:
        asked = server.signal()
        assert server.ended() == 0
        assert time.monotonic() - asked < 1 + MARGIN
        assert "the lifespan shutdown was cut" in server.output


def test_stop_during_startup():
    with serve("asgi", "graceful_timeout=1", app="slow_startup", ready=False) as server:
        server.wait_for("APP starting")
        server.signal()
        assert server.ended(PROMPT) == 0
        assert "READY" not in server.output


# TLS and HTTP/2


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"),
    )
    openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=authority"),
        *("-keyout", "ca-key.pem", "-out", "ca.pem"),
    )
    openssl(
        *("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=client"),
        *("-keyout", "client-key.pem", "-out", "client.csr"),
    )
    (folder / "v3.ext").write_text("basicConstraints=CA:FALSE\n")
    openssl(
        *("x509", "-req", "-in", "client.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial"),
        *("-days", "2", "-extfile", "v3.ext", "-out", "client.pem"),
    )
    openssl("rsa", "-in", "key.pem", "-traditional", "-out", "pkcs1.pem")
    openssl("rsa", "-in", "key.pem", "-traditional", "-aes128", "-passout", "pass:x", "-out", "old.pem")
    openssl("pkcs8", "-topk8", "-in", "key.pem", "-passout", "pass:x", "-out", "new.pem")
    return folder


def tls(folder, key="key.pem", *more):
    return f"tls_certificate={folder}/cert.pem", f"tls_key={folder}/{key}", *more


def client_context(folder: Path, version=None):
    context = ssl.create_default_context(cafile=folder / "cert.pem")
    if version is not None:
        context.maximum_version = version
    return context


@BOTH
@pytest.mark.parametrize("key", ["key.pem", "pkcs1.pem", "new.pem", "old.pem"])
def test_tls(interface, key, certificates):
    password = ["tls_key_password=x"] if key in {"new.pem", "old.pem"} else []
    with serve(interface, *tls(certificates, key, *password)) as server:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = client_context(certificates, version)
            with context.wrap_socket(server.connect(), server_hostname="127.0.0.1") as client:
                send(client, "/", headers="Connection: close\r\n")
                shown = json.loads(receive(client).body)
                assert shown.get("scheme", shown.get("wsgi.url_scheme")) == "https"
                assert client.version() == version.name.replace("v1_", "v1.")


def test_tls_websocket(certificates):
    with serve("asgi", *tls(certificates)) as server:
        context = client_context(certificates)
        assert received_over_tls(url(server, "/", "wss"), context, "hello") == "hello"


def answer_over_tls(server, context):
    with context.wrap_socket(server.connect(), server_hostname="127.0.0.1") as client:
        send(client, "/", headers="Connection: close\r\n")
        return receive(client)


def test_tls_client_certificate(certificates):
    with serve("asgi", *tls(certificates, "key.pem", f"tls_client_ca={certificates}/ca.pem")) as server:
        context = client_context(certificates)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            answer_over_tls(server, context)
        context.load_cert_chain(certificates / "client.pem", certificates / "client-key.pem")
        assert answer_over_tls(server, context).status == 200


@pytest.mark.parametrize(
    ("key", "more", "expected"),
    [
        ("missing.pem", (), "missing.pem"),
        ("cert.pem", (), "cert.pem"),
        ("new.pem", (), "new.pem"),
        ("new.pem", ("tls_key_password=wrong",), "new.pem"),
    ],
)
def test_bad_tls_files_are_a_configuration_error(key, more, expected, certificates):
    with serve("asgi", *tls(certificates, key, *more), ready=False) as server:
        assert server.ended() == 2
        line = next(line for line in server.lines if line.startswith("ERROR ConfigurationError"))
        assert expected in line
        assert "panicked" not in server.output


@pytest.mark.parametrize(("http", "expected"), [("auto", "2"), ("2", "2"), ("1", "1.1")])
def test_http_2_over_tls(http, expected, certificates):
    import httpx

    with serve("asgi", f"http={http}", *tls(certificates)) as server:
        context = client_context(certificates)
        with httpx.Client(http2=True, verify=context) as client:
            reply = client.get(f"https://127.0.0.1:{server.port()}/", headers={"cookie": "a=1"})
            assert reply.json()["http_version"] == expected
            assert ["host", f"127.0.0.1:{server.port()}"] in reply.json()["headers"]


def test_http_2_finishes_in_flight(certificates):
    with serve("asgi", *tls(certificates)) as server:
        # curl: h2, the library below httpx, takes a GOAWAY for the end of open streams too
        words = ["curl", "--silent", "--http2", "--cacert", str(certificates / "cert.pem")]
        client = subprocess.Popen(
            [*words, f"https://127.0.0.1:{server.port()}/slow?1"], stdout=subprocess.PIPE
        )
        server.wait_for("slow started")
        server.signal()
        assert client.communicate()[0] == b"slow"
        assert server.ended(PROMPT) == 0
