"""Every kind of listener at once on every engine, and the application published under a path.

One server for each variant: TCP on IPv4 and IPv6, a unix socket, an inherited descriptor, systemd's
activation; MOORING_ROOT_PATH=/api.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator

import pytest
from served import Served
from variants import ALL, APPS, ASGI, WSGI, Variant
from websockets.sync.client import unix_connect
from wire import seen

IPV4, IPV6, UNIX, FD, SYSTEMD = range(5)
KINDS = ("IPv4", "IPv6", "unix", "fd", "systemd")

# What systemd does between fork and exec: sd_listen_fds(3). And a parent's own descriptor, as number 7.
ACTIVATE = """
import fcntl, os, sys
kept, activated = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 50) for fd in sys.argv[1:3])
os.dup2(activated, 3)
os.dup2(kept, 7)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="web")
os.execvp(sys.argv[3], sys.argv[3:])
"""


@pytest.fixture(scope="module")
def published(request, shared) -> Iterator[Served]:
    with shared() as starter, socket.socket() as kept, socket.socket(socket.AF_UNIX) as activated:
        kept.bind(("127.0.0.1", 0))
        kept.listen()
        activated.bind(str(starter.base / "activated.sock"))
        activated.listen()
        fds = (kept.fileno(), activated.fileno())
        yield Served.start(
            starter,
            request.param,
            prefix=[sys.executable, "-c", ACTIVATE, *map(str, fds)],
            options={"cwd": APPS / "plain", "pass_fds": fds},
            MOORING_BIND=f"127.0.0.1:0,[::1]:0,unix:{starter.base}/app.sock,fd://7,systemd",
            MOORING_ROOT_PATH="/api",
        )


def published_by(variants: list[Variant]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("published", variants, indirect=True, scope="module", ids=str)


@published_by(ALL)
def test_every_listener_is_printed_with_the_port_that_was_chosen(published: Served):
    ipv4, ipv6, unix, kept, activated = published.app.urls
    assert ipv4.startswith("http://127.0.0.1:")
    assert ipv6.startswith("http://[::1]:")
    assert unix.startswith("unix:/")
    assert kept.startswith("http://127.0.0.1:")
    assert activated.endswith("/activated.sock")
    assert not any(url.endswith(":0") for url in (ipv4, ipv6, kept))


@published_by(ALL)
@pytest.mark.parametrize("listener", range(len(KINDS)), ids=KINDS.__getitem__)
def test_requests_are_answered_on_every_listener(published: Served, listener: int):
    for _ in range(2):
        with published.wire(listener) as wire:
            assert wire.ask("/cookies").body == b"two"


@published_by(ALL)
def test_an_ipv6_client_has_its_address(published: Served):
    with published.wire(IPV6) as wire:
        assert seen(wire.ask("/scope"))["client"][0] == "::1"


@published_by(ALL)
@pytest.mark.parametrize("listener", [UNIX, SYSTEMD], ids=KINDS.__getitem__)
def test_a_proxy_on_a_unix_socket_is_trusted(published: Served, listener: int):
    headers = [("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "https")]
    with published.wire(listener) as wire:
        scope = seen(wire.ask("/scope", headers=headers))
    assert (scope["client"][0], scope["scheme"]) == ("203.0.113.7", "https")


@published_by(ALL)
def test_a_client_on_a_unix_socket_is_called_unix_in_the_access_log(published: Served):
    with published.wire(UNIX) as wire:
        wire.ask("/scope?over-unix")
    assert published.app.wait_log("/scope?over-unix").startswith("unix - - [")


@published_by(ASGI)
@pytest.mark.parametrize(
    ("sent", "path"),
    [
        ("/scope", "/api/scope"),  # the proxy has taken the prefix off
        ("/api/scope", "/api/scope"),  # or has left it
        ("/apiary/scope", "/api/apiary/scope"),
        ("/gr%C3%BC%C3%9Fe/scope", "/api/grüße/scope"),
    ],
)
def test_an_asgi_application_sees_its_root_path_and_the_whole_path(published: Served, sent: str, path: str):
    with published.wire() as wire:
        scope = seen(wire.ask(sent))
    assert (scope["root_path"], scope["path"]) == ("/api", path)
    assert scope["raw_path"] == (sent if sent.startswith("/api/") else "/api" + sent)


@published_by(WSGI)
@pytest.mark.parametrize(
    ("sent", "path"),
    [("/scope", "/scope"), ("/api/scope", "/scope"), ("/apiary/scope", "/apiary/scope"), ("/api", "")],
)
def test_a_wsgi_application_sees_script_name_and_the_rest(published: Served, sent: str, path: str):
    with published.wire() as wire:
        environ = seen(wire.ask(sent))
    assert (environ["root_path"], environ["path"]) == ("/api", path)


@published_by(ASGI)
def test_websockets_are_served_over_a_unix_socket_and_see_the_root_path(published: Served):
    path = published.app.urls[UNIX].removeprefix("unix:")
    with unix_connect(path, "ws://test/scope") as sock:
        scope = json.loads(sock.recv())
    assert (scope["root_path"], scope["path"]) == ("/api", "/api/scope")
