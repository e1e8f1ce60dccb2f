"""What uvicorn's HTTP/1 protocol reads, and when: so much as is worked on, and no more.

By itself uvicorn 0.54 parses all that was read at once, some 14,000 pipelined requests in 256 KiB, and reads
on after each of their responses; uvloop reads up to 32 times before another connection has its turn. Nothing
here is on the path of a usual request. For httptools.py alone.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl

Owner = Any  # a LimitedHttpToolsProtocol of httptools.py, which imports this file

SLICE, ALL = 8 * 1024, -1  # bytes that are parsed at once; what stands for: look at all that comes
_TURN = 0.005  # seconds after which others have their turn: a chunk of a byte takes long
_QUEUE = 16  # requests that wait: with so many, nothing more is read
_SHARE = 8  # a long head is parsed in parts of this share of it, since httptools copies a field at each

_UPGRADE = re.compile(rb"(?:^|,)[ \t]*upgrade[ \t]*(?:,|$)", re.IGNORECASE)
_AUTHORITY = re.compile(rb"[a-z][a-z0-9+.-]*://([^/?#]*)")

Headers = Iterable[tuple[bytes, bytes]]


class Flow(FlowControl):
    """Reads on after a pause as soon as few requests wait: uvicorn asks for it after each response."""

    def __init__(self, transport: asyncio.Transport, owner: Owner) -> None:
        super().__init__(transport)
        self._owner, self._asked = owner, False

    def resume_reading(self) -> None:
        """As uvicorn's, but once the next request that waits has begun."""
        if not self.read_paused:
            return
        portions = self._owner.portions
        if not (self._owner.pipeline or (portions is not None and portions.rest)):
            super().resume_reading()
        else:
            self.take_turns()

    def take_turns(self) -> None:
        """Go on behind what the loop has to do for others."""
        if not self._asked:
            self._asked = True
            self._owner.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._asked, owner = False, self._owner
        if self._transport.is_closing():
            return
        if owner.refusal is None:
            if len(owner.pipeline) >= _QUEUE:
                return
            self.read_paused = False  # what is parsed now may pause it again
            if owner.portions is not None:
                owner.portions.work()
            if self.read_paused:
                return
        self.read_paused = False
        self._transport.resume_reading()


class Portions:
    """What was read and is parsed bit by bit: much at once, behind requests that wait, or a long head."""

    def __init__(self, owner: Owner) -> None:
        self.rest = bytearray()
        self._owner, self._working = owner, False

    def take(self, data: bytes | memoryview) -> None:
        """Parse what may be parsed; keep the rest."""
        if self._working:
            self.rest[:0] = data  # the parser has stopped before the end of its portion
        elif not self.rest and self._known() >= len(data):
            self._owner.data_received(data, portion=True)
        else:
            self.rest += data
            self.work()

    def work(self) -> None:
        """Parse what is there until too many requests wait."""
        owner, rest = self._owner, self.rest
        if self._working:
            return
        self._working, clock = True, owner.loop.time
        end = clock() + _TURN
        while rest and len(owner.pipeline) < _QUEUE and not self._waits():
            known = self._known()
            size = known if known >= SLICE else max(SLICE, owner.unfinished // _SHARE)
            data = bytes(memoryview(rest)[:size])
            del rest[:size]
            owner.data_received(data, portion=True)
            if _is_over(owner):
                rest.clear()
            if clock() >= end:
                break
        self._working = False
        owner.whole = ALL if rest or owner.unfinished > SLICE else min(SLICE, owner.max_head)
        if len(owner.pipeline) >= _QUEUE:
            owner.flow.pause_reading()
        elif clock() >= end and not owner.flow.read_paused and not _is_over(owner):
            owner.flow.pause_reading()
            owner.flow.take_turns()

    def _waits(self) -> bool:
        """Whether this is a small part of a long head's field."""
        owner, rest = self._owner, self.rest
        scope: Any = owner.scope
        if scope is None or "method" in scope or len(rest) * _SHARE >= owner.unfinished:
            return False
        return owner.unfinished > SLICE and b"\n" not in rest

    def _known(self) -> int:
        """So many bytes certainly belong to the body of the last request."""
        owner = self._owner
        if not owner.length or owner.cycle is None or not owner.cycle.more_body:
            return 0
        known: int = int(owner.length) + owner.began - owner.taken
        return max(0, known)


def _is_over(owner: Owner) -> bool:
    return owner.refusal is not None or owner.upgrading or owner.transport.is_closing()


class Trailers(list[tuple[bytes, bytes]]):
    """Where the fields behind a body go: nowhere."""

    def append(self, field: tuple[bytes, bytes]) -> None:
        """Drop it."""


class Body:
    """Has a new parser go on behind a head: with the body that `field` describes, if there is one."""

    def __init__(self, owner: Owner, field: bytes) -> None:
        self._begun = False
        self.on_body, self.on_message_complete = owner.on_body, owner.on_message_complete
        self._owner = owner
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(b"POST / HTTP/1.1\r\n" + field + b"\r\n\r\n")

    def on_message_begin(self) -> None:
        """Of the next request."""
        if self._begun:
            self._owner.on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Of the next request."""
        if self._begun:
            self._owner.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of the next request, or a trailer."""
        if self._begun:
            self._owner.on_header(name, value)

    def on_headers_complete(self) -> None:
        """The first time: of the head that `field` is from."""
        if self._begun:
            self._owner.on_headers_complete()
        self._begun = True


def framing_of(headers: Headers) -> bytes:
    """The field of a request that says how long its body is; empty if there is none."""
    for name, value in headers:
        if name in (b"content-length", b"transfer-encoding"):
            return name + b": " + value
    return b""


def asks_upgrade(headers: Headers) -> bytes | None:
    """The Upgrade field's value, if a Connection field names it."""
    asked, upgrade = False, None
    for name, value in headers:
        if name == b"connection":
            asked = asked or _UPGRADE.search(value) is not None
        elif name == b"upgrade":
            upgrade = value.lower()
    return upgrade if asked else None


def other_host(target: bytes, headers: Headers) -> bool:
    """Whether a target names a host, and the Host field another one: RFC 9112, 3.2.2."""
    found = _AUTHORITY.match(target.lower())
    if found is None:
        return False
    return any(name == b"host" and _plain(value.lower()) != _plain(found[1]) for name, value in headers)


def _plain(host: bytes) -> bytes:
    return host.removesuffix(b":80").removesuffix(b":443")
