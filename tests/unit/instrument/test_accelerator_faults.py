"""Faults that the accelerator had: requests and arguments on which it read or wrote what was not its own.

Some show by a wrong value; others only under `make sanitize`, which runs this file too.
"""

from __future__ import annotations

import gc
import struct
import sys

import pytest
from wrapping import environ

from mooring.instrument.asgi import wrap_asgi
from mooring.instrument.asgi_line import IDS, OPENING, PLACE, SIZE
from mooring.instrument.meter import Lines, Meter, table
from mooring.instrument.wsgi import wrap_wsgi
from mooring.logs.access.line import formatter
from mooring.logs.access.parts import apache_date
from mooring.scoreboard import accelerator
from mooring.scoreboard.ring import FULL, Reader, Rings, writer
from mooring.scoreboard.row import BOUNDS, BUCKETS, DURATIONS, HISTOGRAM, OVERFLOW, PLACES, ROW_BYTES, Row

compiled = pytest.mark.skipif(accelerator.c is None, reason="mooring was installed without a compiler")
MOST = 2**63 - 1
SCOPE_OF_GET = {
    "type": "http",
    "method": "GET",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "http_version": "1.1",
    "client": ("127.0.0.1", 5000),
}
START = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b"x"}


class Acting:
    """Does something when it is looked at."""

    def __init__(self, act, value=None):
        self.act, self.value = act, value

    def __bool__(self):
        self.act()
        return bool(self.value)

    def __index__(self):
        self.act()
        return self.value

    def __len__(self):
        self.act()
        return self.value

    def __getitem__(self, key):
        self.act()
        return self.value[key]


class Key(str):
    """A text as a key, which does something when it is compared."""

    __hash__ = str.__hash__

    def __new__(cls, text, act):
        made = super().__new__(cls, text)
        made.act = act
        return made

    def __eq__(self, other):
        self.act()
        return str.__eq__(self, other)


class Logged:
    """A row, a ring, and what is in them."""

    def __init__(self, form="combined"):
        self.rings, self.row = Rings(), Row()
        self.meter = Meter(
            self.row, Lines(formatter(form), writer(self.rings.fd, 0, self.rings.wake), None, "-")
        )

    def lines(self):
        self.rings.give(0)
        reader = Reader(self.rings.fd)
        reader.indices()
        return reader.take(0).decode().splitlines()

    def asgi(self, application, identify=None):
        """Serve one request. What the server's send() was given."""
        sent = []

        async def send(message):
            sent.append({**message} if message.__class__ is dict else message)

        scope = {**SCOPE_OF_GET, "headers": [(b"user-agent", b"curl")]}
        running = wrap_asgi(application, lambda _scope: None, "", self.meter, identify)(scope, None, send)
        try:
            running.send(None)
        except StopIteration:
            return sent
        raise AssertionError("it waits")

    def wsgi(self, application, write=None, **more):
        wrapped = wrap_wsgi(application, lambda _environ: None, "", self.meter)
        return wrapped({**environ(), **more}, lambda *_: write)


# -- places --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("place", [PLACES[3] + 1, PLACES[-1] + 15, PLACES.stop, 3, -1, HISTOGRAM])
def test_a_place_that_is_none_of_the_table_is_left_alone(place):
    """Ending it cleared another's cell, and the next request was written across two, or beyond the row."""
    row = Row()
    for cell in range(64, ROW_BYTES // 8):
        if cell < PLACES.start or cell >= PLACES.stop:
            row.cells[cell] = 7.0
    begin, end = table(row)
    places = [begin(64, b"/" * 112, 1.0 + number) for number in range(len(PLACES) - 1)]
    before = bytes(row.data)
    end(place)
    assert bytes(row.data) == before
    free = begin(64, b"/last", 5.0)  # the scan never ended where it began between two places
    assert {*places, free} == {*PLACES}
    assert begin(64, b"/more", 6.0) == 0
    assert [row.cells[cell] for cell in range(64, 512)] == [7.0] * 448
    assert [row.cells[cell] for cell in range(PLACES.stop, ROW_BYTES // 8)] == [7.0] * (
        ROW_BYTES // 8 - PLACES.stop
    )


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("place", [PLACES[3] + 1, 3])
def test_an_exchange_with_a_strange_place_is_counted_all_the_same(place):
    logged = Logged()
    logged.row.cells[place] = 7.0

    async def application(_scope, _receive, send):
        exchange = send.__self__
        real, exchange[PLACE] = exchange[PLACE], place
        await send(START)
        await send(END)
        exchange[PLACE] = real

    logged.asgi(application)
    assert sum(logged.row.counts()[HISTOGRAM:]) == 1
    assert len(logged.lines()) == 1
    assert logged.row.cells[place] == 7.0
    assert logged.row.cells[OVERFLOW] == 0


@compiled
@pytest.mark.parametrize("base", [MOST, MOST - 3, HISTOGRAM - 7, PLACES[1], ROW_BYTES, -1])
def test_a_count_has_a_cell_of_the_methods(base):
    row = Row()
    counter = accelerator.counter(row)
    counter(base, 799, 0.1, False, PLACES[0])
    assert sum(row.cells[HISTOGRAM : HISTOGRAM + BUCKETS]) == 1
    assert sum(row.cells[64:]) == 1


# -- sums and sizes -------------------------------------------------------------------------------------


@compiled
def test_a_length_of_all_bits_does_not_overflow_the_size():
    """`write()` believes __len__: the sum became negative, and the line was lost."""
    logged = Logged()

    def application(_environ, start_response):
        write = start_response("200 OK", [])
        for _ in range(3):
            write(Acting(lambda: None, MOST))
        return [b"more"]

    logged.wsgi(application, write=lambda _data: None)
    assert f" 200 {MOST} " in logged.lines()[0]


@compiled
def test_a_streams_size_does_not_overflow():
    logged = Logged()

    def application(_environ, start_response):
        start_response("200 OK", [])
        return iter([b"abc", b"def"])

    body = logged.wsgi(application)
    body.size = MOST - 1
    assert list(body) == [b"abc", b"def"]
    assert body.size == MOST
    body.size = 10**30  # what the application declares for a file
    assert body.size == MOST
    with pytest.raises(ValueError, match="number"):
        body.size = -1
    body.close()
    assert f" 200 {MOST} " in logged.lines()[0]


@compiled
def test_an_exchanges_size_does_not_overflow():
    logged = Logged()

    async def application(_scope, _receive, send):
        send.__self__[SIZE] = MOST - 1
        await send(START)
        await send({"type": "http.response.body", "body": b"four"})

    logged.asgi(application)
    assert f" 200 {MOST} " in logged.lines()[0]


@compiled
@pytest.mark.parametrize(
    ("page", "size", "full"), [(4096, MOST, 9), (MOST, 4096, 9), (4096, MOST - 4095, 9), (4096, 4096, -1)]
)
def test_a_ring_larger_than_its_memory_is_refused(page, size, full):
    """Page and size were added before they were compared: the sum was negative, and the ring endless."""
    with pytest.raises(ValueError, match="smaller than a ring"):
        accelerator.c.Writer(bytearray(8192), 0, page, size, full, 0.05)


@compiled
def test_memory_that_is_not_aligned_is_refused():
    """A cell between two words is not stored at once: another process would read half of it."""
    memory = memoryview(bytearray(ROW_BYTES + 8192))
    with pytest.raises(ValueError, match="ring"):
        accelerator.c.Writer(memory[1:], 0, 4096, 4096, 9, 0.05)
    with pytest.raises(ValueError, match="row"):
        accelerator.row(type("Odd", (), {"data": memory[4 : 4 + ROW_BYTES]}))


@compiled
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, -1e300, -5.0])
def test_a_row_that_another_process_has_overwritten_is_counted(value):
    row = Row()
    made = accelerator.row(row)
    made.begin(64, b"/", 1.0)
    row.cells[OVERFLOW] = value
    assert made.in_flight() == 1


@compiled
@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
@pytest.mark.parametrize("at", [5, 6])
def test_a_number_too_large_for_c_is_left_to_python(number, at):
    logged = Logged()
    put = accelerator.apache(logged.row, logged.meter.lines.write, False, apache_date)
    entry = ["127.0.0.1", 5, "GET", "/", "1.1", 200, 5, 0.5, "-", "-", "-", "-", None]
    entry[at] = number
    assert put(tuple(entry), 1.0) is False


# -- what other code changes while C is at work ------------------------------------------------------------


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", ["http.response.body", "http.response.start", "http.response.pathsend"])
@pytest.mark.parametrize(
    "act", [list.clear, lambda some: some.__delitem__(slice(3, None)), lambda some: some.append(1)]
)
def test_an_exchange_that_is_emptied_while_it_is_sent(kind, act):
    """The message is looked at by its own methods, which may reach the exchange: send.__self__."""
    logged, emptied = Logged(), []

    async def application(_scope, _receive, send):
        exchange = send.__self__
        keep = list(exchange)

        def empty():
            if not emptied:
                emptied.append(True)
                act(exchange)

        try:
            await send(Acting(empty, {"type": kind, "status": 200, "body": b"x", "path": "/none"}))
        except IndexError:
            pass
        finally:
            exchange[:] = keep

    logged.asgi(application)
    assert emptied
    assert sum(logged.row.counts()[HISTOGRAM:]) == 1
    assert logged.row.in_flight(0.0) == []


@pytest.mark.usefixtures("way")
def test_a_message_that_goes_while_its_request_is_finished():
    """finish() asks the size for its truth, and had no reference to the message with the status."""
    logged = Logged()

    async def application(_scope, _receive, send):
        exchange = send.__self__
        await send({"type": "http.response.start", "status": 200 + len(exchange), "headers": []})

        def lose():
            exchange[OPENING] = None
            exchange[SIZE] = 5

        exchange[SIZE] = Acting(lose, True)

    try:
        logged.asgi(application)
    except TypeError:
        pass  # Python looks for the message again
    assert logged.row.in_flight(0.0) == []
    assert logged.row.counts()[DURATIONS] >= 0


@compiled
def test_ids_that_go_while_they_are_looked_at():
    logged = Logged()
    taken = []

    async def application(_scope, _receive, send):
        exchange = send.__self__
        exchange[IDS] = (
            "a",
            "b",
            Acting(lambda: exchange.__setitem__(IDS, ("-", "-", [])) or gc.collect(), True),
        )
        await send(START)
        await send(END)

    def identify(_scope):
        taken.append(True)
        return ("-", "-", [])

    sent = logged.asgi(application, identify)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert taken


@pytest.mark.usefixtures("way")
def test_a_status_that_goes_while_it_is_looked_at():
    """Its truth is asked, and may call start_response again: the status was read after it was freed."""
    logged = Logged()

    class Status(str):
        def __bool__(self):
            start("404 Not Found", [])
            gc.collect()
            return True

    def application(_environ, start_response):
        nonlocal start
        start = start_response
        start_response(Status("".join(["20", "1 Made"])), [])
        return [b"x"]

    start = None
    logged.wsgi(application)
    assert '" 201 1 ' in logged.lines()[0]


@compiled
def test_an_environ_that_changes_while_its_line_is_made():
    """A key of a type of its own runs Python code in each look-up."""
    logged, changed = Logged(), []

    def application(environ, start_response):
        def change():
            changed.append(True)
            for name in ("REMOTE_ADDR", "REQUEST_METHOD", "HTTP_REFERER"):
                environ.pop(name, None)

        environ["REMOTE_ADDR"] = ".".join(["10", "9", "8", "7"])
        environ["HTTP_REFERER"] = "re" + str(len(environ))
        environ.pop("HTTP_USER_AGENT", None)
        environ[Key("HTTP_USER_AGENT", change)] = "agent"
        start_response("200 OK", [])
        return [b"x"]

    logged.wsgi(application)
    assert changed
    assert "10.9.8.7 - - " in logged.lines()[0]


@compiled
def test_a_target_is_a_text():
    row = accelerator.row(Row())
    rest = ({}, 64, ("-", "-", []), lambda _environ: 7, *[None] * 7, "-", frozenset(), None, False)
    wsgi = accelerator.c.Wsgi(row, None, None, None, None, False, *rest)
    with pytest.raises(TypeError, match="a text"):
        wsgi({"REQUEST_METHOD": "GET", "RAW_URI": 5}, None)


@compiled
@pytest.mark.parametrize("nothing", [(), ("-",), ("-", "-", [], 1)])
def test_the_ids_of_nobody_are_three(nothing):
    row = accelerator.row(Row())
    rest = ({}, 64, nothing, *[None] * 8, "-", frozenset(), None, False)
    with pytest.raises(TypeError, match="three ids"):
        accelerator.c.Wsgi(row, None, None, None, None, False, *rest)


# -- arguments -------------------------------------------------------------------------------------------


@compiled
@pytest.mark.parametrize("kind", ["Asgi", "Wsgi", "Requests"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_collector_runs_while_arguments_are_parsed(kind, fails):
    """The collector knew the object while its references were borrowed, and took them for its own."""
    row, found = accelerator.row(Row()), []

    def known():
        return {id(each) for each in gc.get_objects() if type(each).__name__ == kind}

    def look():
        found.append(known() - earlier)
        gc.collect()
        if fails:
            raise LookupError

    mine = [object() for _ in range(4)] + [{}, {}, frozenset([1]), ("-", "-", [])]
    functions, nothing, methods = mine[:4], mine[7], mine[6]
    before, earlier = [sys.getrefcount(each) for each in mine], known()
    act = Acting(look, 1)
    if kind == "Asgi":
        more = (*functions, None, None, None, "-", methods, mine[4], None, mine[5], None, None, act)
    elif kind == "Requests":
        row, more = len, (act, 100, *functions, *[None] * 5)
    else:
        more = (*functions, act, mine[4], 64, nothing, *[None] * 8, "-", methods, None, False)
    try:
        made = getattr(accelerator.c, kind)(row, *more)
    except LookupError:
        made = None
    assert (made is None) == fails
    assert found == [set()]
    del made, more
    gc.collect()
    assert [sys.getrefcount(each) for each in mine] == before


@compiled
def test_an_error_in_one_argument_is_not_met_by_the_next():
    """The next argument's method ran with an error set, and Python reported a SystemError."""

    def fail():
        raise LookupError

    ran = []

    class Late:
        def __float__(self):
            ran.append(1)
            return 0.5

    row = accelerator.row(Row())
    with pytest.raises(LookupError):
        row.count(64, Acting(fail, 200), Late(), False, 0)
    with pytest.raises(TypeError):
        accelerator.c.Row(bytearray(ROW_BYTES), ("x", *BOUNDS), *[9] * 7, 512, 528, 16, None)
    assert not ran


@compiled
def test_a_ring_takes_what_fits_whatever_the_reader_writes():
    memory = bytearray(4096 + 4096)
    write = accelerator.c.Writer(memory, 0, 4096, 4096, FULL, 0.0)
    for tail in (1e300, -1e300, float("nan"), 2.0**53, 2.0**62, -1.0):
        struct.pack_into("d", memory, 64, tail)
        for _ in range(3):
            write(b"x" * 3000, 1.0)
    head = struct.unpack_from("d", memory)[0]
    assert 0 <= head < 2**53
