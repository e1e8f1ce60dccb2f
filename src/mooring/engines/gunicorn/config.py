# mypy: disable-error-code=no-untyped-call
"""gunicorn's configuration for a plan: GUNICORN_CMD_ARGS over the user's file over mooring's settings.

That is gunicorn's own precedence (gunicorn/app/base.py). mooring's command line is stronger than all three,
as gunicorn's would be. Strongest is what the user cannot choose here: listeners, number of workers, no
daemon, no reloader, no pid file, no control socket.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shlex
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from gunicorn import util
from gunicorn.app.base import Application
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config

from mooring.application.failure import one_line
from mooring.engines import Serving
from mooring.engines.common import tls
from mooring.engines.common.lifespan import Lifespan
from mooring.engines.common.watch import accepted_connections
from mooring.engines.common.websockets import WebSockets
from mooring.engines.gunicorn import worker_classes
from mooring.engines.gunicorn.interface import find_interface
from mooring.engines.gunicorn.log import LOG, Logger
from mooring.engines.gunicorn.report import Reports
from mooring.engines.gunicorn.worker import GunicornJob, interface_of
from mooring.engines.gunicorn.worker_classes import worker_class
from mooring.errors import ConfigurationError, MooringError
from mooring.instrument import handshake
from mooring.logs.access import loggers
from mooring.plan.plan import Plan
from mooring.plan.server_config.values import GUNICORN
from mooring.settings.engines import REGISTRY
from mooring.settings.table import Settings

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 (gunicorn makes its file there safely, and unlinks it at once)
_FIELD = 8190  # bytes: gunicorn's own limit of one header field

# By name, so that uvicorn's deprecated module is not imported.
_MOVED = {
    "uvicorn.workers.UvicornWorker": "uvicorn_worker.UvicornWorker",
    "uvicorn.workers.UvicornH11Worker": "uvicorn_worker.UvicornH11Worker",
}
_DEFAULT_CLASS = {"asgi": "uvicorn.workers.UvicornWorker", "wsgi": "gthread"}


_OURS = ("gunicorn.", "uvicorn.", "uvicorn_worker.", "egg:")

_own_worker_class: Any = vars(Config)["worker_class"].fget


class Configuration(Config):
    """Gunicorn's configuration. Its worker class is a subclass of the class that the user named."""

    job: GunicornJob
    _class: type | None = None

    @property
    def base(self) -> type:
        """The worker class that the configuration names. Raises ConfigurationError if it cannot be loaded."""
        name = self.settings["worker_class"].get()
        try:
            if name in _MOVED:
                found: type = util.load_class(_MOVED[name])
            else:
                if "." in str(name) and not str(name).startswith(_OURS):
                    worker_classes.prefer_the_applications()
                found = _own_worker_class(self)
        except Exception as error:  # gunicorn puts a whole traceback into the text
            last = str(error).strip().rstrip("]").strip().rpartition("\n")[2]
            raise ConfigurationError(f"gunicorn worker class {name}: {last}") from None
        return found

    @property
    def worker_class(self) -> type:
        """The worker class that the arbiter starts."""
        if self._class is None:
            object.__setattr__(self, "_class", worker_class(self.base, self.job))
        return self._class  # type: ignore[return-value]


class GunicornApplication(Application):
    """Gives gunicorn's arbiter the configuration, and gunicorn's workers the application."""

    cfg: Any

    def __init__(self, serving: Serving, reports: Reports) -> None:
        self._serving, self._reports = serving, reports
        super().__init__()

    def do_load_config(self) -> None:
        """Make the configuration anew. Raises ConfigurationError."""
        plan = self._serving.plan
        self.cfg = cfg = Configuration()
        object.__setattr__(cfg, "job", GunicornJob(self._serving, self._reports))
        try:
            weakest = defaults(plan)
            self._apply(weakest)
            given = self._user(plan) - _own(plan)
            self._apply({name: value for name, value in weakest.items() if name in _own(plan)})
            if "worker_class" not in given | set(weakest):
                cfg.set("worker_class", _default_class(self._serving))
            if "threads" not in given and cfg.worker_class_str == "gthread":
                cfg.set("threads", plan.threads)
            self._apply({k: v for k, v in suggested(plan, given).items() if k not in given})
            self._apply(decided(self._serving))
            cfg.validate()
            if cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json or cfg.syslog:
                loggers.unwatch()  # gunicorn logs each request itself, besides
        except MooringError:
            raise
        except Exception as error:
            raise ConfigurationError(f"gunicorn configuration: {one_line(error)}") from None
        self.chdir()
        for path in (cfg.pythonpath or "").split(","):
            if path and os.path.abspath(path) not in sys.path:
                sys.path.insert(0, os.path.abspath(path))

    def load(self) -> Callable[..., Any]:
        """Load the application, in gunicorn's worker; report a failure to the process with the arbiter."""
        job = self.cfg.job
        try:
            application = self._serving.load()
            able = interface_of(self.cfg.base)
            if able and able != application.interface:
                raise ConfigurationError(
                    f"gunicorn's worker class {self.cfg.worker_class_str} cannot serve the "
                    f"{application.interface.upper()} application {application.target}"
                )
        except MooringError as error:
            self._reports.fail(error)
            raise SystemExit(Arbiter.WORKER_BOOT_ERROR) from None
        if application.interface == "asgi":
            websockets = job.websockets = WebSockets(application.call)
            lifespan = job.lifespan = Lifespan(websockets, LOG)
            return lifespan
        return handshake.ending(application.call) if handshake.has_library() else application.call

    def _apply(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, float):  # gunicorn's validators want whole seconds, its code does not
                self.cfg.settings[name].value = value
            else:
                self.cfg.set(name, value)

    def _user(self, plan: Plan) -> set[str]:
        """Apply the user's file and arguments; return the names of the options that they set."""
        parser = self.cfg.parser()
        words = shlex.split(plan.settings.gunicorn_cmd_args or "")
        arguments = {k: v for k, v in vars(parser.parse_args(words)).items() if v is not None and k != "args"}
        named = arguments.pop("config", None)
        path = plan.conf.path if plan.conf is not None and plan.conf.kind == "gunicorn" else named
        found: Mapping[str, Any] = {}
        if path:
            try:
                found = self.load_config_from_module_name_or_filename(path)
            except SystemExit:  # gunicorn has printed the traceback
                raise ConfigurationError(f"gunicorn configuration {path} failed") from None
        self._apply(arguments)
        return {name for name in found if name in self.cfg.settings} | set(arguments)


def defaults(plan: Plan) -> dict[str, Any]:
    """Mooring's settings under gunicorn's names: the weakest values."""
    settings = plan.settings
    quiet = settings.error_log is None and settings.log_level in {"debug", "info"}
    values: dict[str, Any] = {
        "timeout": settings.timeout,
        "graceful_timeout": settings.graceful_timeout,
        "keepalive": settings.keep_alive,
        "backlog": settings.backlog,
        "websocket_max_message_size": settings.websocket_max_size,
        "max_requests": settings.max_requests,
        "limit_request_fields": settings.max_fields,
        "limit_request_field_size": min(settings.max_head or _FIELD, _FIELD),
        "worker_connections": accepted_connections(plan.max_connections),
        "max_requests_jitter": _jitter(settings),
        "loglevel": "warning" if quiet else settings.log_level,
        "errorlog": "-",  # mooring's handler has the file open; gunicorn's user may lack the permission
        "accesslog": None,
        "asgi_loop": settings.loop,
        # the instrumentation trusts the same peers; gunicorn does not know the value "unix"
        "forwarded_allow_ips": ",".join(each for each in settings.forwarded_allow_ips if each != "unix"),
    }
    if settings.worker_class and settings.worker_class not in REGISTRY["hypercorn"].worker_classes:
        values["worker_class"] = settings.worker_class
    if settings.threads is not None:
        values["threads"] = settings.threads
    folder = settings.worker_tmp_dir or _spare_folder()
    if folder:
        values["worker_tmp_dir"] = folder
    return values


def _jitter(settings: Settings) -> int:
    given = settings.max_requests_jitter
    return settings.max_requests // 10 if given is None else given


def _spare_folder() -> str | None:
    """Shared memory if there is no folder for temporary files, as in a read-only container; else None."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        return _SHARED_MEMORY
    return None


def _own(plan: Plan) -> set[str]:
    """Gunicorn's names of the settings given on mooring's command line: the user's strongest values."""
    return {name for name, setting in GUNICORN.items() if plan.explained[setting].origin == "cli"}


def suggested(plan: Plan, given: set[str]) -> dict[str, Any]:
    """Values for options that the user's configuration does not set."""
    settings = plan.settings
    values: dict[str, Any] = {}
    if not given & {"logconfig", "logconfig_dict", "logconfig_json", "syslog", "statsd_host"}:
        given_conf = {"logging_conf": settings.logging_conf, "folders": plan.target.search}
        values["logger_class"] = type("Logger", (Logger,), given_conf)
    if plan.tls and "certfile" not in given:
        tls.context(settings, [])  # to raise now; the context that serves is made after gevent has patched
        context = functools.cache(lambda: tls.context(settings, ["http/1.1"]))
        values["certfile"], values["keyfile"] = settings.tls_certificate, settings.tls_key
        values["ssl_context"] = lambda conf, default: context()
    return values


def decided(serving: Serving) -> dict[str, Any]:
    """Values that mooring sets, whatever the user's configuration says."""
    return {
        "bind": [_name(each) for each in serving.sockets],
        "workers": serving.plan.workers,
        "control_socket_disable": True,
        "daemon": False,
        "pidfile": None,
        "reload": False,
        "reuse_port": False,
    }


def _name(sock: socket.socket) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if sock.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"


def _default_class(serving: Serving) -> str:
    """The worker class if the user named none: it depends on the application's interface."""
    interface = serving.plan.interface
    if interface not in _DEFAULT_CLASS:
        interface = find_interface(serving)
    if interface == "asgi" and importlib.util.find_spec("uvicorn_worker") is None:
        return "asgi"  # gunicorn's own
    return _DEFAULT_CLASS[interface]
