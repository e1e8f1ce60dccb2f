"""What the engines on asyncio share: choosing the loop, running it with a bounded end, closing listeners.

Not for trio, and not for engines with a loop of their own.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import logging
import os
import socket
import termios
from asyncio.sslproto import _SSLProtocolTransport
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from mooring.application import importer
from mooring.engines.common.stop import StopRequest
from mooring.errors import ConfigurationError
from mooring.system import forks
from mooring.system.doors import Doors

if TYPE_CHECKING:
    import ssl

_log = logging.getLogger("mooring")
_REAP = 0.1  # seconds between two looks at connections that are closing

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def loop_factory(name: str) -> LoopFactory:
    """The factory for auto, uvloop or asyncio. Raises ConfigurationError if uvloop is not installed."""
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


def adopted() -> asyncio.AbstractEventLoop | None:
    """The loop that the application has made at its import, for what it has bound to it; None: it has none.

    A loop that was made before a fork is not taken: all forked workers would share its epoll instance. (The
    policy is looked at from inside: asking it would make a loop, or warn.)
    """
    policy = getattr(asyncio.events, "_event_loop_policy", None)
    loop: asyncio.AbstractEventLoop | None = getattr(getattr(policy, "_local", None), "_loop", None)
    if loop is None or loop.is_closed() or loop.is_running() or importer.process != os.getpid():
        return None
    return loop


def _loop(factory: LoopFactory) -> asyncio.AbstractEventLoop:
    found = adopted()
    if found is None:
        return factory()
    if getattr(factory, "__module__", "").startswith("uvloop") and type(found).__module__.startswith(
        "asyncio"
    ):
        _log.info(
            "serving on the asyncio loop that the application made at its import; without that (start "
            "tasks in its lifespan), or with uvloop.install() before it, the faster uvloop would serve"
        )
    return found


def run(
    main: Coroutine[Any, Any, None], factory: LoopFactory, stop: StopRequest, threads: int | None = None
) -> None:
    """Like asyncio.run, but leftover tasks and threads cannot delay the end beyond the grace period.

    asyncio.run waits for tasks that ignore their cancellation, and five minutes for threads. And a SystemExit
    in any task would end it. The loop is the one that the application has made, if there is one. `threads` is
    the default executor's size, None for Python's default.
    """
    loop = lasting(_loop(factory), stop.ended_by, stop.request)
    executor = ThreadPoolExecutor(threads, thread_name_prefix="mooring")
    loop.set_default_executor(executor)
    if loop.get_exception_handler() is None:
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


def lasting(
    loop: asyncio.AbstractEventLoop,
    asked: Callable[[SystemExit | KeyboardInterrupt], bool],
    stop: Callable[[str], None],
) -> asyncio.AbstractEventLoop:
    """Have `loop` run on though the application raises SystemExit in a task, or stops the loop.

    Both end a run of the loop, with all requests in it; nothing is lost where it runs on. `asked`: whether a
    signal handler has raised it, and so has begun the drain. `stop`: begin the drain, for this reason.
    """
    once = loop.run_until_complete

    def run_until_complete(main: Any) -> Any:
        task = asyncio.ensure_future(main, loop=loop)
        while True:
            try:
                return once(task)
            except (SystemExit, KeyboardInterrupt) as error:
                forks.end_by(error)
                if task.done() or loop.is_closed():
                    raise
                if not asked(error):
                    _log.error("%r in a task of the application: the worker serves on", error, exc_info=error)
            except RuntimeError:
                if task.done() or loop.is_closed():
                    raise
                stop("the application has stopped the event loop")

    loop.run_until_complete = run_until_complete  # type: ignore[assignment,method-assign]
    return loop


def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log as the loop's default handler does, but not that descriptors have run out.

    worker/descriptors.py logs that once; asyncio would log it for each try: after EMFILE its loop over the
    backlog goes on, and each turn starts a timer that accepts again, even if the listener is closed by then.
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

    On asyncio's own loop `Server.close()` drops connections that are accepted but have not run their first
    step. So stop accepting first, let those steps run, then close. Other processes' copies of the listeners,
    and unix paths, are not touched.
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


async def adopt(
    doors: Doors, protocol: Callable[[], Any], context: ssl.SSLContext | None = None, **options: Any
) -> None:
    """Serve the connections that were queued when the doors closed, as those that the loop has accepted.

    Returns once their protocols know them; with TLS that is after the handshake, and so not waited for.
    """
    loop = asyncio.get_running_loop()
    for each in doors.queued():
        client = socket.socket(fileno=each.fd)
        client.setblocking(False)
        beginning = loop.create_task(_begin(client, protocol, context, options))
        if context is None:
            await beginning
        else:
            _handshakes.add(beginning)  # a loop has only weak references to its tasks
            beginning.add_done_callback(_handshakes.discard)


_handshakes: set[asyncio.Task[None]] = set()


async def _begin(
    client: socket.socket,
    protocol: Callable[[], Any],
    context: ssl.SSLContext | None,
    options: dict[str, Any],
) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):  # the client is gone, or has failed in the handshake
        await loop.connect_accepted_socket(protocol, client, ssl=context, **options)


def close_once(transport: asyncio.BaseTransport) -> None:
    """Make every close of a connection after the first do nothing.

    At a second close CPython's TLS transport (as of 3.13) forgets its connection: it can be neither inspected
    nor aborted any more, and it waits 30 s for the client. uvloop's transport does not.
    """
    if not isinstance(transport, _SSLProtocolTransport):
        return
    close = transport.close

    def once() -> None:
        if not transport.is_closing():
            close()

    transport.close = once  # type: ignore[method-assign]


async def reap(transports: Callable[[], Iterable[asyncio.WriteTransport]]) -> None:
    """In a drain, until cancelled: abort TLS connections whose clients do not confirm the close."""
    while True:
        await asyncio.sleep(_REAP)
        for transport in list(transports()):
            _abort_delivered(transport)


def _abort_delivered(transport: asyncio.WriteTransport) -> None:
    """Abort a closing TLS connection whose peer has received all data, close_notify included.

    asyncio would wait 30 s for the peer's own close_notify. RFC 8446 6.1 does not require it, and a client
    does not read from idle connections in its pool. The kernel tells how many bytes are not delivered yet
    (tcp(7), SIOCOUTQ).
    """
    if not transport.is_closing():
        return
    queued = array.array("i", [0])
    try:
        if transport.get_extra_info("ssl_object") is None:
            return
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, queued)
    except (OSError, ValueError, AttributeError):
        return  # closed already (AttributeError: closed twice, see close_once)
    if queued[0] == 0:
        transport.abort()
