"""Tasks on a loop that nothing runs are named; those that run, or have ended, are not."""

import asyncio
import threading

import pytest

from mooring.worker import idle_loops


class Log:
    def __init__(self):
        self.said = []

    def warning(self, text):
        self.said.append(text)


@pytest.fixture
def loop():
    made = asyncio.new_event_loop()
    yield made
    if not made.is_closed():
        made.run_until_complete(asyncio.sleep(0))
        made.close()


async def consume():
    pass


def test_a_task_of_the_import_is_named_with_its_place(loop):
    log = Log()
    task = loop.create_task(consume())
    idle_loops.warn(log)
    assert len(log.said) == 1
    assert "of consume (" in log.said[0]
    assert "test_idle_loops.py:" in log.said[0]
    loop.run_until_complete(task)
    idle_loops.warn(log)
    assert len(log.said) == 1


def test_a_loop_that_runs_in_a_thread_is_none(loop):
    log, runs, end = Log(), threading.Event(), asyncio.Event()

    async def work():
        runs.set()
        await end.wait()

    task = loop.create_task(work())
    thread = threading.Thread(target=loop.run_until_complete, args=(task,))
    thread.start()
    assert runs.wait(30)
    idle_loops.warn(log)
    loop.call_soon_threadsafe(end.set)
    thread.join(30)
    assert not log.said
