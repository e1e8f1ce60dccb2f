"""The rings of the access log: whole lines, in order, exactly once; with real processes at either end."""

import errno
import math
import mmap
import os
import random
import select
import struct
import time
from time import monotonic

import pytest
from forks import fork, forked, kill

from mooring.logs.access.writer import PIPE_BUF, pieces
from mooring.scoreboard.ring import DELAY, FULL, SIZE, Reader, Rings, writer

pytestmark = pytest.mark.usefixtures("way")

PAGE = mmap.PAGESIZE
RING = PAGE + SIZE


@pytest.fixture
def rings():
    made = Rings()
    yield made
    made.close()


class Far:
    """A ring's writer with a clock of its own, and a reader beside it."""

    def __init__(self, rings, index=0):
        rings.give(index)
        self.rings, self.index, self.now = rings, index, 0.0
        self.write_at = writer(rings.fd, index, rings.wake)
        self.reader = Reader(rings.fd)
        self.reader.indices()

    def write(self, line, later=0.0):
        self.now += later
        return self.write_at(line, self.now)

    def read(self):
        found = self.reader.take(self.index)
        self.reader.done(self.index, len(found))
        return found

    @property
    def cells(self):
        return memoryview(mmap.mmap(self.rings.fd, PAGE, offset=PAGE + self.index * RING)).cast("d")


def woken(rings):
    """Whether the log writer was woken since the last look."""
    try:
        return os.eventfd_read(rings.wake) > 0
    except BlockingIOError:
        return False


# -- one process -------------------------------------------------------------------------------------------


def test_lines_come_out_as_they_went_in(rings):
    ring = Far(rings)
    assert ring.read() == b""
    assert ring.write(b"one\n")
    assert ring.write(b"two\n")
    assert ring.reader.held(0) == 8
    assert ring.reader.take(0) == b"one\ntwo\n"
    assert ring.reader.take(0) == b"one\ntwo\n"  # until it is done
    ring.reader.done(0, 4)
    assert ring.read() == b"two\n"
    assert ring.read() == b""


@pytest.mark.parametrize("seed", range(4))
def test_wrapping_around_with_odd_sizes(rings, seed):
    ring, chance = Far(rings), random.Random(seed)
    sent, got = bytearray(), bytearray()
    dropped = 0
    for number in range(4000):
        line = b"%d " % number + b"x" * chance.choice((0, 1, 7, 333, 4093, 40_000)) + b"\n"
        if ring.write(line, chance.choice((0.0, DELAY))):
            sent += line
        else:
            dropped += 1
        if chance.random() < 0.2:
            got += ring.read()
    got += ring.read()
    assert len(got) > 3 * SIZE
    assert got == sent
    assert dropped < 3000


@pytest.mark.parametrize("start", [0, 1, 12345, SIZE - 1, SIZE, 3 * SIZE - 7])
def test_a_ring_holds_exactly_its_size(rings, start):
    ring = Far(rings)
    while start > 0:
        step = min(start, SIZE)
        assert ring.write(b"y" * step)
        ring.read()
        start -= step
    whole = bytes(range(256)) * (SIZE // 256)
    assert not ring.write(whole + b"\n")
    assert ring.write(whole)
    assert not ring.write(b"\n")
    assert not ring.write(b"\n", later=1.0)
    assert ring.read() == whole
    assert ring.write(b"on\n")
    assert ring.read() == b"on\n"
    assert not ring.write(b"z" * 10 * SIZE)
    assert ring.write(b"and on\n")
    assert ring.read() == b"and on\n"


def test_a_full_ring_drops_whole_lines_and_takes_shorter_ones(rings):
    ring = Far(rings)
    assert ring.write(b"a" * (SIZE - 4))
    assert not ring.write(b"12345")
    assert ring.write(b"abc\n")
    assert not ring.write(b"\n")
    assert ring.read() == b"a" * (SIZE - 4) + b"abc\n"


def test_the_reader_is_woken_at_once_then_for_each_64_kib_and_each_delay(rings):
    ring = Far(rings)
    assert ring.write(b"x\n", later=1.0)
    assert woken(rings)
    assert ring.write(b"x\n", later=DELAY / 2)
    assert not woken(rings)
    assert ring.write(b"x\n", later=DELAY / 2 + 0.001)
    assert woken(rings)
    written = 0
    while not woken(rings):
        assert ring.write(b"x" * 999 + b"\n")
        written += 1000
    assert FULL - 2000 <= written <= FULL + 2000


def test_the_next_worker_goes_on_where_the_last_one_was(rings):
    first = Far(rings, 2)
    for _ in range(3):
        assert first.write(b"f" * (SIZE // 2) + b"\n")
        first.read()
    assert first.write(b"first\n")
    second = Far(rings, 2)
    assert second.write(b"second\n")
    assert second.read() == b"first\nsecond\n"


def test_rings_do_not_touch_each_other(rings):
    ends = [Far(rings, index) for index in (0, 1, 15, 16, 40)]
    for number, ring in enumerate(ends):
        assert ring.write(b"%d" % number * SIZE)
    assert len(Reader(rings.fd).indices()) == 41
    for number, ring in enumerate(ends):
        assert ring.read() == b"%d" % number * SIZE


def test_the_reader_sees_rings_that_are_given_later_and_holds_few_descriptors(rings):
    reader = Reader(rings.fd)
    assert list(reader.indices()) == []
    rings.give(1)
    assert list(reader.indices()) == [0, 1]
    before = len(os.listdir("/proc/self/fd"))
    rings.give(99)
    assert len(reader.indices()) == 100
    assert len(os.listdir("/proc/self/fd")) - before < 10
    rings.give(3)
    assert len(reader.indices()) == 100


def test_lost_lines_are_counted_where_the_supervisor_sees_them(rings):
    reader = Reader(rings.fd)
    reader.lost(3)
    reader.lost(4)
    assert rings.lost == 7


# -- what workers may have scribbled -----------------------------------------------------------------------

BAD = (math.nan, math.inf, -math.inf, -1.0, 1e308, 2.0**60, 0.5, float(SIZE), 3.0 * SIZE)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("cell", [0, 8])
def test_a_ring_that_was_scribbled_over_is_read_without_an_error_and_works_again(rings, cell, bad):
    ring = Far(rings)
    for _ in range(5):
        ring.write(b"w" * (SIZE // 3) + b"\n")
        ring.read()
    ring.cells[cell] = bad
    for _ in range(3):
        assert len(ring.read()) <= SIZE
        again = Far(rings)  # its worker's successor
        again.write(b"new\n")
        found = again.read()
        assert len(found) <= SIZE
    assert again.write(b"well\n")
    assert again.read().endswith(b"well\n")


@pytest.mark.parametrize("cell", [0, 8])
def test_half_a_byte_does_not_shift_the_lines(rings, cell):
    ring = Far(rings)
    ring.write(b"some\n")
    ring.cells[cell] += 0.5 if cell else -0.5
    ring.read()
    ring.write(b"more\n", later=1.0)
    ring.read()
    assert ring.write(b"well\n", later=1.0)
    assert ring.read() == b"well\n"


@pytest.mark.parametrize("bad", [math.nan, -1.0, 1e308, 0.0])
def test_a_writer_goes_on_after_a_scribble(rings, bad):
    ring = Far(rings)
    for _ in range(7):
        assert ring.write(b"w" * (SIZE // 2) + b"\n")
        ring.read()
    ring.cells[0] = bad
    ring.read()
    for _ in range(2):
        ring.write(b"some\n", later=1.0)
        ring.read()
    assert ring.write(b"well\n", later=1.0)
    assert ring.read() == b"well\n"


@pytest.mark.parametrize("bad", [*BAD, 1e9])
def test_the_page_of_all_rings_may_be_scribbled_over_too(rings, bad):
    rings.give(4)
    reader = Reader(rings.fd)
    reader.lost(5)
    assert rings.lost == 5
    page = memoryview(mmap.mmap(rings.fd, PAGE)).cast("d")
    page[0] = page[8] = bad
    assert rings.lost >= 5
    assert len(reader.indices()) <= 8192
    rings.give(6)
    assert len(reader.indices()) >= 7


def test_nobody_can_take_the_memory_away(rings):
    with pytest.raises(OSError) as raised:
        os.ftruncate(rings.fd, 0)
    assert raised.value.errno == errno.EPERM


# -- two processes -----------------------------------------------------------------------------------------


def line(number):
    return b"%d %s\n" % (number, b"x" * (number * 7 % 211))


def everything(rings, until, patience=60.0):
    """What comes out of ring 0 until it ends with `until`."""
    reader, got = Reader(rings.fd), bytearray()
    reader.indices()
    deadline = monotonic() + patience
    while not got.endswith(until):
        assert monotonic() < deadline
        found = reader.take(0)
        got += found
        reader.done(0, len(found))
    return bytes(got)


def test_two_hundred_thousand_lines_through_a_ring(rings):
    """In order, each whole, and none twice; where there was no room, the writer tries again."""
    rings.give(0)
    count = 200_000

    def work():
        write = writer(rings.fd, 0, rings.wake)
        for number in range(count):
            while not write(line(number), number / 1000):
                time.sleep(0.0005)

    with forked(work):
        got = everything(rings, b"\n" + line(count - 1))
    assert got == b"".join(map(line, range(count)))


@pytest.mark.parametrize("seed", range(8))
def test_a_worker_that_is_killed_has_lost_no_line_that_was_written(rings, seed):
    rings.give(0)
    shared = mmap.mmap(-1, PAGE)
    done = memoryview(shared).cast("q")

    def work():
        write = writer(rings.fd, 0, rings.wake)
        number = 0
        while True:
            if write(line(number), number / 100):
                number += 1
                done[0] = number

    reader, got, chance = Reader(rings.fd), b"", random.Random(seed)
    reader.indices()
    pid = fork(work)
    least = chance.randrange(2000, 40_000)
    deadline = monotonic() + 30
    try:
        while done[0] < least:
            assert monotonic() < deadline
            found = reader.take(0)
            got += found
            reader.done(0, len(found))
    finally:
        kill(pid)
    found = reader.take(0)
    got += found
    reader.done(0, len(found))
    count = got.count(b"\n")
    assert got == b"".join(map(line, range(count)))
    assert done[0] <= count <= done[0] + 1
    write = writer(rings.fd, 0, rings.wake)  # its successor's
    assert write(b"next\n", 1e9)
    assert reader.take(0) == b"next\n"


def test_a_reader_that_is_killed_leaves_what_it_has_not_dealt_with(rings):
    rings.give(0)
    read, write_end = os.pipe()

    def work():
        reader = Reader(rings.fd)
        reader.indices()
        while True:
            for piece in pieces(reader.take(0), PIPE_BUF):
                os.write(write_end, piece)
                reader.done(0, len(piece))

    write, number, chance, got = writer(rings.fd, 0, rings.wake), 0, random.Random(3), bytearray()
    os.set_blocking(read, False)

    def drain(until=0):
        deadline = monotonic() + 30
        while True:
            try:
                got.extend(os.read(read, 1 << 20))
            except BlockingIOError:
                if len(got) >= until:
                    return
            assert monotonic() < deadline

    for _ in range(20):
        pid = fork(work)
        least = number + chance.randrange(10, 3000)
        try:
            while number < least:
                number += write(line(number), number / 100)
                drain()
        finally:
            kill(pid)
        drain()
    with forked(work):
        deadline = monotonic() + 30
        while not got.endswith(b"\n" + line(number - 1)):
            drain()
            assert monotonic() < deadline
    shown = [int(each.split()[0]) for each in got.splitlines()]
    assert set(shown) == set(range(number))
    assert {bytes(each) + b"\n" for each in got.splitlines()} == set(map(line, range(number)))
    again = len(shown) - number
    assert again <= 20 * PIPE_BUF // 3
    os.close(read)
    os.close(write_end)


def test_the_reader_can_sleep_until_it_is_woken(rings):
    """At most half of what is promised after each line, if it looks on for a while: the log writer's way."""
    rings.give(0)
    shared = mmap.mmap(-1, PAGE)
    stamps = memoryview(shared).cast("d")

    def work():
        write, chance = writer(rings.fd, 0, rings.wake), random.Random(5)
        for number in range(60):
            time.sleep(chance.choice((0.0, 0.001, 0.03, 0.07)))
            write(struct.pack("d", monotonic()) + b"\n", monotonic())
            stamps[0] = number + 1

    reader, late, seen, awake = Reader(rings.fd), 0.0, 0, 0.0
    reader.indices()
    poll = select.poll()
    poll.register(rings.wake, select.POLLIN)
    with forked(work):
        while seen < 60:
            if poll.poll(20_000 if monotonic() >= awake else DELAY * 1000):
                os.eventfd_read(rings.wake)
                awake = monotonic() + 3 * DELAY
            found = reader.take(0)
            for at in range(0, len(found), 9):
                late = max(late, monotonic() - struct.unpack_from("d", found, at)[0])
                seen += 1
            reader.done(0, len(found))
    print(f"latest line: {late * 1000:.1f} ms")
    assert late < 1.0


# -- pieces ------------------------------------------------------------------------------------------------


def test_pieces_are_whole_lines_that_a_pipe_takes_at_once():
    lines = [b"%d " % n + b"x" * 700 + b"\n" for n in range(20)]
    got = list(pieces(b"".join(lines), PIPE_BUF))
    assert b"".join(got) == b"".join(lines)
    assert all(len(piece) <= PIPE_BUF and piece.endswith(b"\n") for piece in got)
    assert len(got) == 4


def test_a_line_that_is_longer_is_a_piece_of_its_own():
    got = list(pieces(b"a\n" + b"x" * 5000 + b"\nb\n", PIPE_BUF))
    assert [len(piece) for piece in got] == [2, 5001, 2]


@pytest.mark.parametrize("data", [b"", b"\n", b"\n\n\n", b"no end", b"x\nno end", b"x" * 5000])
def test_pieces_are_all_there_is(data):
    assert b"".join(pieces(data, PIPE_BUF)) == data
