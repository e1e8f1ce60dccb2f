"""What the engines on an asyncio loop share: which loop, running it with a bounded end, leaving a listener.

Not for trio, and not for engines with a loop of their own.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import termios
from asyncio.sslproto import _SSLProtocolTransport
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mooring.engines.common.stop import StopRequest
from mooring.errors import ConfigurationError

_REAP = 0.1  # seconds between two looks at connections that are closing

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def loop_factory(name: str) -> LoopFactory:
    """The factory for auto, uvloop or asyncio. Raises ConfigurationError where uvloop is missing."""
    if name != "asyncio":
        try:
            import uvloop
        except ImportError:
            if name == "uvloop":
                raise ConfigurationError("uvloop is not installed: pip install uvloop") from None
        else:
            factory: LoopFactory = uvloop.new_event_loop
            return factory
    return asyncio.new_event_loop


def run(
    main: Coroutine[Any, Any, None], factory: LoopFactory, stop: StopRequest, threads: int | None = None
) -> None:
    """Like asyncio.run, but what the application leaves behind can hold the end only for the grace period.

    asyncio.run waits for tasks that swallow their cancellation, and five minutes for threads. `threads` is
    the
    default executor's size, None for Python's own choice.
    """
    loop = factory()
    executor = ThreadPoolExecutor(threads, thread_name_prefix="mooring")
    loop.set_default_executor(executor)
    loop.set_exception_handler(handle)
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(main)
    finally:
        try:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left, timeout=stop.remaining()))
            loop.run_until_complete(_within(loop.shutdown_asyncgens(), stop.remaining()))
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
            asyncio.set_event_loop(None)
            loop.close()


def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log as by default, but for a lack of descriptors: worker/descriptors.py says it once, asyncio all the
    time.

    Its loop over the backlog goes on after EMFILE, and each turn starts a timer to accept again, also from a
    listener that is closed by then.
    """
    text = str(context.get("message"))
    closed = "_start_serving(" in text and isinstance(context.get("exception"), ValueError)
    if text != "socket.accept() out of system resource" and not closed:
        loop.default_exception_handler(context)


async def _within(work: Coroutine[Any, Any, None], seconds: float) -> None:
    await asyncio.wait({asyncio.ensure_future(work)}, timeout=seconds)


def event_of(stop: StopRequest) -> asyncio.Event:
    """An event of the running loop that is set when the stop is requested."""
    event, loop = asyncio.Event(), asyncio.get_running_loop()
    if isinstance(loop, asyncio.SelectorEventLoop):
        waker = stop.waker()
        waker.setblocking(False)
        loop.add_reader(waker, waker.recv, 4096)
    stop.on_request(lambda: loop.call_soon_threadsafe(event.set))
    return event


async def stop_accepting(servers: Iterable[asyncio.AbstractServer]) -> None:
    """Close this process's listeners without losing a connection that was just accepted.

    On the plain loop `Server.close()` drops connections between accept and their first step: stop reading
    first, and let those steps run. Other processes' copies of the listening sockets, and unix paths, are not
    touched.
    """
    servers, loop = list(servers), asyncio.get_running_loop()
    if isinstance(loop, asyncio.SelectorEventLoop):
        for server in servers:
            for listener in getattr(server, "sockets", ()):
                loop.remove_reader(listener.fileno())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for server in servers:
        server.close()


def close_once(transport: asyncio.BaseTransport) -> None:
    """Let further closes of a connection change nothing.

    At a second one CPython's TLS transport (as of 3.13) forgets its connection: it can't be asked about or
    aborted any more, and its end waits 30 s for the client. uvloop's does not.
    """
    if not isinstance(transport, _SSLProtocolTransport):
        return
    close = transport.close

    def once() -> None:
        if not transport.is_closing():
            close()

    transport.close = once  # type: ignore[method-assign]


async def reap(transports: Callable[[], Iterable[asyncio.WriteTransport]]) -> None:
    """In a drain, until cancelled: end those TLS connections whose close nobody answers."""
    while True:
        await asyncio.sleep(_REAP)
        for transport in list(transports()):
            _abort_delivered(transport)


def _abort_delivered(transport: asyncio.WriteTransport) -> None:
    """End a closing TLS connection whose peer has it all, the closing alert included, and does not answer it.

    asyncio waits 30 s for that answer, RFC 8446 6.1 does not ask for it, and a client's idle pool does not
    read. The kernel tells what is not delivered yet (tcp(7), SIOCOUTQ).
    """
    if not transport.is_closing():
        return
    queued = array.array("i", [0])
    try:
        if transport.get_extra_info("ssl_object") is None:
            return
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, queued)
    except (OSError, ValueError, AttributeError):
        return  # closed already; an AttributeError: closed twice, see close_once
    if queued[0] == 0:
        transport.abort()
