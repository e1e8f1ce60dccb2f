"""The totals over workers that come and go: they never go down, whatever workers do to their rows."""

import errno
import os
import random
import signal
from time import monotonic

import pytest
from forks import fork, forked, kill
from test_row import GARBAGE

from mooring.scoreboard.row import (
    BUCKETS,
    COUNTERS,
    COUNTS,
    DURATIONS,
    GONE,
    HISTOGRAM,
    METHOD_BASE,
    PID,
    READY,
    ROW_BYTES,
    ROWS,
    STATE,
    WEBSOCKETS,
    Row,
)
from mooring.scoreboard.totals import Totals

GET = METHOD_BASE["GET"] + 2
ADDED = (*COUNTERS, *range(COUNTS, HISTOGRAM + BUCKETS))


@pytest.fixture
def scoreboard():
    made = Totals()
    yield made
    made.close()


def seated(scoreboard, serial, requests=0.0, seconds=0.0):
    """A worker with one row, in this process, which has counted so much."""
    (index,) = scoreboard.give(serial)
    row = Row(scoreboard.fd, index)
    row.claim(0, 1, monotonic())
    row.cells[STATE] = READY
    row.cells[GET] = row.cells[HISTOGRAM] = requests
    row.cells[DURATIONS] = seconds
    return row


def no_less(after, before):
    return all(after[cell] >= before[cell] for cell in ADDED)


def test_totals_never_go_down_over_two_hundred_kills(scoreboard):
    """Real writers at full speed, killed anywhere; each row goes to the next one."""

    def writer(index):
        row = Row(scoreboard.fd, index)
        row.claim(0, 1, monotonic())
        cells = row.cells
        while True:
            cells[GET] += 1.0
            cells[HISTOGRAM + 40] += 1.0
            cells[DURATIONS] += 0.0013

    living, last, reads = {}, scoreboard.totals(), 0
    chance = random.Random(1)
    try:
        for serial in range(203):
            (index,) = scoreboard.give(serial)
            assert index < 4  # rows are used again
            living[serial] = fork(lambda index=index: writer(index)), scoreboard.rows[serial][0]
            while not living[serial][1].read(GET):
                totals = scoreboard.totals()
                assert no_less(totals, last)
                last, reads = totals, reads + 1
            if len(living) < 4:
                continue
            victim = chance.choice(list(living))
            pid, row = living.pop(victim)
            kill(pid)
            counted, before = row.read(GET), scoreboard.gone[GET]
            totals = scoreboard.totals()
            assert no_less(totals, last)
            scoreboard.take(victim)
            assert scoreboard.gone[GET] == before + counted  # nothing is lost, nothing counts twice
            last = scoreboard.totals()
            assert no_less(last, totals)
    finally:
        for pid, _ in living.values():
            kill(pid)
    assert reads > 200
    for serial in living:
        scoreboard.take(serial)
    assert no_less(scoreboard.totals(), last)
    assert scoreboard.totals()[GET] == scoreboard.gone[GET]


def test_a_sum_of_seconds_never_goes_down_by_a_last_digit(scoreboard):
    """Floats that are added in another order: for a scraper, less by 1e-16 is a restart."""
    chance = random.Random(2)
    living = []
    for serial in range(400):
        living.append((serial, seated(scoreboard, serial, 1.0, chance.uniform(0, 0.1) ** 3)))
        if len(living) > 8:
            gone, row = living.pop(chance.randrange(8))
            row.close()
            last = scoreboard.totals()[DURATIONS]
            scoreboard.take(gone)
            assert scoreboard.totals()[DURATIONS] >= last


@pytest.mark.parametrize("bad", GARBAGE)
def test_what_was_once_counted_stays_whatever_is_written_over_it(scoreboard, bad):
    row, other = seated(scoreboard, 1, 100.0, 5.0), seated(scoreboard, 2, 10.0, 1.0)
    before = scoreboard.totals()
    assert before[GET] == 110
    for cell in range(HISTOGRAM + BUCKETS):
        row.cells[cell] = bad
    after = scoreboard.totals()
    assert no_less(after, before)
    assert after[GET] < 2.0**53
    other.cells[GET] += 1.0
    assert scoreboard.totals()[GET] == after[GET] + 1
    scoreboard.take(1)
    assert no_less(scoreboard.totals(), after)
    seated(scoreboard, 3, 5.0)
    assert scoreboard.totals()[GET] == after[GET] + 6


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_again_and_again(scoreboard, seed):
    chance, last = random.Random(seed), scoreboard.totals()
    row = seated(scoreboard, 1, 3.0, 1.0)
    for _ in range(10):
        at = chance.randrange(ROW_BYTES - 800)
        row.data[at : at + 800] = chance.randbytes(800)
        list(scoreboard.in_use())
        scoreboard.sweep(1)
        now = scoreboard.totals()
        assert no_less(now, last)
        last = now
    scoreboard.take(1)
    assert no_less(scoreboard.totals(), last)


def test_a_worker_that_wipes_its_row_takes_nothing_back(scoreboard):
    row = seated(scoreboard, 1, 100.0)
    assert scoreboard.totals()[GET] == 100
    row.data[:] = bytes(ROW_BYTES)
    assert scoreboard.totals()[GET] == 100
    scoreboard.take(1)
    assert scoreboard.totals()[GET] == 100


def test_gauges_are_of_the_living_only(scoreboard):
    row = seated(scoreboard, 1)
    row.cells[WEBSOCKETS] = 5.0
    assert scoreboard.totals()[WEBSOCKETS] == 5
    row.cells[WEBSOCKETS] = 2.0
    assert scoreboard.totals()[WEBSOCKETS] == 2
    scoreboard.take(1)
    assert scoreboard.totals()[WEBSOCKETS] == 0


def test_a_row_that_is_given_again_is_empty(scoreboard):
    seated(scoreboard, 1, 7.0)
    scoreboard.take(1)
    (index,) = scoreboard.give(2)
    row = Row(scoreboard.fd, index)
    assert bytes(row.data) == bytes(ROW_BYTES)
    assert [seat.serial for seat in scoreboard.in_use()] == []  # it has not come yet
    assert scoreboard.totals()[GET] == 7


def test_seats_are_the_rows_in_use(scoreboard):
    first, second = seated(scoreboard, 1), seated(scoreboard, 2)
    assert [(seat.serial, seat.row.index) for seat in scoreboard.in_use()] == [
        (1, first.index),
        (2, second.index),
    ]
    first.cells[STATE] = GONE
    assert [seat.serial for seat in scoreboard.in_use()] == [2]


def test_rows_that_could_not_be_mapped_are_given_again(scoreboard, monkeypatch):
    def refused(index):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with monkeypatch.context() as patched:
        patched.setattr(scoreboard._board, "row", refused)
        for serial in range(3):
            with pytest.raises(OSError, match="memory"):
                scoreboard.give(serial)
            scoreboard.take(serial)
    assert scoreboard.give(3) == (0,)


def test_a_row_is_never_two_workers(scoreboard):
    given = [index for serial in range(ROWS) for index in scoreboard.give(serial)]
    assert sorted(given) == list(range(ROWS))
    assert scoreboard.give(ROWS) == ()  # it counts for itself only
    assert scoreboard.give(ROWS + 1, arbiter_of=4) == ()
    scoreboard.take(ROWS)
    scoreboard.take(5)
    scoreboard.take(5)
    assert scoreboard.give(ROWS + 2) == (5,)


def test_an_arbiter_has_rows_for_more_workers_than_it_begins_with(scoreboard):
    rows = scoreboard.give(1, arbiter_of=4)
    assert len(rows) == len(set(rows)) >= 8
    assert len(scoreboard.give(2, arbiter_of=10_000)) <= 1024
    scoreboard.take(2)
    before = len(os.listdir("/proc/self/fd"))
    scoreboard.give(3, arbiter_of=10_000)
    assert len(os.listdir("/proc/self/fd")) - before < 20


def test_an_arbiters_worker_that_is_gone_stays_counted_and_its_row_is_free(scoreboard):
    indices = scoreboard.give(1, arbiter_of=2)

    def work():
        row = Row(scoreboard.fd, indices[0])
        row.claim(0, 1, monotonic())
        row.cells[GET] = 9.0
        signal.pause()

    row = Row(scoreboard.fd, indices[0])
    with forked(work) as pid:
        while not row.read(GET):
            pass
        assert row.read(PID) == pid
    scoreboard.sweep(1)
    assert row.used  # the arbiter has not said so
    row.cells[STATE] = GONE
    assert list(scoreboard.in_use()) == []
    assert scoreboard.totals()[GET] == 9
    scoreboard.sweep(1)
    assert not row.used
    assert scoreboard.totals()[GET] == 9
    row.claim(0, 1, monotonic())
    row.cells[GET] = 1.0
    assert scoreboard.totals()[GET] == 10
    scoreboard.take(1)
    assert scoreboard.totals()[GET] == 10
