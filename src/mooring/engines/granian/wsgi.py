"""WSGI on granian: its threads run the application, this thread waits for the signal.

The request is made of what granian's ASGI worker gives: request.py. There a missing Host is an empty one. The
body and the response as PEP 3333 wants them: input.py, response.py.
"""

from __future__ import annotations

import io
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from granian import __version__
from granian._granian import CallbackScheduler

from mooring.engines import Serving
from mooring.engines.common.gate import Gate
from mooring.engines.common.refusal import LARGE
from mooring.engines.common.stop import StopRequest, warn_of_cut
from mooring.engines.common.watch import Busy, Watch
from mooring.engines.granian.bodies import peer_of
from mooring.engines.granian.input import Input
from mooring.engines.granian.pool import Pool
from mooring.engines.granian.request import Loop, RefusedError, Rules, scheduler
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


class Scheduler(CallbackScheduler):
    """Granian's scheduler, which here calls the application in the thread that it is called in."""

    __slots__ = ()


def serve(serving: Serving) -> None:
    """Serve a WSGI application until drained."""
    settings = serving.plan.settings
    threads = serving.plan.engine_threads
    pool = Pool(serving, threads + 1, websockets=False)  # one is granian's: request.py
    stop = StopRequest(settings.graceful_timeout, pool.leave)
    stop.install(serving)
    stopped, running, gates = threading.Semaphore(0), set[Any](), list[Gate]()
    multiplexed = list[set[Any]]()
    handle = handler(
        serving.load().call, running, serving.plan.threads, gates, multiplexed, settings.max_body
    )
    loop = Loop()
    rules = Rules(serving)
    watch = Watch(serving, lambda: busy(running, rules), named=False)
    multiplexed.append(watch.multiplexed)
    if watch.answered is not None:
        handle = noted(handle, watch.answered)
    kind: Any = Scheduler
    schedule = kind(loop, None, None, None, None)
    # One for all sockets: each has threads of its own, but they take their turns together.
    schedule._schedule_fn = scheduler(handle, threads, rules)
    schedulers = [schedule] * len(serving.sockets)
    pool.start(schedulers, loop, stopped.release)
    watch.start()
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


def handler(  # noqa: PLR0917
    call: Callable[..., Iterable[bytes]],
    running: set[Any],
    threads: int,
    gates: Sequence[Gate] = (),
    multiplexed: Sequence[set[Any]] = (),
    max_body: int = 0,
) -> Handle:
    """What is called for each request, in granian's threads: with where the answer goes, and the environ.

    `running` has where the answers go of the requests in flight.
    """
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
        running.add(proto)
        is_multiplexed = scope["SERVER_PROTOCOL"] == "HTTP/2"
        if gates and is_multiplexed:
            gates[0].multiplexed = True
        if multiplexed and is_multiplexed:
            multiplexed[0].add(peer_of(proto.scope))
        try:
            environ = {**base, **scope}
            mend(environ, max_body)
            if not is_multiplexed and environ["wsgi.input"] is not EMPTY:
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
            running.discard(proto)

    return accelerated(call, base, running, handle, max_body) or handle


def noted(handle: Handle, answered: set[Any]) -> Handle:
    """`handle`, which notes each client; only with TLS, so that others do without."""

    def handling(proto: Any, scope: dict[str, Any]) -> None:
        answered.add(peer_of(proto.scope))
        handle(proto, scope)

    return handling


def busy(running: set[Any], rules: Rules) -> Busy:
    """What the watch asks for, in its thread: the requests that are parked, in the queue, or in flight."""
    # in the order in which a request passes them: one that goes on meanwhile is seen twice, not never
    parked, queued, exchanges = list(rules.parking.parked), list(rules.waiting), list(running)
    everything = (*parked, *queued, *exchanges)
    uploads = [each.body for each in parked]
    uploads += [each.body for each in exchanges if each.body is not None and not each.body.ended]
    rules.parking.look()
    return Busy(
        {peer_of(each.scope) for each in everything},
        uploads,
        unnamed=[each.proto for each in everything if not each.scope["client"][0]],
        sendings=list(rules.sendings),
    )


def accelerated(
    call: Callable[..., Any], base: dict[str, Any], running: set[Any], handle: Handle, max_body: int
) -> Any:
    """What `handler` returns, in C; None without the accelerator. It passes uncommon cases to `handle`."""
    if accelerator.c is None:
        return None
    return accelerator.c.Granian(
        application=call,
        base=base,
        running=running,
        empty=EMPTY,
        handle=handle,
        body_of=lambda environ: body_of(environ, max_body),
        closing=last_of_connection,
        join=joined,
        cut=cut,
        stream=stream,
        rest=begun,
        log=late,
        status_of=number,
        again=again,
    )


def mend(environ: dict[str, Any], max_body: int = 0) -> None:
    """Correct granian's environ to PEP 3333. Raises RefusedError for a body that is too large."""
    environ["wsgi.input"] = body_of(environ, max_body)
    if environ.get("HTTP_HOST") == "":
        del environ["HTTP_HOST"]


def body_of(environ: dict[str, Any], max_body: int = 0) -> Input:
    """The request's body; EMPTY, one object for all, for an HTTP/1.x request without a body.

    Raises RefusedError for a body that is too large.
    """
    length = body_length(environ)
    if max_body and length is not None and length > max_body:
        raise RefusedError(LARGE, "body_size")
    bodiless = length == 0 and environ["SERVER_PROTOCOL"] != "HTTP/2"
    return EMPTY if bodiless else Input(environ["wsgi.input"], length)


def body_length(environ: dict[str, Any]) -> int | None:
    """The request body's length in bytes; None if it is chunked."""
    if "HTTP_TRANSFER_ENCODING" in environ:
        return None
    length = environ.get("CONTENT_LENGTH") or "0"
    return int(length) if length.isdecimal() else None
