"""A loop runs on though the application raises SystemExit in a task or stops it; nothing is lost."""

import asyncio
import logging
import sys

import pytest

from mooring.engines.common.event_loop import lasting, loop_factory


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request):
    made = loop_factory(request.param)()
    yield made
    made.close()


async def leave(error):
    raise error


def in_a_task(error):
    return lambda: asyncio.get_running_loop().create_task(leave(error))


def in_a_callback(error):
    def callback():
        raise error

    return lambda: asyncio.get_running_loop().call_soon(callback)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("way", [in_a_task, in_a_callback])
def test_an_exit_ends_nothing_else(loop, way, error, caplog):
    reasons = []
    lasting(loop, lambda _error: False, reasons.append)

    async def main():
        begin = way(error)
        held = begin()
        await asyncio.sleep(0.05)
        del held
        return "served"

    with caplog.at_level(logging.ERROR, "mooring"):
        assert loop.run_until_complete(main()) == "served"
    assert repr(error) in caplog.text
    assert reasons == []


def test_a_stopped_loop_drains(loop):
    reasons, stopping = [], asyncio.Event()

    def stop(why):
        reasons.append(why)
        loop.call_soon(stopping.set)

    lasting(loop, lambda _error: False, stop)

    async def main():
        asyncio.get_running_loop().stop()
        await stopping.wait()
        return "drained"

    assert loop.run_until_complete(main()) == "drained"
    assert reasons == ["the application has stopped the event loop"]


def test_an_exit_by_a_signal_handler_is_its_own_matter(loop, caplog):
    asked = []
    lasting(loop, lambda error: not asked.append(error), pytest.fail)

    async def main():
        asyncio.get_running_loop().call_soon(sys.exit, 0)
        await asyncio.sleep(0.05)

    loop.run_until_complete(main())
    assert len(asked) == 1
    assert caplog.text == ""


def test_what_the_engine_itself_raises_passes(loop):
    lasting(loop, lambda _error: False, pytest.fail)
    with pytest.raises(SystemExit):
        loop.run_until_complete(leave(SystemExit(1)))
    with pytest.raises(RuntimeError, match="mine"):
        loop.run_until_complete(leave(RuntimeError("mine")))
