"""What mooring's adapters lean on in uvicorn and hypercorn: an upgrade that changes it fails here, by name.

Also how a user's hypercorn configuration and mooring's decisions go together.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import ssl
from types import SimpleNamespace

import pytest

from mooring.errors import ConfigurationError
from mooring.settings.table import Settings

uvicorn = pytest.importorskip("uvicorn")
hypercorn = pytest.importorskip("hypercorn")


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def source(thing) -> str:
    return inspect.getsource(thing)


# uvicorn


@pytest.mark.parametrize(
    "name",
    [
        *(
            "http",
            "ws",
            "lifespan",
            "interface",
            "log_config",
            "access_log",
            "proxy_headers",
            "server_header",
        ),
        *("workers", "backlog", "timeout_keep_alive", "timeout_graceful_shutdown", "ssl_context_factory"),
    ],
)
def test_uvicorn_config_takes(name):
    assert name in parameters(uvicorn.Config.__init__)


async def an_app(scope, receive, send):
    return


def uvicorn_config(**options):
    return uvicorn.Config(an_app, log_config=None, interface="asgi3", lifespan="auto", **options)


def test_uvicorn_config_loads_to_the_classes_that_startup_uses():
    from mooring.engines.uvicorn.httptools import LimitedHttpToolsProtocol

    config = uvicorn_config(http=LimitedHttpToolsProtocol, ws="websockets-sansio", timeout_keep_alive=0.5)
    config.load()
    assert config.http_protocol_class is LimitedHttpToolsProtocol
    assert config.ws_protocol_class.__name__ == "WebSocketsSansIOProtocol"
    assert config.lifespan_class.__name__ == "LifespanOn"
    assert (config.ssl, config.timeout_keep_alive, config.root_path) == (None, 0.5, "")


def test_uvicorns_own_choice_for_websockets_is_the_one_named_here():
    auto, named = uvicorn_config(ws="auto"), uvicorn_config(ws="websockets-sansio")
    auto.load()
    named.load()
    assert auto.ws_protocol_class is named.ws_protocol_class


def test_uvicorn_takes_a_tls_context_from_a_factory():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    config = uvicorn_config(ssl_context_factory=lambda config, default: context)
    config.load()
    assert config.ssl is context


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("serve", ["self", "sockets"]),
        ("startup", ["self", "sockets"]),
        ("main_loop", ["self"]),
        ("on_tick", ["self", "counter"]),
        ("shutdown", ["self", "sockets"]),
        ("capture_signals", ["self"]),
    ],
)
def test_uvicorn_server_method(method, expected):
    assert parameters(getattr(uvicorn.Server, method)) == expected


def test_uvicorn_serve_calls_what_the_adapter_overrides():
    text = source(uvicorn.Server.serve) + source(uvicorn.Server._serve)
    for part in ("self.capture_signals()", "self.startup(sockets=sockets)", "self.main_loop()"):
        assert part in text
    assert "if not self.should_exit:" in text
    assert "if self.started:" in text
    assert "self.lifespan = config.lifespan_class(config)" in text


def test_uvicorn_shutdown_closes_what_startup_opened_within_its_timeout():
    text = source(uvicorn.Server.shutdown)
    for part in ("self.servers", "connection.shutdown()", "self.config.timeout_graceful_shutdown"):
        assert part in text
    assert "self.lifespan.shutdown()" in text


def test_uvicorn_server_state_holds_connections_with_their_transport():
    server = uvicorn.Server(uvicorn_config())
    assert isinstance(server.server_state.connections, set)
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    for protocol in (HttpToolsProtocol, WebSocketsSansIOProtocol):
        assert {"config", "server_state", "app_state"} <= set(parameters(protocol.__init__))
        assert "self.transport = transport" in source(protocol.connection_made)
    assert "1012" in source(WebSocketsSansIOProtocol.shutdown)


def test_uvicorn_lifespan_has_what_startup_reads():
    from uvicorn.lifespan.on import LifespanOn

    text = source(LifespanOn.__init__)
    assert "self.should_exit = False" in text
    assert "self.state" in text
    assert parameters(LifespanOn.startup) == ["self"]


def test_uvicorn_sets_the_method_in_the_scope_when_the_head_is_complete():
    from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

    assert 'self.scope["method"]' in source(HttpToolsProtocol.on_headers_complete)
    assert '"method"' not in source(HttpToolsProtocol.on_message_begin)
    assert "self.headers = []" in source(HttpToolsProtocol.on_message_begin)
    assert STATUS_LINE[431] == b"HTTP/1.1 431 Request Header Fields Too Large\r\n"


# hypercorn


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_hypercorn_worker_serve(loop):
    run = pytest.importorskip(f"hypercorn.{loop}.run")
    assert parameters(run.worker_serve)[:4] == ["app", "config", "sockets", "shutdown_trigger"]
    text = source(run.worker_serve)
    assert "config.graceful_timeout" in text
    assert "raise_shutdown" in text
    assert "context.terminated.set()" in text
    # the module names that the adapters put theirs in the place of
    assert ("asyncio.start_server" if loop == "asyncio" else "trio.serve_listeners") in text
    assert inspect.ismodule(vars(run)[loop])
    assert "TCPServer" in text
    read, send = vars(run)["TCPServer"]._read_data, vars(run)["TCPServer"].protocol_send
    assert source(read).rstrip().endswith("await self.protocol.handle(Closed())")
    assert "self.idle_task.restart" in source(send)


def test_hypercorn_asyncio_closes_and_awaits_its_servers():
    from hypercorn.asyncio import run

    text = source(run.worker_serve)
    assert "server.close()" in text
    assert "await server.wait_closed()" in text
    assert "asyncio.wait_for(gathered_server_tasks, config.graceful_timeout)" in text


def test_hypercorn_sockets():
    from hypercorn.config import Sockets

    assert parameters(Sockets) == ["secure_sockets", "insecure_sockets", "quic_sockets"]


def test_hypercorn_app_wrappers():
    from hypercorn.app_wrappers import ASGIWrapper, WSGIWrapper

    assert parameters(ASGIWrapper.__init__) == ["self", "app"]
    assert parameters(WSGIWrapper.__init__) == ["self", "app", "max_body_size"]
    for wrapper in (ASGIWrapper, WSGIWrapper):
        assert parameters(wrapper.__call__) == ["self", "scope", "receive", "send", "sync_spawn", "call_soon"]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_hypercorn_task_group_gives_the_application_a_way_to_run_threads(loop):
    group = pytest.importorskip(f"hypercorn.{loop}.task_group")
    assert parameters(group.TaskGroup.spawn_app) == ["self", "app", "config", "scope", "send"]
    spawner = "self._loop.run_in_executor" if loop == "asyncio" else "trio.to_thread.run_sync"
    assert spawner in source(group.TaskGroup.spawn_app)


def test_hypercorn_h2_protocol():
    import hypercorn.protocol
    from hypercorn.protocol.h2 import H2Protocol

    assert vars(hypercorn.protocol)["H2Protocol"] is not None
    assert "self.protocol = H2Protocol(" in source(hypercorn.protocol.ProtocolWrapper)
    assert parameters(H2Protocol.stream_send) == ["self", "event"]
    text = source(H2Protocol.__init__)
    for name in ("self.stream_buffers", "self.closed", "self.context"):
        assert name in text
    assert "del self.stream_buffers[stream_id]" in source(H2Protocol._send_data)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_hypercorn_worker_context(loop):
    context = pytest.importorskip(f"hypercorn.{loop}.worker_context").WorkerContext
    assert parameters(context.sleep) == ["wait"]
    assert callable(context.event_class.is_set)


def test_hypercorn_lifespan_errors():
    from hypercorn.utils import LifespanFailureError, LifespanTimeoutError

    assert parameters(LifespanTimeoutError.__init__) == ["self", "stage"]
    assert parameters(LifespanFailureError.__init__) == ["self", "stage", "message"]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "accesslog",
            "errorlog",
            "workers",
            "use_reloader",
            "max_requests",
            "backlog",
            "keep_alive_timeout",
        ),
        *("graceful_timeout", "shutdown_timeout", "startup_timeout", "h11_max_incomplete_size", "ca_certs"),
        *(
            "include_server_header",
            "alpn_protocols",
            "certfile",
            "keyfile",
            "keyfile_password",
            "verify_mode",
        ),
        *("wsgi_max_body_size", "ssl_enabled"),
    ],
)
def test_hypercorn_config_has(name):
    from hypercorn.config import Config

    assert hasattr(Config, name)


def test_hypercorn_takes_a_logger_and_no_access_log():
    from hypercorn.config import Config

    config, logger = Config(), logging.getLogger("hypercorn.error")
    config.errorlog, config.accesslog = logger, None
    assert config.log.error_logger is logger
    assert config.log.access_logger is None
    assert logger.handlers == []


# asyncio


def test_a_listening_server_shows_its_sockets():
    async def look() -> list[int]:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        numbers = [listener.fileno() for listener in server.sockets]
        server.close()
        return numbers

    assert all(number > 0 for number in asyncio.run(look()))
    assert isinstance(asyncio.new_event_loop(), asyncio.SelectorEventLoop)


# The user's hypercorn configuration

PYTHON = "bind = '127.0.0.1:1'\naccesslog = '-'\nmax_requests = 1\nworkers = 9\nwsgi_max_body_size = 5\n"


def plan(conf: str | None, **settings: object) -> SimpleNamespace:
    brought = None if conf is None else SimpleNamespace(kind="hypercorn", path=conf)
    return SimpleNamespace(settings=Settings(**settings), conf=brought)  # type: ignore[arg-type]


def configuration(conf: str | None, **settings: object):
    from mooring.engines.hypercorn.config import configuration as made

    return made(plan(conf, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["file:{}/conf.py", "{}/conf.py", "{}/conf.toml", "python:conf_of_the_user"])
def test_every_form_of_a_hypercorn_configuration_is_loaded(tmp_path, monkeypatch, form):
    for name in ("conf.py", "conf.toml", "conf_of_the_user.py"):
        (tmp_path / name).write_text(PYTHON)
    monkeypatch.syspath_prepend(tmp_path)
    config = configuration(form.format(tmp_path), keep_alive=7.0, backlog=3)
    assert config.wsgi_max_body_size == 5
    assert (config.accesslog, config.max_requests, config.workers) == (None, None, 1)
    assert (config.keep_alive_timeout, config.backlog) == (7.0, 3)
    assert config.errorlog is logging.getLogger("hypercorn.error")


def test_what_mooring_only_suggests_is_the_users_where_he_says_so(tmp_path):
    path = tmp_path / "conf.py"
    path.write_text(
        "include_server_header = True\nh11_max_incomplete_size = 9\nalpn_protocols = ['http/1.1']\n"
    )
    config = configuration(str(path))
    assert (config.include_server_header, config.h11_max_incomplete_size) == (True, 9)
    assert config.alpn_protocols == ["http/1.1"]
    assert configuration(str(path), http="2").alpn_protocols == ["h2"]
    assert configuration(None).include_server_header is False
    assert configuration(None).h11_max_incomplete_size == 65536


def test_a_configuration_that_fails_is_named(tmp_path):
    path = tmp_path / "conf.py"
    path.write_text("1 / 0\n")
    with pytest.raises(ConfigurationError, match=r"hypercorn configuration .*conf\.py.*ZeroDivisionError"):
        configuration(str(path))
    with pytest.raises(ConfigurationError, match=r"missing\.toml can't be loaded: FileNotFoundError"):
        configuration(f"{tmp_path}/missing.toml")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, "asyncio"), ({"loop": "uvloop"}, "uvloop"), ({"loop": "uvloop", "worker_class": "trio"}, "trio")],
)
def test_the_worker_class(settings, expected):
    from mooring.engines.hypercorn.adapter import _worker_class, check

    check(plan(None, **settings))  # type: ignore[arg-type]
    assert _worker_class(Settings(**settings)) == expected


def test_an_unknown_worker_class_is_refused():
    from mooring.engines.hypercorn.adapter import check

    with pytest.raises(ConfigurationError, match="'gevent': hypercorn has asyncio, uvloop, trio"):
        check(plan(None, worker_class="gevent"))  # type: ignore[arg-type]
