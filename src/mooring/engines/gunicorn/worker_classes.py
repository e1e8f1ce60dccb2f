# mypy: disable-error-code=no-untyped-call
"""The class that gunicorn starts instead of the one that the user named, and a mixin for each kind of worker.

Most of it is about the drain: gunicorn's gevent and asgi workers wait for idle keep-alive connections as long
as for requests, the asgi worker does not close WebSockets, and uvicorn's worker ends by the signal.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gunicorn
from gunicorn import sock
from gunicorn.arbiter import Arbiter

from mooring.engines.common import event_loop, tls
from mooring.engines.common.connections import Connections, Traffic, silence_of
from mooring.engines.common.stop import warn_of_cut
from mooring.engines.gunicorn.asgi import AsgiWorker
from mooring.engines.gunicorn.heads import Heads
from mooring.engines.gunicorn.requests import Requests
from mooring.engines.gunicorn.worker import MEINHELD, GunicornJob, MooringWorker, for_requests
from mooring.system import forks
from mooring.system.unpatched import native

if TYPE_CHECKING:
    from mooring.engines import Serving


UVICORN = "0.54."
"""The release that mooring's protocol classes and its server are written for."""

_TURN = 0.002  # seconds, after which a greenlet that has no need to wait lets others run


def worker_class(base: Any, job: GunicornJob) -> type:
    """The class that gunicorn starts instead of `base`."""
    body: dict[str, Any] = {"mooring_job": job, "mooring_announced": False}
    mixins: tuple[type, ...] = (MooringWorker,)
    if hasattr(base, "CONFIG_KWARGS") and uses_another_uvicorn():
        plain = {"interface": "asgi3", "server_header": False, "proxy_headers": False, "access_log": False}
        body["CONFIG_KWARGS"] = {**plain, **base.CONFIG_KWARGS}
        mixins = (OtherUvicornWorker,)
    elif hasattr(base, "CONFIG_KWARGS"):
        body["CONFIG_KWARGS"] = _uvicorn_options(base.CONFIG_KWARGS, job.serving)
        mixins = (UvicornWorker,)
    if hasattr(base, "run_for_one"):
        mixins = (SyncWorker,)
    if hasattr(base, "handle_exit_signal"):
        mixins = (AsgiWorker,)
    if hasattr(base, "_cap_keepalive"):
        mixins = (ThreadWorker,)
    if hasattr(base, "timeout_ctx"):
        mixins = (GeventWorker,)
    if any(each.__module__ == MEINHELD for each in base.__mro__):
        from mooring.engines.gunicorn.meinheld import MeinheldWorker

        mixins = (MeinheldWorker,)
    return type(base.__name__, (*mixins, base), body)


def prefer_the_applications() -> None:
    """Let a worker class of the application import the uvicorn that the application has installed.

    In an image mooring's servers come first on the path, apart from the application's packages. gunicorn and
    mooring are imported already, so they stay what they are.
    """
    ours = os.path.dirname(os.path.dirname(os.path.abspath(gunicorn.__file__)))
    if not ours.endswith("-packages") and ours in sys.path and "uvicorn" not in sys.modules:
        sys.path.remove(ours)
        sys.path.append(ours)


def uses_another_uvicorn() -> bool:
    """Whether the uvicorn that was imported is of another release than mooring's parts are written for."""
    version: str = getattr(sys.modules.get("uvicorn"), "__version__", UVICORN)
    return not version.startswith(UVICORN)


def _uvicorn_options(own: dict[str, Any], serving: Serving) -> dict[str, Any]:
    """Uvicorn's options: mooring's values, and over them those of the user's worker class (`own`)."""
    from mooring.engines.uvicorn import httptools, websockets

    websockets.quiet()
    plan, settings = serving.plan, serving.plan.settings
    options: dict[str, Any] = {
        "interface": "asgi3",
        "server_header": False,  # the same on every engine
        "ws": websockets.limited(serving),
        "ws_max_size": settings.websocket_max_size,
        "proxy_headers": False,  # the instrumentation reads them
        "timeout_graceful_shutdown": for_requests(settings.graceful_timeout),
    }
    if settings.logging_conf is not None:
        options["access_log"] = False  # the instrumentation writes to its handlers
    if settings.loop != "auto":
        own = {**own, "loop": settings.loop}
    if plan.tls:
        options["ssl_context_factory"] = lambda config, default: tls.context(settings, ["http/1.1"])
    if own.get("http", "auto") in {"auto", "httptools"}:
        own = {**own, "http": httptools.limited(serving)}
    return {**options, **own}


class OtherUvicornWorker(MooringWorker):
    """A worker class for another uvicorn than mooring's: it serves and drains as that uvicorn does."""

    def run(self) -> None:
        """Serve. Newer releases raise the signal again at the end."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        super().run()


class UvicornWorker(MooringWorker):
    """Uvicorn's worker. By itself it ends by the signal: no atexit function runs, no last line is logged."""

    mooring_uvicorn: Any = None
    mooring_early = False

    @property
    def mooring_server(self) -> Any:
        """Uvicorn's server."""
        return self.mooring_uvicorn or self

    def mooring_drain_now(self, number: int, frame: Any) -> None:
        """Handle the arbiter's order; before there is a server, leave."""
        if self.mooring_uvicorn is None:
            self.mooring_early = True
            sys.exit(0)
        self.mooring_job.serving.doors.close()  # at once: the event loop may be blocked
        self.mooring_uvicorn.ordered = self.mooring_uvicorn.should_exit = True  # it looks ten times a second

    def run(self) -> None:
        """Serve, on the application's own loop if it has one.

        At its end uvicorn raises the signal again; the handler makes that a normal exit.
        """
        if self.mooring_early:
            return
        self.mooring_told.install(lambda *_: sys.exit(0))
        config: Any = self.config  # type: ignore[attr-defined]
        own, factory = event_loop.adopted(), config.get_loop_factory() or asyncio.new_event_loop
        config.get_loop_factory = lambda: (
            lambda: event_loop.lasting(own or factory(), self.mooring_asked, self.mooring_leave)
        )
        super().run()

    async def _serve(self) -> None:
        """Serve as uvicorn's worker does, but with a server that drains."""
        from mooring.engines.gunicorn.uvicorn import GatedServer

        worker: Any = self
        server = self.mooring_uvicorn = GatedServer(worker.config, self.mooring_job.serving)
        worker.config.app = server.limited(worker.wsgi)
        self.mooring_told.own(server.handle_exit)
        worker._install_sigquit_handler()
        await server.serve(sockets=worker.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


class SyncWorker(MooringWorker):
    """Gunicorn's sync worker. By itself it sends no heartbeat during a request, however much it sends; and it
    leaves what is queued to others, of which there are none at a stop.
    """

    def run(self) -> None:
        """Serve; then what was queued when the doors closed, one by one.

        A thread sends the heartbeat while bytes of the request in flight pass.
        """
        self.mooring_requests = Requests(self.mooring_job.serving)
        self.mooring_requests.start()
        worker, own = self, super()  # type: Any, Any
        self.mooring_answer = own.handle_request  # found once: super() costs each request more than the call
        if any(not isinstance(each.getsockname(), tuple) for each in self.sockets):
            worker.handle = self.mooring_handle
        if self.cfg.timeout:
            native("_thread", "start_new_thread")(self.mooring_look, (native("time", "sleep"),))
        super().run()
        self.mooring_serve_queued()

    def mooring_handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve a connection: read its one request, and send the response. With unix sockets only."""
        self.mooring_requests.connect(client, addr)
        try:
            super().handle(listener, client, addr)  # type: ignore[misc]
        finally:
            self.mooring_requests.disconnect(client)

    def handle_request(self, listener: Any, req: Any, client: Any, addr: Any) -> None:
        """Send the response to a request."""
        if not self.mooring_requests.begin(req, client, addr):
            return
        try:
            self.mooring_answer(listener, req, client, addr)
        finally:
            self.mooring_requests.end(req, client)

    def mooring_look(self, sleep: Any) -> None:
        """Look at the connection, of which there is one: what passes on it is of the request in flight."""
        serving = self.mooring_job.serving
        connections, pause = Connections(serving.doors.names), min(1.0, self.cfg.timeout / 4)
        before: Traffic = {}
        while True:
            sleep(pause)
            now = connections.traffic() if serving.in_flight() else {}
            if any(now[each] != was for each, was in before.items() if each in now):
                self.tmp.notify()
            before = now


class ThreadWorker(MooringWorker):
    """Gunicorn's gthread worker. By itself a stop waits 2 s for idle connections, and 5 s for silent ones."""

    mooring_deadline = math.inf
    pending_conns: Any

    def init_process(self) -> None:
        """Gunicorn calls this first after the fork."""
        gthread: Any = sys.modules["gunicorn.workers.gthread"]
        gthread.DEFAULT_WORKER_DATA_TIMEOUT = 1.0  # seconds; then a thread hands a silent one to the poller
        gthread.STOP_KEEPALIVE_LINGER = self.mooring_idle
        self.mooring_reading: set[Any] = set()  # a thread is reading their request's head
        super().init_process()

    def run(self) -> None:
        """Serve, with a watch over clients that stall."""
        serving = self.mooring_job.serving
        worker, own = self, super()  # type: Any, Any
        heads = self.mooring_heads = Heads(self, serving, own.handle, own.enqueue_req)
        if heads.plain:
            worker.enqueue_req = heads.enqueue
        # found once: super() costs each request more than the call
        self.mooring_wait, self.mooring_answer = own.wait_for_and_dispatch_events, own.handle_request
        self.mooring_requests = Requests(serving, heads=not self.mooring_heads.plain)
        self.mooring_requests.start()
        super().run()

    def handle(self, conn: Any) -> Any:
        """Read a request and send the response, in one of the threads; where the head was not read before."""
        self.mooring_reading.add(conn)
        try:
            result = super().handle(conn)  # type: ignore[misc]
        finally:
            self.mooring_reading.discard(conn)
        if result is True and self.cfg.is_ssl:
            self.mooring_heads.keep_pending(conn)
        return result

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Send the response to an HTTP/1 request."""
        self.mooring_reading.discard(conn)
        sock, heads = conn.sock, self.mooring_heads
        then: Any = self.method_queue.defer  # type: ignore[attr-defined]
        if not self.mooring_requests.begin(req, sock, conn.client, lambda: then(heads.look_at_places)):
            return False
        heads.begun(conn, self.mooring_requests.upload(sock))
        try:
            return self.mooring_answer(req, conn)
        finally:
            self.mooring_requests.end(req, sock)

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        if keepalive and getattr(conn.parser.mesg.body.reader, "length", None) == 0:
            return True  # there is no rest of a body to look for
        kept: bool = super()._keepalive_after(conn, keepalive)  # type: ignore[misc]
        return kept

    def handle_http2(self, conn: Any) -> Any:
        """Serve an HTTP/2 connection: gunicorn stays in here for all its requests."""
        self.mooring_reading.discard(conn)
        sock = conn.sock
        self.mooring_requests.hold(sock, conn.client)
        try:
            return super().handle_http2(conn)  # type: ignore[misc]
        finally:
            self.mooring_requests.release(sock)

    def _cap_keepalive(self, deadline: float) -> None:
        self.mooring_deadline = min(deadline, time.monotonic() + self.mooring_idle)
        gthread: Any = sys.modules["gunicorn.workers.gthread"]
        worker: Any = self
        for listener, client, address in self.mooring_queued():
            worker.nr_conns += 1
            client.setblocking(True)
            worker.enqueue_req(gthread.TConn(self.cfg, client, address, listener.getsockname()))
        super()._cap_keepalive(self.mooring_deadline)  # type: ignore[misc]
        worker.murder_pending = self.mooring_murder_pending

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Wait for events; in a drain not for gunicorn's whole second, since less time may be left."""
        self.mooring_wait(timeout if self.alive else min(timeout, 0.1))
        if self.mooring_heads.waits():
            self.mooring_heads.look(self.mooring_deadline, self.mooring_idle)
        if not self.alive and time.monotonic() >= self.mooring_deadline:
            self.mooring_end_reading()

    def mooring_end_reading(self) -> None:
        """Wake threads with a silent client: they wait for the rest of a head, or over TLS for a request."""
        for conn in list(self.mooring_reading):
            with contextlib.suppress(OSError):  # closed meanwhile
                silent = silence_of(conn.sock)
                if silent is None or silent >= self.mooring_idle:
                    # not SSLSocket.shutdown, which drops the TLS object that the thread still uses
                    socket.socket.shutdown(conn.sock, socket.SHUT_RD)

    def murder_keepalived(self, force: bool = False) -> None:
        """Close idle connections whose time is over; `force`: all of them, at the end of the grace period."""
        if force:
            warn_of_cut(self.log.error_log, self.mooring_job.serving)
            self.mooring_heads.close()
        super().murder_keepalived(force)  # type: ignore[misc]

    def mooring_murder_pending(self) -> None:
        """Close connections that have not sent a request in time; in a drain, instead of gunicorn's own."""
        for each in self.pending_conns:
            each.timeout = min(each.timeout, self.mooring_deadline)
        super().murder_pending()  # type: ignore[misc]


class GeventWorker(MooringWorker):
    """Gunicorn's gevent worker. By itself a stop waits for the keep-alive time of every connection."""

    def init_process(self) -> None:
        """Gunicorn calls this in the worker, after the fork."""
        self.mooring_waiting: dict[Any, Any] = {}
        self.mooring_adopted: list[Any] = []
        self.mooring_end = self.mooring_turned = 0.0
        super().init_process()

    def run(self) -> None:
        """Serve, what was queued when the doors closed too.

        By itself a SystemExit in a greenlet of the application's own would end the worker at once.
        """
        import gevent

        hub = gevent.get_hub()
        handle: Any = hub.handle_error

        def handle_error(context: Any, kind: Any, value: Any, trace: Any) -> None:
            forks.end_by(value)
            if (
                self.alive
                and isinstance(context, gevent.Greenlet)
                and kind in {SystemExit, KeyboardInterrupt}
            ):
                text = "%r in a greenlet of the application: the worker serves on"
                self.log.error(text, value, exc_info=(kind, value, trace))
            else:
                handle(context, kind, value, trace)

        hub.handle_error = handle_error
        self.mooring_requests = Requests(self.mooring_job.serving, turn=self.mooring_turn)
        self.mooring_requests.start()
        super().run()
        gevent.joinall(self.mooring_adopted, timeout=max(0.0, self.mooring_end - time.monotonic()))

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Send the response to a request."""
        self.mooring_turn()
        if not self.mooring_requests.begin(req, sock, addr):
            raise StopIteration
        try:
            super().handle_request(listener_name, req, sock, addr)  # type: ignore[misc]
        finally:
            self.mooring_requests.end(req, sock)

    def mooring_turn(self) -> None:
        """Let other greenlets run: a client that always has sent more than is read would hold them all."""
        if time.monotonic() - self.mooring_turned > _TURN:
            import gevent

            gevent.sleep(0)
            self.mooring_turned = time.monotonic()

    def handle_http2(self, listener: Any, client: Any, addr: Any, **more: Any) -> None:
        """Serve an HTTP/2 connection, for all its requests."""
        self.mooring_requests.hold(client, addr)
        try:
            super().handle_http2(listener, client, addr, **more)  # type: ignore[misc]
        finally:
            self.mooring_requests.release(client)

    @contextlib.contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """Limit the time that a connection waits for its next request."""
        import gevent

        limit = self.cfg.keepalive if self.alive else min(self.mooring_idle, self.cfg.keepalive)
        with gevent.Timeout(limit, False) as timeout:
            self.mooring_waiting[timeout] = gevent.getcurrent()
            try:
                yield
            finally:
                del self.mooring_waiting[timeout]

    def mooring_handle(self, listener: Any, client: Any, address: Any) -> None:
        """Serve one connection, as gevent's server has gunicorn do."""
        worker: Any = self
        try:
            client = sock.ssl_wrap_socket(client, self.cfg) if self.cfg.is_ssl else client
        except OSError:  # the handshake failed
            client.close()
        else:
            worker.handle(listener, client, address)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin the drain."""
        import gevent

        if self.alive:
            waiting = list(self.mooring_waiting.items())  # later waits have the drain's limit already
            gevent.spawn_later(self.mooring_idle, self.mooring_close_idle, waiting)
            gevent.spawn_later(
                self.cfg.graceful_timeout, warn_of_cut, self.log.error_log, self.mooring_job.serving
            )
            self.mooring_end = time.monotonic() + self.cfg.graceful_timeout
        super().handle_exit(sig, frame)
        for each in self.mooring_queued():
            self.mooring_adopted.append(gevent.spawn(self.mooring_handle, *each))

    def mooring_tell(self) -> None:
        """Tell the application, outside the signal handler: the hub may run that, where nothing may block."""
        import gevent

        gevent.spawn(super().mooring_tell)

    def mooring_close_idle(self, waiting: list[tuple[Any, Any]]) -> None:
        """End the waits in `waiting` that still go on, each by raising its own timeout."""
        for timeout, greenlet in waiting:
            if timeout in self.mooring_waiting:
                greenlet.kill(timeout, block=False)
