"""The WebSockets of gunicorn's own ASGI worker: silent clients, and what a mask costs."""

from __future__ import annotations

import asyncio
import logging
import os
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.asgi import websocket as module

from mooring.engines.common import websockets
from mooring.engines.gunicorn import asgi_websocket

ORIGINAL = module.WebSocketProtocol


class Transport:
    def __init__(self) -> None:
        self.sent, self.closed = b"", asyncio.Event()

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed.set()

    abort = pause_reading = resume_reading = close


@pytest.fixture
def refused(monkeypatch):
    told: list[tuple[str, object, str]] = []
    monkeypatch.setattr(module, "WebSocketProtocol", ORIGINAL)
    monkeypatch.setattr(websockets, "PING", 0.05)
    serving: Any = SimpleNamespace(refused=lambda *told_of: told.append(told_of))
    asgi_websocket.install(serving)
    return told


async def application(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


def websocket(transport: Transport) -> Any:
    scope = {"headers": [(b"sec-websocket-key", b"x" * 24)], "client": ("192.0.2.1", 1)}
    return module.WebSocketProtocol(transport, scope, application, logging.getLogger("test"))


def test_a_client_that_answers_no_ping_is_closed(refused):
    async def scenario() -> bytes:
        transport = Transport()
        running = asyncio.ensure_future(websocket(transport).run())
        async with asyncio.timeout(20):
            await transport.closed.wait()
            await running
        return transport.sent

    sent = asyncio.run(scenario())
    assert b"\x89\x00" in sent  # a ping
    assert b"\x03\xf3" in sent  # 1011
    assert refused == [("websocket", ("192.0.2.1", 1), "no answer to a ping")]


def test_a_client_that_answers_stays(refused, monkeypatch):
    monkeypatch.setattr(websockets, "PING", 0.5)  # a busy machine may take its time for the answer

    async def scenario() -> None:
        transport = Transport()
        each = websocket(transport)
        running = asyncio.ensure_future(each.run())
        answered = 0
        async with asyncio.timeout(60):
            while answered < 3:
                if transport.sent.endswith(b"\x89\x00"):
                    transport.sent, answered = b"", answered + 1
                    each.feed_data(b"\x8a\x80\0\0\0\0")
                await asyncio.sleep(0.001)
        assert not transport.closed.is_set()
        each.feed_eof()
        await running

    asyncio.run(scenario())
    assert refused == []


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 1000, 65537])
def test_a_mask_is_taken_off(refused, size):
    payload, key = os.urandom(size), os.urandom(4)
    each: Any = module.WebSocketProtocol
    found = each._unmask(None, payload, key)
    assert found == bytes(b ^ key[i % 4] for i, b in enumerate(payload))
