"""The scoreboard's rows: what is written by one process and read by another, and what cannot be trusted."""

import errno
import fcntl
import math
import mmap
import os
import random
import resource
from bisect import bisect_left
from itertools import pairwise
from time import monotonic

import pytest
from forks import forked

from mooring.instrument.meter import table
from mooring.scoreboard.row import (
    BOUNDS,
    BUCKETS,
    COUNTS,
    DURATIONS,
    FREE,
    GONE,
    HISTOGRAM,
    METHOD_BASE,
    OVERFLOW,
    PID,
    PLACES,
    READY,
    REQUESTS,
    ROW_BYTES,
    ROWS,
    SLOT,
    STARTING,
    STATE,
    Board,
    Row,
    create,
    each_bound,
    quantile,
)

SEALS = ("F_ADD_SEALS", "F_SEAL_SEAL", "F_SEAL_SHRINK", "F_SEAL_GROW")
GARBAGE = (math.nan, math.inf, -math.inf, -1.0, -1e-300, 1e308, 2.0**53, 5e-324)


@pytest.fixture
def fd():
    made = create()
    yield made
    os.close(made)


# -- quantiles ---------------------------------------------------------------------------------------------


def test_bounds_are_close_together_and_hold_what_metrics_show():
    assert (BOUNDS[0], BOUNDS[-1]) == (5e-5, 60.0)
    assert all(low < high < 1.1 * low * (1 + 1e-9) for low, high in pairwise(BOUNDS))
    shown = [bound for _, bound in each_bound()]
    assert shown[:5] == [5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3]
    assert shown[-3:] == [25.0, 50.0, 60.0]
    assert [BOUNDS[index] for index, _ in each_bound()] == shown


@pytest.mark.parametrize("seed", range(20))
def test_quantiles_are_within_five_percent(seed):
    chance = random.Random(seed)
    ends = math.log(5e-5), math.log(60)
    low, high = sorted((chance.uniform(*ends), chance.uniform(*ends)))
    durations = sorted(math.exp(chance.uniform(low, high)) for _ in range(chance.choice((1, 2, 10, 5000))))
    buckets = [0.0] * BUCKETS
    for seconds in durations:
        buckets[bisect_left(BOUNDS, seconds)] += 1
    for share in (0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0):
        exact = durations[max(0, math.ceil(share * len(durations)) - 1)]
        found = quantile(buckets, share)
        assert found == pytest.approx(exact, rel=0.05), share


def test_quantiles_of_nothing_and_beyond_the_bounds():
    assert quantile([0.0] * BUCKETS, 0.5) is None
    assert quantile([3.0] + [0.0] * (BUCKETS - 1), 0.5) == BOUNDS[0]
    assert quantile([0.0] * (BUCKETS - 1) + [3.0], 0.5) == BOUNDS[-1]


# -- a row that another process writes ---------------------------------------------------------------------


def test_a_row_that_is_being_written_is_sane_at_every_moment_and_its_counts_never_go_down(fd):
    def write():
        row = Row(fd, 3)
        row.claim(1, 2, monotonic())
        row.cells[STATE] = READY
        begin, end = table(row)
        cells, base, number = row.cells, METHOD_BASE["POST"], 0
        while True:
            number += 1
            place = begin(base, b"/%d" % number, monotonic())
            cells[base + 2] += 1.0
            cells[HISTOGRAM + number % BUCKETS] += 1.0
            cells[DURATIONS] += 0.001
            end(place)

    row = Row(fd, 3)
    with forked(write) as pid:
        while not row.read(METHOD_BASE["POST"] + 2):
            pass
        before, reads = row.counts(), 0
        last = before
        deadline = monotonic() + 1
        while monotonic() < deadline:
            counts = row.counts()
            assert all(new >= old for new, old in zip(counts[COUNTS:], last[COUNTS:], strict=True))
            assert counts[DURATIONS] >= last[DURATIONS]
            assert (counts[PID], counts[SLOT]) == (pid, 1)
            for cell in (METHOD_BASE["POST"] + 2, HISTOGRAM):
                assert counts[cell] == int(counts[cell])
            assert row.in_flight_count() <= 1
            for request in row.in_flight(monotonic()):
                assert request.method == "POST"
                assert request.path[:1] in ("/", "")  # not there yet
                assert 0 <= request.age < 10
            last, reads = counts, reads + 1
        assert reads > 100
        assert last[METHOD_BASE["POST"] + 2] > before[METHOD_BASE["POST"] + 2]
    row.close()


def test_rows_do_not_touch_each_other(fd):
    rows = [Row(fd, index) for index in range(3)]
    rows[1].data[:] = b"\xff" * ROW_BYTES
    for row in (rows[0], rows[2]):
        assert bytes(row.data) == bytes(ROW_BYTES)
        assert not row.used


def test_a_row_is_claimed_and_erased(fd):
    row = Row(fd, ROWS - 1)
    assert not row.used
    row.claim(4, 5, 6.0)
    assert list(row.cells[:7]) == [STARTING, os.getpid(), 4, 5, 6.0, 6.0, 0.0]
    row.cells[PLACES[-1]] = 1.0
    row.erase()
    assert not row.used
    assert row.read(STATE) == FREE
    assert bytes(row.data) == bytes(ROW_BYTES)


def test_a_board_maps_every_row_and_needs_few_descriptors(fd):
    before = len(os.listdir("/proc/self/fd"))
    board = Board(fd)
    rows = [board.row(index) for index in (0, 1, 63, 64, ROWS - 1)]
    assert len(os.listdir("/proc/self/fd")) - before == 3
    for row in rows:
        Row(fd, row.index).cells[STATE] = float(row.index)
        assert row.read(STATE) == row.index
        row.close()


def test_untouched_rows_take_no_memory(fd):
    Row(fd, 0).claim(0, 0, 0.0)
    assert os.fstat(fd).st_blocks * 512 <= mmap.PAGESIZE
    assert os.fstat(fd).st_size == ROWS * ROW_BYTES


def test_nobody_can_take_the_memory_away(fd):
    """A page beyond a file's end is a SIGBUS for who reads it: a worker could end the supervisor."""
    for size in (0, ROWS * ROW_BYTES - 1, ROWS * ROW_BYTES + 1):
        with pytest.raises(OSError) as raised:
            os.ftruncate(fd, size)
        assert raised.value.errno == errno.EPERM
    assert not os.get_inheritable(fd)


def test_a_python_that_was_built_on_an_old_glibc_has_the_memory_too(monkeypatch):
    """As conda's and uv's are: `os` has no memfd_create there, nor `fcntl` the seals."""
    for module, names in ((os, ("memfd_create", "MFD_CLOEXEC", "MFD_ALLOW_SEALING")), (fcntl, SEALS)):
        for name in names:
            monkeypatch.delattr(module, name)
    test_nobody_can_take_the_memory_away(made := create())
    os.close(made)


def test_a_limit_of_file_sizes_is_told_as_what_it_is():
    """`ulimit -f`: an error with a file's name is one line on stderr, and exit code 2 (cli.py)."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OSError, match="ulimit -f") as raised:
            create()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert raised.value.filename == "shared memory of 168 MB"


def test_a_row_is_free_only_when_it_is_empty(fd):
    """gunicorn's arbiter gives a row away the moment that it is free."""
    row = Row(fd, 0)
    row.claim(0, 1, 1.0)
    row.cells[STATE] = GONE
    states = []

    class Data:
        def __setitem__(self, place, value):
            data[place] = value
            states.append(row.read(STATE))

    data, row.data = row.data, Data()
    row.erase()
    assert states == [GONE]
    assert bytes(data) == bytes(ROW_BYTES)


# -- what cannot be trusted --------------------------------------------------------------------------------


def looked_at(row):
    counts = row.counts()
    assert all(0 <= value < 2.0**53 for value in counts), counts
    requests = row.in_flight(monotonic())
    assert all(request.age >= 0 for request in requests)
    assert all(isinstance(request.path, str) for request in requests)
    assert row.in_flight_count() >= 0
    assert row.read(OVERFLOW) >= 0
    quantile(counts[HISTOGRAM:], 0.99)
    return counts, requests


@pytest.mark.parametrize("bad", GARBAGE)
def test_a_bad_cell_counts_nothing_and_the_others_stay(bad):
    row = Row()
    row.cells[METHOD_BASE["GET"] + 2] = 7.0
    for cell in (STATE, DURATIONS, OVERFLOW, COUNTS, HISTOGRAM, HISTOGRAM + BUCKETS - 1, PLACES[0]):
        row.cells[cell] = bad
    counts, _ = looked_at(row)
    assert counts[METHOD_BASE["GET"] + 2] == 7.0


@pytest.mark.parametrize("seed", range(30))
def test_rows_of_random_bytes_are_read_without_an_error(seed):
    row, chance = Row(), random.Random(seed)
    row.data[:] = chance.randbytes(ROW_BYTES)
    _, requests = looked_at(row)
    assert len(requests) <= REQUESTS


def test_rows_of_one_byte_are_read_without_an_error():
    row = Row()
    for byte in range(256):
        row.data[:] = bytes([byte]) * ROW_BYTES
        looked_at(row)
