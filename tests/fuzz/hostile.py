"""Requests that misuse the accelerator: each method of their objects does something to what C is working on.

`World(seed).request()` makes one request, on ASGI, WSGI or granian, or makes objects of the accelerator's
from odd arguments. What must come of it is nothing: no crash, no report of a sanitizer, and a row and a ring
that hold only what they may. Usage: python tests/fuzz/hostile.py [--requests NUMBER] [--seed NUMBER]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import logging
import os
import random
import struct
import sys
import time
import warnings
from collections import deque
from types import SimpleNamespace

from mooring.engines.granian import wsgi as granian
from mooring.instrument.asgi import wrap_asgi
from mooring.instrument.drain import DrainState
from mooring.instrument.meter import Lines, Meter
from mooring.instrument.wsgi import wrap_wsgi
from mooring.logs.access.line import formatter
from mooring.scoreboard import accelerator
from mooring.scoreboard.row import BUCKETS, HISTOGRAM, PLACES, ROW_BYTES, Row

PAGE, SIZE = 4096, 16384
UNUSED = range(HISTOGRAM + BUCKETS, PLACES.start)  # cells of a row that nobody writes
MARK = -7.25
SIZES = (0, 1, -1, 2**16, 2**62, 2**63 - 1, -(2**63), 2**63, 10**30)
KEYS = (
    *(
        "type",
        "body",
        "more_body",
        "status",
        "path",
        "client",
        "method",
        "headers",
        "http_version",
        "RAW_URI",
    ),
    *("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_METHOD", "SERVER_PROTOCOL", "REMOTE_ADDR"),
    *(
        "HTTP_HOST",
        "HTTP_REFERER",
        "HTTP_USER_AGENT",
        "HTTP_X_FORWARDED_FOR",
        "wsgi.file_wrapper",
        "CONTENT_LENGTH",
    ),
)
HEADERS = ("Content-Length", "content-length", "Connection", "X-More", "\xe4")
PLAIN = (
    *(None, True, False, b"", b"bytes", "", "text", "\ud800", "\xe4" * 300, b"/" * 5000, 3.5, float("nan")),
    *(
        200,
        404,
        999,
        "200 OK",
        "404",
        "HTTP/1.1",
        "GET",
        "HEAD",
        "/x?y",
        b"/x",
        (),
        memoryview(b"xyz"),
        len,
        int,
    ),
    *(
        ("-", "-", []),
        ("a", "b", [(b"x", b"y")]),
        ((b"user-agent", b"x"),),
        ("127.0.0.1", 5),
        struct.Struct("d"),
    ),
)
PARTS = (b"", b"abc", b"abc", b"abc", b"x" * 900, bytearray(b"ab"), memoryview(b"abcdef")[::2])


class Oddity(Exception):
    """What odd objects raise."""


class World:
    """One worker's row, ring and wrappers, and a source of odd objects."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.memory, self.ring = bytearray(ROW_BYTES), bytearray(PAGE + SIZE)
        self.row = Row(memory=memoryview(self.memory))
        for cell in UNUSED:
            self.row.cells[cell] = MARK
        self.wake = os.eventfd(0, os.EFD_NONBLOCK)
        self.write = accelerator.c.Writer(self.ring, self.wake, PAGE, SIZE, SIZE // 4, 0.001)
        self.prey: list = []  # exchanges, environs, callables: what odd objects reach for
        self.depth = 0
        self.drains = [DrainState(), DrainState()]
        self.drains[1].begin()
        self.application = None
        self.asgi = [
            self._asgi(form) for form in ("combined", "common", "uvicorn", "%(h)s %({x-y}i)s %(U)s", "")
        ]
        self.wsgi = [
            self._wsgi(form) for form in ("combined", "common", "json", "%(h)s %({x-y}o)s %(u)s", "")
        ]
        self.granian = granian.handler(lambda environ, start: self.application(environ, start), set(), 2)
        self.made = 0

    def _meter(self, form: str) -> Meter:
        wanted = self.rng.choice([None, lambda path, status: self.strike() or status < 400])
        lines = Lines(formatter(form), self.write, wanted, "-") if form else None
        return Meter(self.row, lines, self.rng.choice(self.drains))

    def _asgi(self, form: str):
        identify = self.rng.choice(
            [None, lambda scope: ("id", "trace", self.rng.choice([[], [(b"x", b"y")]]))]
        )
        prepare = self.rng.choice([lambda scope: None, lambda scope: self.strike()])
        return wrap_asgi(
            lambda scope, receive, send: self.application(scope, receive, send),
            prepare,
            "",
            self._meter(form),
            identify,
        )

    def _wsgi(self, form: str):
        identify = self.rng.choice(
            [None, lambda environ: ("id", "trace", self.rng.choice([[], [("x", "y")]]))]
        )
        prepare = self.rng.choice([lambda environ: None, lambda environ: self.strike()])
        return wrap_wsgi(
            lambda environ, start: self.application(environ, start), prepare, "", self._meter(form), identify
        )

    # -- what odd objects do ---------------------------------------------------------------------------

    def strike(self) -> None:
        """Do something that C does not expect in the middle of its work."""
        if self.depth > 3:
            return
        self.depth += 1
        try:
            self._strike(self.rng.randrange(24))
        finally:
            self.depth -= 1

    def _strike(self, how: int) -> None:
        rng = self.rng
        prey = rng.choice(self.prey) if self.prey else None
        if how == 0:
            raise rng.choice(
                [Oddity, ValueError, KeyError, TypeError, AttributeError, MemoryError, StopIteration]
            )
        if how == 1:
            gc.collect(rng.choice([0, 0, 0, 1, 2]))
        elif how in (2, 3) and hasattr(prey, "clear"):
            prey.clear()
        elif how in (4, 5, 6) and isinstance(prey, list) and prey:
            prey[rng.randrange(len(prey))] = self.thing()
        elif how == 7 and isinstance(prey, list):
            prey.append(self.thing())
        elif how in (8, 9, 10) and isinstance(prey, dict):
            prey.pop(rng.choice(KEYS), None)
        elif how in (11, 12) and isinstance(prey, dict):
            prey[rng.choice(KEYS)] = self.thing()
        elif how in (13, 14) and isinstance(prey, dict):
            prey.pop(name := rng.choice(KEYS), None)
            prey[OddText(name, self)] = self.thing()
        elif how in (15, 16) and callable(prey):
            prey(*(self.thing() for _ in range(rng.randrange(4))))
        elif how == 17 and hasattr(prey, "close"):
            prey.close()
        elif how == 18:
            self.request()

    def thing(self):
        """Any object at all."""
        rng = self.rng
        if rng.random() < 0.6:
            return rng.choice(PLAIN)
        kind = rng.randrange(7)
        if kind == 0:
            return rng.choice(SIZES)
        if kind == 1:
            return rng.choice(PLACES) + rng.choice([0, 0, 1, 7, 15, -16])
        if kind == 2:
            return OddText(rng.choice(KEYS), self)
        if kind == 3:
            return OddList([b"x", bytearray(b"y")], self)
        if kind == 4:
            return OddDict({"type": "http.response.body", "body": b"x"}, self)
        return Odd(self)

    def _part(self):
        return self.thing() if self.rng.random() < 0.1 else self.rng.choice(PARTS)

    def _maybe(self, usual):
        return usual if self.rng.random() < 0.85 else self.thing()

    # -- requests --------------------------------------------------------------------------------------

    def request(self) -> None:
        """One request of any kind."""
        self.made += 1
        kind = self.rng.choice(
            [self._on_asgi, self._on_asgi, self._on_wsgi, self._on_wsgi, self._on_granian, self._bare]
        )
        before, applied = len(self.prey), self.application
        try:
            kind()
        except (Exception, SystemExit):
            pass
        finally:
            del self.prey[before:]
            self.application = applied

    def _dict(self, usual: dict) -> dict:
        rng = self.rng
        made = {
            (key if rng.random() < 0.97 else OddText(key, self)): self._maybe(value)
            for key, value in usual.items()
            if rng.random() < 0.97
        }
        return made if rng.random() < 0.97 else OddDict(made, self)

    def _message(self):
        rng = self.rng
        kind = rng.choice(
            ["http.response.start", "http.response.body", "http.response.body", "http.response.pathsend"]
        )
        usual = {
            "http.response.start": {
                "type": kind,
                "status": rng.randrange(100, 600),
                "headers": [(b"a", b"b")],
            },
            "http.response.body": {"type": kind, "body": self._part(), "more_body": rng.random() < 0.4},
            "http.response.pathsend": {"type": kind, "path": "/etc/hostname"},
        }[kind]
        return self._dict(usual)

    def _on_asgi(self) -> None:
        rng = self.rng
        scope = self._dict(
            {
                "type": "http",
                "method": rng.choice(["GET", "HEAD", "BREW"]),
                "path": "/items",
                "raw_path": rng.choice([b"/items", b'/\xff\n"', b"/" * 3000]),
                "query_string": rng.choice([b"", b"q=1"]),
                "http_version": "1.1",
                "client": rng.choice([("127.0.0.1", 5000), ["::1", 1], None, ("\n", 1), ("",), ()]),
                "headers": rng.choice(
                    [[(b"user-agent", b"curl"), (b"referer", b'x"\n')], ((b"referer", b"y"),)]
                ),
            }
        )
        if not isinstance(scope.get("type"), str) or scope["type"] != "http":
            scope["type"] = "http"
        raising = rng.random() < 0.1

        async def application(scope, receive, send):
            exchange = getattr(send, "__self__", None)
            self.prey += [exchange, scope, send]
            for _ in range(rng.randrange(4)):
                if rng.random() < 0.2:
                    self.strike()
                message = self._message() if rng.random() < 0.95 else self.thing()
                self.prey.append(message)
                await send(message)
            if raising:
                raise Oddity

        async def send(message):
            if rng.random() < 0.05:
                self.strike()

        self.application = application
        running = rng.choice(self.asgi)(scope, None, send)
        with contextlib.suppress(StopIteration):
            running.send(None)
        running.close()

    def _environ(self) -> dict:
        rng = self.rng
        usual = {
            "REQUEST_METHOD": rng.choice(["GET", "HEAD", "BREW"]),
            "SCRIPT_NAME": rng.choice(["", "/root", "/\xe4"]),
            "PATH_INFO": rng.choice(["/", "/items", '/\xff\n"', "/" * 3000, "/\u0434"]),
            "QUERY_STRING": rng.choice(["", "q=1", "\xe4"]),
            "SERVER_PROTOCOL": rng.choice(["HTTP/1.1", "HTTP/2", "H"]),
            "REMOTE_ADDR": rng.choice(["127.0.0.1", "", "\n", "::1"]),
            "HTTP_USER_AGENT": rng.choice(["curl", '"\n\\', "\xe4"]),
            "HTTP_HOST": rng.choice(["x", ""]),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(b"body"),
        }
        for name, value in (("RAW_URI", "/raw?q"), ("HTTP_REFERER", "r"), ("CONTENT_LENGTH", "4")):
            if rng.random() < 0.2:
                usual[name] = value
        if rng.random() < 0.2:
            usual["wsgi.file_wrapper"] = rng.choice([Wrapper, OddType, len])
        return self._dict(usual)

    def _fields(self):
        rng = self.rng
        return [
            self._maybe(
                (self._maybe(rng.choice(HEADERS)), self._maybe(rng.choice(["3", "0", "x", "9" * 30])))
            )
            for _ in range(rng.randrange(3))
        ]

    def _body(self):
        rng = self.rng
        parts = [self._part() for _ in range(rng.randrange(4))]
        kind = rng.randrange(7)
        if kind == 0:
            return self.thing()
        if kind == 1:
            return OddList(parts, self)
        if kind == 2:
            return Wrapper(Odd(self))
        if kind == 3:
            return Stream(parts, self)
        return parts if kind < 6 else (self.strike() or part for part in parts)

    def _wsgi_application(self, environ, start_response):
        rng = self.rng
        self.prey += [environ, start_response]
        for _ in range(rng.choice([1, 1, 1, 0, 2])):
            status = self._maybe(rng.choice(["200 OK", "404 Not Found", "20", OddText("200 OK", self)]))
            arguments = [
                status,
                self._maybe(self._fields()),
                self._maybe(rng.choice([None, (None, None, None)])),
            ]
            write = start_response(*arguments[: rng.choice([2, 2, 3])])
            if callable(write):
                self.prey.append(write)
                if rng.random() < 0.2:
                    write(self._part())
        if rng.random() < 0.05:
            raise Oddity
        body = self._body()
        self.prey.append(body)
        return body

    def _on_wsgi(self) -> None:
        rng = self.rng
        self.application = self._wsgi_application

        def start_response(*arguments):
            if rng.random() < 0.05:
                self.strike()
            return rng.choice([None, lambda data: self.strike() if rng.random() < 0.1 else None])

        body = rng.choice(self.wsgi)(self._environ(), start_response)
        self.prey.append(body)
        try:
            for _ in zip(range(rng.choice([9, 1])), body, strict=False):
                if rng.random() < 0.1:
                    self.strike()
        finally:
            getattr(body, "close", int)()

    def _on_granian(self) -> None:
        self.application = self._wsgi_application
        self.granian(Protocol(self), self._environ())

    # -- the accelerator's own objects -----------------------------------------------------------------

    def _bare(self) -> None:
        self.rng.choice([self._use_row, self._use_row, self._use_ring, self._construct])()

    def _use_row(self) -> None:
        rng, data = self.rng, bytearray(rng_choice(self.rng, (8192, 4096, 8191, 64)))
        cells = [rng.choice([0, 1, 5, 100, 500, 1000, *rng.sample(SIZES, 2)]) for _ in range(9)]
        if rng.random() < 0.6:  # one that fits
            cells = [0, 40, 41, 42, 43, 44, 45, 50, 50 + 16 * 8]
        memory = memoryview(data)[rng.choice([0, 0, 0, 1, 8]) :]
        bounds = tuple(self._maybe(each / 4) for each in range(rng.choice([0, 3, 20])))
        row = accelerator.c.Row(memory, bounds, *cells, rng.choice([16, 16, 16, 17, 8, *SIZES]), None)
        for _ in range(rng.randrange(12)):
            act = rng.randrange(4)
            with contextlib.suppress(Exception):
                if act == 0:
                    row.begin(self._maybe(8), self._maybe(b"/" * rng.randrange(200)), self._maybe(1.5))
                elif act == 1:
                    row.end(self._maybe(rng.choice([0, 50, 51, 66, 82, 170, 178, *SIZES])))
                elif act == 2:
                    numbers = (
                        self._maybe(rng.choice([3, 60, *SIZES])),
                        self._maybe(rng.choice([200, -1, *SIZES])),
                    )
                    row.count(
                        *numbers, self._maybe(0.5), self._maybe(True), self._maybe(rng.choice([0, 50, 55]))
                    )
                else:
                    memory[40:-8] = bytes(rng.choices([0, 1, 127, 255], k=len(memory[40:-8])))
                    row.in_flight()

    def _use_ring(self) -> None:
        rng = self.rng
        memory = memoryview(bytearray(rng_choice(rng, (8192, 4096, 8191))))[rng.choice([0, 0, 0, 1, 8]) :]
        page, size, full = (
            self._maybe(rng.choice([each, *rng.sample(SIZES, 1)])) for each in (128, 3000, 100)
        )
        write = accelerator.c.Writer(memory, self.wake, page, size, full, self._maybe(0.0))
        for _ in range(rng.randrange(12)):
            with contextlib.suppress(Exception):
                write(self._maybe(b"x" * rng.choice([0, 1, 100, 2900, 5000])), self._maybe(rng.random()))
                if rng.random() < 0.3:
                    struct.pack_into(
                        "d", memory, rng.choice([0, 64]), rng.choice([0.0, 50.0, 1e300, -1.0, 2.0**53])
                    )

    def _construct(self) -> None:
        rng, c = self.rng, accelerator.c
        row = accelerator.row(self.row, self.write)
        given = [self._maybe(frozenset()), self._maybe({}), None, self._maybe({}), None, Odd(self), Odd(self)]
        asgi = lambda: c.Asgi(row, *([None] * 7), "-", *given)  # noqa: E731
        nothing = self._maybe(("-", "-", []))
        wsgi = lambda: c.Wsgi(  # noqa: E731
            *(row, self._wsgi_application, self.drains[0], None, None, Odd(self), {}, 8, nothing),
            *(self._maybe(lambda environ: self.thing()), lambda status: self.thing(), None, None, None),
            *(
                lambda *_: self.thing(),
                lambda *_: self.strike(),
                None,
                "-",
                frozenset(["GET"]),
                Odd(self),
                Odd(self),
            ),
        )
        line = lambda: c.Apache(row, Odd(self), Odd(self))  # noqa: E731
        made = rng.choice([asgi, wsgi, wsgi, line, self._requests])()
        if made is None:
            return
        if isinstance(made, c.Apache):
            status, size, took = self._maybe(200), self._maybe(5), self._maybe(0.5)
            made.put(
                ("h", 1, "GET", self._maybe("/"), "1.1", status, size, took, "-", "-", "-", "-", None),
                self._maybe(1.0),
            )
        elif isinstance(made, c.Wsgi):
            made(self._environ(), lambda *_: None)
        else:
            exchange = [self.thing() for _ in range(11)]
            self.prey.append(exchange)
            with contextlib.suppress(Exception):
                made.sending(exchange, self._message())
            made.finish(exchange, self._maybe(500), rng.random() < 0.5)

    def _requests(self) -> None:
        rng = self.rng
        odd = lambda *_: self.thing()  # noqa: E731
        answer = lambda exchange, environ: exchange.response_bytes(200, self._maybe(self._fields()), b"x")  # noqa: E731
        schedule = accelerator.c.Requests(
            answer, self._maybe(2), 100, deque(), set(), self._maybe({1: 2}), odd, odd, odd, odd, odd, odd
        )
        path = rng.choice([b"/", b"/%", b"/%4", b"/%41%zz%ff", b"%" * 300, b"/x_y"])
        fields = [
            (b"x-y", b"\xff"),
            (b"cookie", b"a"),
            (b"cookie", b"b"),
            (b"content-length", b"4"),
            (b"a_b", b""),
        ]
        scope = {
            "http_version": "1.1",
            "raw_path": self._maybe(path),
            "query_string": self._maybe(rng.choice([b"", b"q"])),
            "headers": [self._maybe(rng.choice(fields)) for _ in range(rng.randrange(5))],
            "server": self._maybe(("h", 1)),
            "client": self._maybe(("h", "1")),
            "method": "GET",
            "scheme": self._maybe("http"),
        }
        self.prey.append(scope["headers"])
        schedule(SimpleNamespace(proto=SimpleNamespace(send=odd), scope=self._maybe(scope)))

    # -- what must hold ---------------------------------------------------------------------------------

    def check(self) -> None:
        """What may be in the row and in the ring. Empties the ring."""
        assert all(self.row.cells[cell] == MARK for cell in UNUSED), "the row: a cell that nobody has"
        assert not any(self.memory[PLACES.stop * 8 :]), "the row: beyond the table"
        for place in PLACES:
            assert self.row.cells[place] >= 0, f"the table: {self.row.cells[place]} at {place}"
        head, tail = struct.unpack_from("d", self.ring, 0)[0], struct.unpack_from("d", self.ring, 64)[0]
        assert 0 <= tail <= head <= tail + SIZE, "the ring's cells"
        at, size = int(tail) % SIZE, int(head - tail)
        found = bytes((self.ring[PAGE:] * 2)[at : at + size])
        assert not found or found.endswith(b"\n"), f"the ring: no whole line: {found[-80:]!r}"
        bad = [line for line in found.split(b"\n") if line and not line.decode().isprintable()]
        assert not bad, f"the ring: {bad[0]!r}"
        struct.pack_into("d", self.ring, 64, head)


def rng_choice(rng: random.Random, usual):
    """The first mostly, else any."""
    return usual[0] if rng.random() < 0.7 else rng.choice(usual)


class Odd:
    """An object with every method that C may call."""

    def __init__(self, world: World) -> None:
        self.world = world

    def _size(self) -> int:
        self.world.strike()
        return self.world.rng.choice(SIZES)

    __len__ = __index__ = __int__ = _size

    def __bool__(self) -> bool:
        self.world.strike()
        return self.world.rng.random() < 0.5

    def __float__(self) -> float:
        self.world.strike()
        return self.world.rng.choice([0.0, -1.0, 1e300, float("nan")])

    def __call__(self, *_arguments, **_named):
        self.world.strike()
        return self.world.thing()

    def __iter__(self):
        self.world.strike()
        return iter([self.world.thing(), b"part"])

    def __getitem__(self, key):
        self.world.strike()
        return self.world.thing()

    def __buffer__(self, flags):
        self.world.strike()
        return memoryview(b"four")

    def __str__(self) -> str:
        self.world.strike()
        return "odd\n"

    def __fspath__(self) -> str:
        self.world.strike()
        return "/etc/hostname"

    def close(self) -> None:
        self.world.strike()

    def __hash__(self) -> int:
        self.world.strike()
        return 7


class OddText(str):
    """A text that is equal to itself, after a while."""

    def __new__(cls, text: str, world: World):
        made = super().__new__(cls, text)
        made.world = world
        return made

    def __eq__(self, other) -> bool:
        self.world.strike()
        return str.__eq__(self, other)

    def __hash__(self) -> int:
        self.world.strike()
        return str.__hash__(self)

    def __bool__(self) -> bool:
        self.world.strike()
        return len(self) > 0


class OddDict(dict):
    def __init__(self, usual, world: World) -> None:
        super().__init__(usual)
        self.world = world

    def __getitem__(self, key):
        self.world.strike()
        return super().__getitem__(key)


class OddList(list):
    def __init__(self, usual, world: World) -> None:
        super().__init__(usual)
        self.world = world

    def __iter__(self):
        self.world.strike()
        return super().__iter__()

    def close(self) -> None:
        self.world.strike()


class Stream:
    def __init__(self, parts, world: World) -> None:
        self.parts, self.world = iter(parts), world

    def __iter__(self):
        self.world.strike()
        return self

    def __next__(self):
        if self.world.rng.random() < 0.2:
            self.world.strike()
        return next(self.parts)

    def close(self) -> None:
        self.world.strike()


class Wrapper:
    """As a server's file wrapper."""

    def __init__(self, filelike) -> None:
        self.filelike = filelike
        self.close = filelike.close

    def __iter__(self):
        return iter([b"read"])


class _Meta(type):
    def __instancecheck__(cls, instance) -> bool:
        raise Oddity


class OddType(metaclass=_Meta):
    """A file wrapper that does not want to be asked."""


class Protocol:
    def __init__(self, world: World) -> None:
        self.world = world

    def response_bytes(self, status, headers, body) -> None:
        if self.world.rng.random() < 0.1:
            self.world.strike()

    def response_iter(self, status, headers, body) -> None:
        for _ in zip(range(9), body, strict=False):
            pass


def run(seed: int, requests: int) -> None:
    """Make so many requests, a world for each thousand. Raises AssertionError where something is wrong."""
    made = 0
    while made < requests:
        world = World(seed * 1000003 + made)
        gc.freeze()
        for _ in range(min(1000, requests - made)):
            world.request()
            made += 1
            if made % 20 == 0:
                world.check()
        world.check()
        os.close(world.wake)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    given = parser.parse_args()
    print(f"{given.requests} requests that misuse the accelerator, --seed {given.seed}", flush=True)
    sys.unraisablehook = lambda _: None
    logging.disable()
    warnings.simplefilter("ignore")
    began = time.monotonic()
    run(given.seed, given.requests)
    print(f"done in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
