"""What granian's and gunicorn's adapters lean on beyond documented interfaces, and would break silently."""

from __future__ import annotations

import inspect
import os
import queue
import signal
import socket
import tomllib
from importlib import metadata

import pytest
from checkout import ROOT


def parameters(callable_):
    return list(inspect.signature(callable_).parameters)


class TestGranian:
    @pytest.fixture(autouse=True)
    def granian(self):
        self.rust = pytest.importorskip("granian._granian")

    WORKER = (
        *("worker_id", "sock", "ipc", "threads", "blocking_threads", "py_threads", "py_threads_idle_timeout"),
        *("backpressure", "http_mode", "http1_opts", "http2_opts", "websockets_enabled", "static_files"),
        *("ssl_enabled", "ssl_cert", "ssl_key", "ssl_key_password", "ssl_protocol_min", "ssl_ca", "ssl_crl"),
        *("ssl_client_verify", "metrics"),
    )

    def test_workers_take_these_arguments_in_this_order(self):
        assert tuple(parameters(self.rust.ASGIWorker)) == self.WORKER

    def test_options_fill_them(self):
        from mooring.engines.granian.options import options
        from mooring.settings.table import Settings

        given = 7  # up to py_threads_idle_timeout: granian.Pool
        assert len(options(Settings(), 100, websockets=True)) + given == len(self.WORKER)
        assert len(options(Settings(), 100, websockets=False)) + given == len(self.WORKER)

    def test_socket_holder_takes_a_descriptor(self):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            fd = os.dup(sock.fileno())
            holder = self.rust.SocketHolder(fd, False, 10)
            assert holder.get_fd() == fd
            assert holder.is_uds() is False
            os.close(fd)
        assert parameters(self.rust.SocketHolder) == ["fd", "uds", "backlog"]

    def test_workers_serve_tcp_and_unix(self):
        for name in ("serve_mtr", "serve_mtr_uds"):
            assert callable(getattr(self.rust.ASGIWorker, name))

    def test_signal_calls_back(self):
        signal_ = self.rust.WorkerSignal()
        signal_.add_cb(lambda: None)
        assert callable(signal_.set)

    def test_scheduler_is_made_of_loop_and_callback(self):
        from granian._futures import _new_cbscheduler

        assert parameters(_new_cbscheduler) == ["loop", "cb", "impl_asyncio"]

    def test_a_scheduler_of_our_own_calls_what_it_is_given(self):
        from mooring.engines.granian.request import Loop
        from mooring.engines.granian.wsgi import Scheduler

        made = Scheduler(Loop(), None, None, None, None)
        made._schedule_fn = print  # once only; what it returns and raises, granian does not look at

    def test_http1_settings_have_the_idle_timeout_in_milliseconds(self):
        from granian.http import HTTP1Settings

        assert HTTP1Settings().header_read_timeout == 30_000
        assert HTTP1Settings().keep_alive is True

    def test_tls_versions_are_named_like_this(self):
        from granian.constants import SSLProtocols

        assert str(SSLProtocols.tls12) == "tls1.2"

    def test_log_has_this_name(self):
        from granian.log import logger

        assert logger.name == "_granian"


class TestGunicorn:
    @pytest.fixture(autouse=True)
    def gunicorn(self):
        pytest.importorskip("gunicorn")

    def test_arbiter_keeps_listeners_that_are_there(self):
        from gunicorn.arbiter import Arbiter

        assert Arbiter.LISTENERS == []
        assert Arbiter.WORKER_BOOT_ERROR == 3
        start, stop = inspect.getsource(Arbiter.start), inspect.getsource(Arbiter.stop)
        assert "if not self.LISTENERS:" in start
        assert "not self.systemd" in stop  # else it unlinks unix paths
        assert "SIG_QUEUE = queue.SimpleQueue()" in inspect.getsource(Arbiter.__init__)
        assert isinstance(queue.SimpleQueue(), queue.SimpleQueue)
        for name in ("handle_int", "handle_usr2", "init_signals", "reap_workers", "signal", "run"):
            assert callable(getattr(Arbiter, name))

    def test_listeners_are_made_of_descriptors(self):
        from gunicorn import sock

        assert parameters(sock.create_sockets) == ["conf", "log", "fds"]

    def test_configuration_can_be_made_by_hand(self):
        from gunicorn.app.base import Application, BaseApplication
        from gunicorn.config import Config

        assert isinstance(vars(Config)["worker_class"], property)
        assert "self.do_load_config()" in inspect.getsource(BaseApplication.__init__)
        assert parameters(Application.load_config_from_module_name_or_filename) == ["self", "location"]
        assert callable(Application.chdir)
        known = Config().settings
        for name in (
            *("bind", "workers", "worker_class", "threads", "timeout", "graceful_timeout", "keepalive"),
            *("backlog", "loglevel", "errorlog", "accesslog", "asgi_loop", "forwarded_allow_ips"),
            *("worker_tmp_dir", "control_socket_disable", "daemon", "pidfile", "reload", "reuse_port"),
            *("certfile", "keyfile", "ca_certs", "cert_reqs", "ssl_context", "logger_class", "pythonpath"),
        ):
            assert name in known

    def test_names_that_serverconf_maps_are_gunicorn_s(self):
        from gunicorn.config import Config
        from gunicorn.workers import SUPPORTED_WORKERS

        from mooring.plan.server_config.values import GUNICORN
        from mooring.plan.server_config.worker_classes import WORKERS

        assert set(GUNICORN) <= set(Config().settings)
        assert set(WORKERS) == set(SUPPORTED_WORKERS)

    def test_names_that_serverconf_maps_are_hypercorn_s(self):
        config = pytest.importorskip("hypercorn.config").Config()

        from mooring.plan.server_config.values import HYPERCORN

        assert all(hasattr(config, name) for name in HYPERCORN)

    @pytest.mark.parametrize(
        "name", ["sync.SyncWorker", "gthread.ThreadWorker", "ggevent.GeventWorker", "gasgi.ASGIWorker"]
    )
    def test_workers_call_notify_in_their_loop_and_are_booted_before(self, name):
        from gunicorn.util import load_class
        from gunicorn.workers.base import Worker

        if name.startswith("ggevent"):
            pytest.importorskip("gevent")
        worker = load_class(f"gunicorn.workers.{name}")
        loops = [
            inspect.getsource(getattr(worker, loop))
            for loop in ("run", "run_for_one", "run_for_multiple", "_serve")
            if hasattr(worker, loop)
        ]
        assert any("self.notify()" in each for each in loops)
        assert "self.booted = True\n        self.run()" in inspect.getsource(Worker.init_process)
        assert parameters(Worker.__init__)[1:3] == ["age", "ppid"]

    def test_gthread_caps_idle_connections_when_it_stops(self):
        from gunicorn.workers.gthread import ThreadWorker

        assert parameters(ThreadWorker._cap_keepalive) == ["self", "deadline"]
        assert "self._cap_keepalive(" in inspect.getsource(ThreadWorker.run)
        assert "self.pending_conns" in inspect.getsource(ThreadWorker.murder_pending)
        assert "self.murder_pending()" in inspect.getsource(ThreadWorker.run)
        assert "DEFAULT_WORKER_DATA_TIMEOUT" in inspect.getsource(ThreadWorker.handle)

    def test_gevent_waits_for_a_request_within_timeout_ctx(self):
        from gunicorn.workers.base_async import AsyncWorker

        assert "with self.timeout_ctx():" in inspect.getsource(AsyncWorker.handle)

    def test_asgi_protocol_knows_when_it_is_idle(self):
        from gunicorn.asgi.protocol import ASGIProtocol
        from gunicorn.workers import gasgi

        assert gasgi.ASGIProtocol is ASGIProtocol
        assert "ASGIProtocol(self)" in inspect.getsource(gasgi.ASGIWorker._serve)
        assert "except asyncio.CancelledError" in inspect.getsource(gasgi.ASGIWorker._serve)
        assert "self._awaiting_request = True" in inspect.getsource(ASGIProtocol._handle_connection)
        assert parameters(ASGIProtocol._keepalive_timeout) == ["self"]
        assert parameters(gasgi.ASGIWorker.handle_exit_signal) == ["self"]

    def test_uvicorn_worker_takes_options_of_uvicorn_s_configuration(self):
        worker = pytest.importorskip("uvicorn_worker").UvicornWorker
        from uvicorn import Config

        assert worker.CONFIG_KWARGS == {"loop": "auto", "http": "auto"}
        assert "config_kwargs.update(self.CONFIG_KWARGS)" in inspect.getsource(worker.__init__)
        wanted = {"interface", "server_header", "proxy_headers", "timeout_graceful_shutdown", "loop"}
        assert wanted | {"ssl_context_factory"} <= set(parameters(Config))

    def test_logger_has_these_names_and_handlers(self):
        from gunicorn.glogging import Logger

        source = inspect.getsource(Logger)
        assert 'getLogger("gunicorn.error")' in source
        assert "def setup(self, cfg)" in source

    def test_arbiter_takes_the_signals_that_mooring_sends(self):
        from gunicorn.arbiter import Arbiter

        assert {signal.SIGTERM, signal.SIGTTIN, signal.SIGTTOU, signal.SIGINT} <= set(Arbiter.SIGNALS)


def test_the_extra_brings_what_gunicorns_gevent_worker_needs():
    """gunicorn's own extra says what that is; since 27 it is more than gevent: packaging."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert any(text.startswith("gunicorn[gevent]") for text in project["optional-dependencies"]["gunicorn"])
    needed = [text for text in metadata.requires("gunicorn") or () if 'extra == "gevent"' in text]
    assert any(text.startswith("packaging") for text in needed)
