"""Rolls under HTTP/2 with many streams on each connection, on the engines that serve it.

A client that honours GOAWAY: it opens no more streams then, expects the answers to those up to the number
that it names, and asks for the others again on another connection.
"""

from __future__ import annotations

import collections
import signal
import socket
import threading

import h2.config
import h2.connection
import h2.errors
import h2.events
import pytest
import traffic
from h2.connection import ConnectionInputs as Input
from h2.connection import ConnectionState as State

ENGINES = {
    "hypercorn-asyncio": {"MOORING_ENGINE": "hypercorn"},
    "hypercorn-trio": {"MOORING_ENGINE": "hypercorn", "MOORING_WORKER_CLASS": "trio"},
    "granian": {"MOORING_ENGINE": "granian", "MOORING_HTTP": "2"},
}
CLIENTS, STREAMS = 6, 16  # connections, and streams at once on each
PATHS = (b"/fast", b"/slow", b"/stream")


class Client(threading.Thread):
    """One connection after the other, with prior knowledge; `failed` is why and how often."""

    def __init__(self, port, end):
        super().__init__(daemon=True)
        self.port, self.end = port, end
        self.right, self.failed, self.goaways = 0, collections.Counter(), 0

    def run(self):
        while not self.end.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self.port), 20) as sock:
                    self.talk(sock)
            except OSError as error:
                self.failed[f"connect: {type(error).__name__}"] += 1

    def talk(self, sock):
        config = h2.config.H2Configuration(client_side=True)
        self.h2, self.sock = h2.connection.H2Connection(config), sock
        # by itself the library takes GOAWAY for the end of the open streams, against RFC 9113, 6.8
        goes_on = {(State.CLIENT_OPEN, Input.RECV_GOAWAY): (None, State.CLIENT_OPEN)}
        self.h2.state_machine._transitions = {**self.h2.state_machine._transitions, **goes_on}
        self.open, self.last, number = {}, None, 0
        self.h2.initiate_connection()
        while True:
            while self.last is None and not self.end.is_set() and len(self.open) < STREAMS:
                number += 1
                self.ask(PATHS[number % len(PATHS)])
            if not self.open:
                return
            try:
                sock.sendall(self.h2.data_to_send())
                data = sock.recv(65536)
            except OSError as error:
                data, why = b"", type(error).__name__
            else:
                why = "closed"
            if not data:
                lost = [each for each in self.open if self.last is None or each <= self.last]
                if lost:
                    self.failed[f"{why}, GOAWAY {'seen' if self.last is not None else 'missing'}"] += len(
                        lost
                    )
                return
            for event in self.h2.receive_data(data):
                self.hear(event)

    def ask(self, path):
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", "GET"), (":path", path.decode()), (":scheme", "http"), (":authority", "t")]
        self.h2.send_headers(stream, head, end_stream=True)
        self.open[stream] = [path, b""]

    def hear(self, event):
        match event:
            case h2.events.DataReceived():
                self.open[event.stream_id][1] += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                path, body = self.open.pop(event.stream_id)
                whole = path[1:] + b" "
                right = (whole + b";") * 8 if path == b"/stream" else whole
                if body == right:
                    self.right += 1
                else:
                    self.failed[f"wrong: {path!r} {body[:40]!r}"] += 1
            case h2.events.StreamReset():
                if event.error_code != h2.errors.ErrorCodes.REFUSED_STREAM:  # RFC 9113, 8.7: not processed
                    self.failed[f"reset: {event.error_code}"] += 1
                self.open.pop(event.stream_id, None)
            case h2.events.ConnectionTerminated():
                self.goaways += 1
                self.last = event.last_stream_id


def rolls(mooring, engine, count):
    source = traffic.APP.replace("asyncio", "trio") if engine.endswith("trio") else traffic.APP
    app = mooring.run("main:app", files={"main.py": source}, workers=2, ACCESS_LOG="", **ENGINES[engine])
    end = threading.Event()
    clients = [Client(app.port, end) for _ in range(CLIENTS)]
    for each in clients:
        each.start()
    for generation in range(2, count + 2):
        app.signal(signal.SIGHUP)
        app.wait_log(f"rolled: generation {generation} serves")
        app.wait_ready(2)
    end.set()
    for each in clients:
        each.join(30)
    right = sum(each.right for each in clients)
    failed = sum((each.failed for each in clients), collections.Counter())
    goaways = sum(each.goaways for each in clients)
    print(f"{engine}: {count} rolls, {right} streams right, failed: {dict(failed)}, GOAWAY {goaways}")
    assert app.stop() == 0
    return right, failed, goaways


@pytest.mark.parametrize("engine", ENGINES)
def test_rolls_with_many_streams(mooring, engine):
    right, failed, goaways = rolls(mooring, engine, 3)
    assert goaways
    assert failed.total() == 0, failed
    assert right > 100
