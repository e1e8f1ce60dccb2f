"""WSGI on granian: its threads run the application, this thread waits for the signal.

It corrects what granian 2.8 does against PEP 3333: the environ holds the whole environment of the process,
HTTP/1.0 is `HTTP/1`, a missing Host is an empty one. More: response.py, input.py.
"""

from __future__ import annotations

import asyncio
import io
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from granian import __version__
from granian._futures import _new_cbscheduler
from granian._granian import WSGIWorker

from mooring.engines import Serving
from mooring.engines.common.gate import Gate
from mooring.engines.common.stop import StopRequest, warn_of_cut
from mooring.engines.granian.input import Input
from mooring.engines.granian.pool import Pool
from mooring.engines.granian.response import (
    Response,
    again,
    begun,
    cut,
    head_of,
    joined,
    late,
    number,
    stream,
)
from mooring.instrument.wsgi_response import last_of_connection
from mooring.scoreboard import accelerator

Handle = Callable[[Any, dict[str, Any]], None]
LOG = logging.getLogger("_granian")
EMPTY = Input(io.BytesIO(), 0)
_RESERVE = 0.2  # seconds of the grace period, for the end of the process


def serve(serving: Serving) -> None:
    """Serve a WSGI application until drained."""
    settings = serving.plan.settings
    pool = Pool(WSGIWorker, serving, serving.plan.engine_threads)
    stop = StopRequest(settings.graceful_timeout, pool.leave)
    stop.install()
    stopped, running, gates = threading.Semaphore(0), set[object](), list[Gate]()
    handle = handler(serving.load().call, running, serving.plan.threads, gates)
    loop = asyncio.new_event_loop()  # granian needs one, but never runs it
    new_scheduler: Any = _new_cbscheduler
    schedulers = [new_scheduler(loop, handle, impl_asyncio=True) for _ in serving.sockets]
    pool.start(schedulers, loop, stopped.release)
    if not stop.requested:
        serving.ready()
    stop.wait()
    serving.drain.begin()
    gate = Gate(serving, lambda: running or serving.in_flight())  # the latter also knows streamed bodies
    gates.append(gate)
    while not gate.passed() and stop.remaining() > _RESERVE:
        time.sleep(gate.pause)
    pool.stop()
    for _ in serving.sockets:
        stopped.acquire(timeout=max(0.0, stop.remaining() - _RESERVE))
    while running and stop.remaining() > _RESERVE:
        time.sleep(0.01)  # the response is sent, but the application's close() may still run
    warn_of_cut(LOG, serving, max(len(running), len(serving.in_flight())))
    loop.close()


def handler(
    call: Callable[..., Iterable[bytes]], running: set[object], threads: int, gates: Sequence[Gate] = ()
) -> Handle:
    """The function that granian calls for each request, in its threads: with protocol object and environ."""
    base = {
        "SCRIPT_NAME": "",
        "SERVER_SOFTWARE": f"granian/{__version__}",
        "wsgi.errors": sys.stderr,
        "wsgi.input_terminated": True,
        "wsgi.multiprocess": True,
        "wsgi.multithread": threads > 1,
        "wsgi.run_once": False,
        "wsgi.version": (1, 0),
    }

    def handle(proto: Any, scope: dict[str, Any]) -> None:
        response = Response()
        running.add(response)
        multiplexed = scope["SERVER_PROTOCOL"] == "HTTP/2"
        if gates and multiplexed:
            gates[0].multiplexed = True
        try:
            environ = {**base, **scope}
            mend(environ)
            if not multiplexed and environ["wsgi.input"] is not EMPTY:
                response.body = environ["wsgi.input"]
            result = call(environ, response.start)
            if environ["REQUEST_METHOD"] == "HEAD":
                stream(proto, response, result, head=True)
            elif isinstance(result, list) and response.status:
                body = cut(response, joined(response, result))
                proto.response_bytes(*head_of(response), body)
            else:
                stream(proto, response, result)
        finally:
            running.discard(response)

    return accelerated(call, base, running, handle) or handle


def accelerated(call: Callable[..., Any], base: dict[str, Any], running: set[object], handle: Handle) -> Any:
    """What `handler` returns, in C; None without the accelerator. It passes uncommon cases to `handle`."""
    if accelerator.c is None:
        return None
    return accelerator.c.Granian(
        application=call,
        base=base,
        running=running,
        empty=EMPTY,
        handle=handle,
        body_of=body_of,
        closing=last_of_connection,
        join=joined,
        cut=cut,
        stream=stream,
        rest=begun,
        log=late,
        status_of=number,
        again=again,
    )


def mend(environ: dict[str, Any]) -> None:
    """Correct granian's environ to PEP 3333."""
    environ["wsgi.input"] = body_of(environ)
    if environ["SERVER_PROTOCOL"] == "HTTP/1":
        environ["SERVER_PROTOCOL"] = "HTTP/1.0"
    if environ.get("HTTP_HOST") == "":
        del environ["HTTP_HOST"]


def body_of(environ: dict[str, Any]) -> Input:
    """The request's body; EMPTY, one object for all, for an HTTP/1.x request without a body."""
    length = body_length(environ)
    bodiless = length == 0 and environ["SERVER_PROTOCOL"] != "HTTP/2"
    return EMPTY if bodiless else Input(environ["wsgi.input"], length)


def body_length(environ: dict[str, Any]) -> int | None:
    """The request body's length in bytes; None if it is chunked."""
    if "HTTP_TRANSFER_ENCODING" in environ:
        return None
    length = environ.get("CONTENT_LENGTH") or "0"
    return int(length) if length.isdecimal() else None
