"""A client that leaves is seen by the application, and nothing streams on for nobody."""

from __future__ import annotations

import json
import re
import socket
import struct

from harness import eventually
from served import Served
from variants import asgi_only, everywhere


def leave(wire) -> None:
    """As a client that is killed: the kernel sends a reset."""
    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.close()


def told(mark) -> str:
    return eventually(lambda: mark.exists() and mark.read_text(), "the application's mark")


@asgi_only
def test_a_waiting_application_is_told(served: Served, tmp_path):
    wire = served.wire()
    wire.send(f"/leave?mark={tmp_path / 'mark'}")
    served.app.wait_log(f"waiting {tmp_path}")
    wire.close()
    assert told(tmp_path / "mark") == "http.disconnect"
    # It has returned without an answer, for which nobody is there.
    line = eventually(
        lambda: re.search(rf"/leave\?mark={tmp_path}/mark HTTP/1.1\" (\d+)", served.app.stdout), "its line"
    )
    assert line[1] == ("500" if served.variant.engine == "hypercorn" else "499")  # docs/how-to/access-log.md
    with served.wire() as other:
        assert other.ask("/cookies").body == b"two"


@everywhere
def test_a_stream_stops(served: Served, tmp_path):
    wire = served.wire()
    wire.send(f"/endless?mark={tmp_path / 'mark'}")
    assert wire.head()[0] == 200
    assert wire.file.read(1000)
    leave(wire)
    assert told(tmp_path / "mark").startswith("stopped after")
    with served.wire() as other:
        assert other.ask("/cookies").body == b"two"


@everywhere
def test_half_a_request_harms_nobody(served: Served):
    with served.wire() as wire:
        pid = json.loads(wire.ask("/scope").body)["pid"]
    for half in (b"GET /sco", b"POST /digest HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf"):
        with served.wire() as wire:
            wire.write(half)
    with served.wire() as wire:
        assert json.loads(wire.ask("/scope").body)["pid"] == pid


@everywhere
def test_what_is_no_http_is_refused_and_closed(served: Served):
    with served.wire() as wire:
        wire.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 is no request\r\n\r\n")
        answer = wire.rest()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


@everywhere
def test_both_a_length_and_chunks_are_refused_or_the_chunks_count(served: Served):
    """RFC 9112, 6.3: what request smuggling lives on."""
    with served.wire() as wire:
        wire.write(
            b"POST /digest HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n0\r\n\r\n"
        )
        reply = wire.reply()
    assert reply.status == 400 or json.loads(reply.body)["size"] == 5
