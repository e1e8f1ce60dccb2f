"""uvicorn and hypercorn behind mooring's engine protocol: requests, lifespan, TLS, and the drain."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import httpx
import pytest
from engine_process import listen, read_reply, receive, running, send
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

KINDS = {
    "uvicorn-uvloop": ("uvicorn", ()),
    "uvicorn-asyncio": ("uvicorn", ("loop=asyncio",)),
    "hypercorn-asyncio": ("hypercorn", ()),
    "hypercorn-uvloop": ("hypercorn", ("loop=uvloop",)),
    "hypercorn-trio": ("hypercorn", ("worker_class=trio",)),
}
HYPERCORN = [kind for kind in KINDS if kind.startswith("hypercorn")]
IDLE = "drain_idle=0.2"  # seconds that an idle client may hold a stop
PROMPT = 4  # seconds for a stop that nobody holds, on a busy machine: half the grace period
MARGIN = 3  # seconds that a busy machine may add to a grace period that has passed


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=HYPERCORN)
def hypercorn(request):
    return request.param


def serve(kind, *settings, app="app", **more):
    engine, own = KINDS[kind]
    return running(engine, f"asgi_adapter_apps:{app}", IDLE, *own, *settings, **more)


def stopped(server, began):
    """Wait for a clean end; the seconds it took."""
    assert server.ended() == 0, server.output
    assert "DONE" in server.output
    return time.monotonic() - began


# Requests


def test_requests(kind):
    with serve(kind) as server:
        reply = server.get("/")
        assert (reply.status, reply.body) == (200, b"1.1 http / True")
        assert "server" not in reply.headers
        assert len(reply.all("date")) == 1
        assert server.get("/echo", method="POST", body=b"x" * 300_000).body == b"x" * 300_000
        stream = server.get("/stream")
        assert (stream.headers["transfer-encoding"], stream.body) == ("chunked", b"0\n1\n2\n3\n4\n")
        assert server.get("/raise").status == 500
        server.wait_for("ValueError: the application raised")
        assert server.get("/caf%C3%A9").body.decode() == "1.1 http /café True"
        assert "GET" not in server.output  # no access log of the engine's own


def test_head_has_no_body(kind):
    with serve(kind) as server, server.connect() as client, client.makefile("rb") as file:
        for _ in range(2):  # the second would read a body that was sent all the same
            send(client, "/echo", "HEAD")
            assert read_reply(file, "HEAD").status == 200


def test_keep_alive_and_pipelining(kind):
    with serve(kind) as server, server.connect() as client, client.makefile("rb") as file:
        for _ in range(3):
            send(client, "/echo", "POST", body=b"again")
            assert read_reply(file).body == b"again"
        client.sendall(b"GET /1 HTTP/1.1\r\nHost: t\r\n\r\nGET /2 HTTP/1.1\r\nHost: t\r\n\r\n")
        assert [read_reply(file).body for _ in range(2)] == [b"1.1 http /1 True", b"1.1 http /2 True"]


def test_chunked_upload(kind):
    with serve(kind) as server, server.connect() as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (b"one ", b"two ", b"three"):
            client.sendall(b"%x\r\n%s\r\n" % (len(part), part))
        client.sendall(b"0\r\n\r\n")
        assert receive(client).body == b"one two three"


def test_100_continue(kind):
    with serve(kind) as server, server.connect() as client, client.makefile("rb") as file:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert read_reply(file).status == 100
        client.sendall(b"body")
        assert read_reply(file).body == b"body"


def test_the_client_disconnects(kind):
    with serve(kind) as server:
        with server.connect() as client:
            send(client, "/disconnect")
            server.wait_for("waiting for the disconnect")
        server.wait_for("http.disconnect")


def test_a_large_head_is_taken_and_an_endless_one_refused(kind):
    with serve(kind) as server:
        assert server.get("/", headers=f"X-Large: {'v' * 60_000}\r\n").status == 200
        with server.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: t\r\n")
            with contextlib.suppress(OSError):
                for _ in range(100):
                    client.sendall(b"X-Endless: " + b"v" * 10_000 + b"\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert b"HTTP/1.1 431" in client.recv(100)
        assert server.get("/").status == 200


def test_two_listeners_and_a_unix_path_that_stays(kind, tmp_path):
    path = tmp_path / "s"
    with serve(kind, listeners=[listen(), listen(socket.AF_UNIX, path)]) as server:
        assert server.get("/", 0).body == b"1.1 http / True"
        assert server.get("/", 1).body == b"1.1 http / False"
        stopped(server, server.signal())
        assert path.exists()


# WebSockets


def test_websocket_echo_and_close_codes(kind):
    with serve(kind) as server:
        url = f"ws://127.0.0.1:{server.port()}"
        with connect(url) as client:
            for message in ("text", b"bytes", "ü" * 70_000):
                client.send(message)
                assert client.recv() == message
            client.send("close")
            with pytest.raises(ConnectionClosed):
                client.recv()
            assert (client.close_code, client.close_reason) == (4000, "asked")
        with connect(url) as client:
            client.close(4321)
        server.wait_for("websocket disconnect")
        with pytest.raises(InvalidStatus) as refused:
            connect(f"{url}/refuse")
        assert refused.value.response.status_code == 403


def test_websockets_are_closed_with_1012(kind):
    with serve(kind) as server, connect(f"ws://127.0.0.1:{server.port()}") as client:
        client.send("hello")
        assert client.recv() == "hello"
        began = server.signal()
        with pytest.raises(ConnectionClosed):
            client.recv()
        assert client.close_code == 1012
        server.wait_for("websocket disconnect")
        assert stopped(server, began) < PROMPT


def test_a_websocket_that_stays_is_cut_within_the_grace_period(kind):
    with serve(kind, "graceful_timeout=2") as server:
        with connect(f"ws://127.0.0.1:{server.port()}/stays") as client:
            client.send("hello")
            client.recv()
            began = server.signal()
            server.wait_for("websocket disconnect")
            assert 1 < stopped(server, began) < 2 + MARGIN
        assert "APP lifespan.shutdown" in server.output


# Lifespan


def test_lifespan_comes_first_and_last(kind):
    with serve(kind) as server:
        server.get("/")
        stopped(server, server.signal())
        shown = [line for line in server.lines if line.startswith(("APP", "READY", "DONE"))]
        assert [line.split()[-1] for line in shown if not line.startswith("READY")] == [
            "lifespan.startup",
            "lifespan.shutdown",
            "DONE",
        ]
        assert shown[1].startswith("READY")


def test_a_failed_startup_shows_the_applications_traceback_once(kind):
    with serve(kind, app="failing", ready=False) as server:
        assert server.ended() == 3
        error = "ERROR BootError the application's lifespan startup failed: ValueError: no database"
        assert error in server.lines
        assert server.output.count("Traceback (most recent call last)") == 1
        assert "in database" in server.output
        assert "mooring/engines" not in server.output
        assert "READY" not in server.output


def test_a_failed_startup_without_traceback(kind):
    with serve(kind, app="failing_quietly", ready=False) as server:
        assert server.ended() == 3
        assert "ERROR BootError the application's lifespan startup failed: no database" in server.lines
        assert "Traceback" not in server.output


@pytest.mark.parametrize("app", ["raising", "refusing", "returning"])
def test_an_application_without_lifespan_is_served(kind, app):
    with serve(kind, app=app) as server:
        assert server.get("/").status == 200
        assert stopped(server, server.signal()) < PROMPT
        assert ("ValueError: no database" in server.output) == (app == "raising")


def test_a_failing_shutdown_is_logged_and_is_no_failure(kind):
    with serve(kind, app="failing_shutdown") as server:
        stopped(server, server.signal())
        assert "the application's lifespan shutdown failed: cannot flush" in server.output


def test_a_stuck_shutdown_is_cut(kind):
    with serve(kind, "graceful_timeout=1", app="stuck_shutdown") as server:
        assert stopped(server, server.signal()) < 1 + MARGIN


def test_term_during_the_startup(kind):
    with serve(kind, app="slow_startup", ready=False) as server:
        server.wait_for("starting")
        assert stopped(server, server.signal()) < PROMPT
        assert "READY" not in server.output


def test_a_startup_that_takes_too_long_on_hypercorn(hypercorn):
    with serve(hypercorn, "boot_timeout=0.3", app="slow_startup", ready=False) as server:
        assert server.ended() == 3
        assert "did not end within the boot timeout" in server.output


# The drain


def test_an_idle_stop_is_prompt_and_int_is_ignored(kind):
    with serve(kind) as server:
        server.signal(signal.SIGINT)
        assert server.get("/").status == 200
        assert stopped(server, server.signal()) < PROMPT


def test_idle_connections_do_not_hold_the_stop(kind):
    with serve(kind) as server, contextlib.ExitStack() as stack:
        fresh, kept = (stack.enter_context(server.connect()) for _ in range(2))
        send(kept, "/")
        receive(kept)
        assert stopped(server, server.signal()) < PROMPT
        assert (fresh.recv(1), kept.recv(1)) == (b"", b"")


def test_a_request_in_flight_is_answered(kind):
    with serve(kind) as server, server.connect() as client:
        send(client, "/slow?0.7")
        server.wait_for("slow started")
        began = server.signal()
        server.signal()  # a second one changes nothing
        assert receive(client).body == b"slow"
        assert 0.5 < stopped(server, began) < PROMPT
        assert server.lines.index("APP lifespan.shutdown") > server.lines.index("APP slow started")


def test_a_stuck_request_is_cut_within_the_grace_period(kind):
    with serve(kind, "graceful_timeout=2") as server, server.connect() as client:
        send(client, "/slow?1000")
        server.wait_for("slow started")
        assert 1 < stopped(server, server.signal()) < 2 + MARGIN
        assert "APP lifespan.shutdown" in server.output


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "trio" not in kind])
def test_a_request_that_refuses_to_be_cancelled_cannot_hold_the_stop(kind):
    engine, own = KINDS[kind]
    app = ("engine_apps:asgi", *own, "graceful_timeout=1.5")
    with running(engine, *app) as server, server.connect() as client:
        send(client, "/stuck")
        server.wait_for("stuck started")
        assert stopped(server, server.signal()) < 1.5 + MARGIN


def test_the_listener_stays_open_for_other_workers(kind):
    shared = listen()
    others = [another(shared)]
    with serve(kind, listeners=[shared]) as first, serve(kind, listeners=others) as second:
        stopped(first, first.signal())
        assert [second.get("/").status for _ in range(5)] == [200] * 5


def another(listener):
    """One more descriptor of a listener. Not dup(): that makes it blocking, for its workers too."""
    return socket.socket(fileno=os.dup(listener.fileno()))


def hammer(server, done, failures):
    """New connections, one after the other, until done."""
    while not done.is_set():
        try:
            if server.get("/").status != 200:
                failures.append("status")
        except OSError as error:
            failures.append(repr(error))


def test_no_new_connection_is_lost_while_workers_come_and_go(kind):
    """What a worker had accepted before it left is answered, the rest is the next one's."""
    shared, done, failures = listen(), threading.Event(), []
    with serve(kind, listeners=[shared]) as stays:
        clients = [threading.Thread(target=hammer, args=(stays, done, failures)) for _ in range(4)]
        for client in clients:
            client.start()
        try:
            for _ in range(3):
                with serve(kind, listeners=[another(shared)]) as leaves:
                    assert leaves.get("/").status == 200
                    stopped(leaves, leaves.signal())
        finally:
            done.set()
            for client in clients:
                client.join()
        assert failures == []


# TLS and HTTP/2


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"),
    )
    openssl("pkcs8", "-topk8", "-in", "key.pem", "-passout", "pass:secret", "-out", "locked.pem")
    return folder


def tls(authority: Path, key: str = "key.pem") -> tuple[str, str]:
    return f"tls_certificate={authority}/cert.pem", f"tls_key={authority}/{key}"


def trusting(authority: Path, *, identify: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=f"{authority}/cert.pem")
    if identify:
        context.load_cert_chain(f"{authority}/cert.pem", f"{authority}/key.pem")
    return context


def test_tls(kind, authority):
    with serve(kind, *tls(authority)) as server:
        url = f"https://127.0.0.1:{server.port()}"
        with httpx.Client(verify=trusting(authority)) as client:
            assert client.get(url).text == "1.1 https / True"
            assert client.post(f"{url}/echo", content=b"x" * 300_000).content == b"x" * 300_000
            # the client's connection is open and idle, and nobody reads from it
            assert stopped(server, server.signal()) < PROMPT


def test_many_idle_clients_over_tls_do_not_hold_a_stop(kind, authority):
    """Each is due at another moment, so that its end meets every order of the drain's looks."""
    with serve(kind, *tls(authority)) as server, contextlib.ExitStack() as stack:
        context = trusting(authority)
        clients = [context.wrap_socket(server.connect(), server_hostname="127.0.0.1") for _ in range(20)]
        for each in clients:
            stack.enter_context(each)
        began = server.signal()
        for each in clients:
            with contextlib.suppress(OSError):  # closed already, on a slow machine
                each.sendall(b"GET / HTTP/1.1\r\nHost: t\r\n")
            time.sleep(0.01)
        assert stopped(server, began) < PROMPT
        assert "Traceback" not in server.output


def test_a_slow_reader_over_tls_gets_all_of_its_answer(kind, authority):
    """Its connection is closing for a while, and must not be taken for one whose peer doesn't answer."""
    with serve(kind, *tls(authority)) as server:
        raw = server.connect()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        with trusting(authority).wrap_socket(raw, server_hostname="127.0.0.1") as client:
            send(client, "/large")
            client.recv(1)
            if "uvicorn" in kind:  # on hypercorn the application itself waits for the reader
                server.wait_for("large answered")
            began = server.signal()
            received = 1
            while data := client.recv(100_000):
                received += len(data)
                if time.monotonic() - began < 1:
                    time.sleep(0.05)  # slower than the stop's looks
        assert received > 8_000_000
        assert server.ended() == 0


def test_tls_with_a_password_and_client_certificates(kind, authority):
    options = (
        *tls(authority, "locked.pem"),
        "tls_key_password=secret",
        f"tls_client_ca={authority}/cert.pem",
    )
    with serve(kind, *options) as server:
        url = f"https://127.0.0.1:{server.port()}"
        assert httpx.get(url, verify=trusting(authority, identify=True)).status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(url, verify=trusting(authority))


@pytest.mark.parametrize("wrong", ["locked.pem", "missing.pem", "cert.pem"])
def test_unusable_tls_files_are_a_configuration_error(kind, authority, wrong):
    with serve(kind, *tls(authority, wrong), ready=False) as server:
        assert server.ended() == 2
        assert f"{authority}/{wrong} can't be used" in server.output
        assert "Traceback" not in server.output


def test_http2_over_tls(hypercorn, authority):
    with serve(hypercorn, *tls(authority)) as server:
        url = f"https://127.0.0.1:{server.port()}"
        with httpx.Client(verify=trusting(authority), http2=True) as client:
            assert client.get(url).text == "2 https / True"
            assert client.post(f"{url}/echo", content=b"x" * 300_000).content == b"x" * 300_000
            assert stopped(server, server.signal()) < PROMPT


@pytest.mark.parametrize(("http", "chosen"), [("1", "http/1.1"), ("2", "h2"), ("auto", "h2")])
def test_alpn_follows_the_http_setting(authority, http, chosen):
    with serve("hypercorn-asyncio", *tls(authority), f"http={http}") as server:
        context = trusting(authority)
        context.set_alpn_protocols(["h2", "http/1.1"])
        with context.wrap_socket(server.connect(), server_hostname="127.0.0.1") as client:
            assert client.selected_alpn_protocol() == chosen


def h2_get(client: socket.socket, connection: h2.connection.H2Connection, path: str) -> int:
    stream = connection.get_next_available_stream_id()
    headers = [(":method", "GET"), (":path", path), (":scheme", "http"), (":authority", "t")]
    connection.send_headers(stream, headers, end_stream=True)
    client.sendall(connection.data_to_send())
    return stream


def h2_body(client: socket.socket, connection: h2.connection.H2Connection, stream: int) -> bytes:
    body = b""
    while True:
        data = client.recv(65536)
        assert data, "closed before the end of the stream"
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                body += event.data
                connection.acknowledge_received_data(event.flow_controlled_length, stream)
            elif isinstance(event, h2.events.StreamEnded):
                return body
        client.sendall(connection.data_to_send())


def test_h2c_with_prior_knowledge_and_a_drain(hypercorn):
    with serve(hypercorn, "drain_idle=0.6") as server, server.connect() as client:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        connection.initiate_connection()
        assert h2_body(client, connection, h2_get(client, connection, "/")) == b"2 http / True"
        stream = h2_get(client, connection, "/slow?0.5")
        server.wait_for("slow started")
        began = server.signal()
        assert h2_body(client, connection, stream) == b"slow"
        assert stopped(server, began) < PROMPT


def test_uvicorn_refuses_http2():
    with serve("uvicorn-uvloop", "http=2", ready=False) as server:
        assert server.ended() == 2
        assert "uvicorn serves no HTTP/2" in server.output


# hypercorn: worker classes, WSGI, the user's configuration


def test_an_unknown_worker_class_names_the_known_ones():
    with running("hypercorn", "asgi_adapter_apps:app", "worker_class=curio", ready=False) as server:
        assert server.ended() == 2
        assert "worker class 'curio': hypercorn has asyncio, uvloop, trio" in server.output


def wsgi(kind, *settings, **more):
    return running(
        "hypercorn", "engine_apps:wsgi", IDLE, *KINDS[kind][1], *settings, interface="wsgi", **more
    )


def test_wsgi(hypercorn):
    with wsgi(hypercorn) as server:
        assert server.get("/echo", method="POST", body=b"x" * 300_000).body == b"x" * 300_000
        assert server.get("/stream").body == b"0\n1\n2\n3\n4\n"
        assert server.get("/generator").body == b"from a generator"
        assert server.get("/write").body == b"written returned"
        assert server.get("/cookies").all("set-cookie") == ["a=1", "b=2"]
        assert server.get("/echo", method="HEAD").status == 200
        assert server.get("/raise").status == 500
        environ = server.json("/x")
        assert environ["SERVER_PORT"] == str(server.port())
        assert stopped(server, server.signal()) < PROMPT


def test_wsgi_finishes_what_is_in_flight(hypercorn):
    with wsgi(hypercorn) as server, server.connect() as client:
        send(client, "/slow?0.7")
        server.wait_for("slow started")
        server.signal()
        assert receive(client).body == b"slow"
        assert server.ended() == 0


def test_a_stuck_wsgi_thread_cannot_hold_the_stop(hypercorn):
    with wsgi(hypercorn, "graceful_timeout=1") as server, server.connect() as client:
        send(client, "/slow?1000")
        server.wait_for("slow started")
        assert stopped(server, server.signal()) < 1 + MARGIN


def test_wsgi_runs_as_many_requests_as_there_are_threads(hypercorn):
    with wsgi(hypercorn, "threads=2") as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(3)]
        for client in clients:
            send(client, "/slow?0.5")
        began = time.monotonic()
        assert [receive(client).body for client in clients] == [b"slow"] * 3
        assert time.monotonic() - began > 0.9
        assert server.output.count("slow started") == 3


def test_an_empty_wsgi_response(hypercorn):
    own = KINDS[hypercorn][1]
    with running("hypercorn", "asgi_adapter_apps:wsgi_empty", *own, interface="wsgi") as server:
        for method in ("GET", "HEAD"):
            reply = server.get("/", method=method)
            assert (reply.status, reply.headers["x-empty"]) == (204, "yes")


def test_wsgi_is_not_run_with_half_a_body(hypercorn):
    own = KINDS[hypercorn][1]
    with running("hypercorn", "asgi_adapter_apps:wsgi_empty", *own, interface="wsgi") as server:
        with server.connect() as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf")
        assert server.get("/").status == 204
        stopped(server, server.signal())
        assert "ran POST" not in server.output
