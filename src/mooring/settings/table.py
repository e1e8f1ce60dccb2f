# ruff: noqa: E501
"""The only table of settings: each field of Settings is one row. The command line's options,
`mooring settings`, docs/settings.md, validation and `mooring check` derive from it. Not for reading values
from their origins: resolve.py.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

from mooring.settings import import_string, parsers
from mooring.system import address
from mooring.system.address import Address

MOST_WORKERS = 4096
APPLICATION, ENGINE, LISTENERS, WORKERS = "Application", "Engine", "Listeners", "Workers"
TIMES, REQUESTS, START, LOGS, DEVELOPMENT, INSTANCE = (
    "Timeouts",
    "Requests",
    "Start",
    "Logs",
    "Development",
    "Instance",
)
TLS_SWITCH = "to turn TLS on or off"


class Setting(NamedTuple):
    """One setting: its name, its variables (strongest first), its parser, default and help.

    `restart`: whether only a restart changes it, because it is opened, started or decided once, before any
    worker; or a text saying which part. All else is taken up by a roll.
    """

    name: str
    section: str
    help: str
    parse: parsers.Parser
    default: Any
    bare: tuple[str, ...] = ()
    secret: bool = False
    empty_disables: bool = False
    shown_default: str = ""
    restart: bool | str = False

    @property
    def canonical(self) -> str:
        """The variable that always exists: MOORING_<NAME>."""
        return "MOORING_" + self.name.upper()

    @property
    def from_file(self) -> str:
        """The variable that names a file which holds the value, as secrets are given: MOORING_<NAME>_FILE."""
        return f"{self.canonical}_FILE"

    @property
    def variables(self) -> tuple[str, ...]:
        """Every variable that sets the value, strongest first."""
        return (self.canonical, *self.bare)

    @property
    def option(self) -> str:
        """The setting's option on the command line."""
        return "--" + self.name.replace("_", "-")


# Parsers that need other modules. They are imported only when a value is given, or is bad.


def _engine(value: str) -> str:
    """The name of an engine, or auto."""
    from mooring.settings.engines import REGISTRY, offered

    name = value.lower()
    if name == "auto" or name in REGISTRY:
        return name
    raise ValueError(f"one of auto, {offered()}")


def _trusted(value: str) -> tuple[str, ...]:
    """The peers whose X-Forwarded-* headers are believed."""
    from mooring.settings.trusted import parse_trusted

    items = parsers.items(value)
    parse_trusted(items)
    return items


def _instance(value: str) -> str:
    """An instance's name. It is also used as the name of a file."""
    if value[:1] in ".-" or not all((part.isascii() and part.isalnum()) or part in "._-" for part in value):
        raise ValueError("letters, digits, '.', '_' and '-', beginning with a letter, a digit or '_'")
    return value


def _row(
    section: str, parse: parsers.Parser, default: Any, help_text: str, *bare: str, **more: Any
) -> Any:  # Any, since a dataclass field is assigned to a name of the setting's type
    facts = {"section": section, "parse": parse, "help": help_text, "bare": bare, **more}
    return dataclasses.field(default=default, metadata=facts)


@dataclass(frozen=True)
class Settings:
    """Every setting with its value. None means: not set, tuned by the plan or left to the engine."""

    # fmt: off
    app: str | None = _row(APPLICATION, import_string.application, None, "The application as MODULE:ATTRIBUTE; ATTRIBUTE may be a factory, and may be called: create_app()", "APP_MODULE", shown_default="found by the search order")
    module_name: str | None = _row(APPLICATION, import_string.parse_module, None, "The module that holds the application, in dotted form; APP_MODULE wins over it", "MODULE_NAME", shown_default="found by the search order")
    variable_name: str | None = _row(APPLICATION, import_string.attribute, None, "The name in the module that holds the application; APP_MODULE wins over it", "VARIABLE_NAME", shown_default="app, or what the module offers")
    app_root: str | None = _row(APPLICATION, parsers.text, None, "The application root: searched for the application, first on sys.path, the workers' working folder", shown_default="the working folder")
    interface: str = _row(APPLICATION, parsers.choice("auto", "asgi", "wsgi"), "auto", "The application's interface; auto looks at the application")

    engine: str = _row(ENGINE, _engine, "auto", "The HTTP server inside each worker; auto is uvicorn for ASGI, granian for WSGI, and gunicorn where gunicorn configuration is given")
    worker_class: str | None = _row(ENGINE, parsers.text, None, "hypercorn: asyncio, uvloop or trio; gunicorn: its worker class (sync, gthread, gevent, asgi, a dotted name), which also chooses the gunicorn engine", "WORKER_CLASS")
    loop: str = _row(ENGINE, parsers.choice("auto", "uvloop", "asyncio"), "auto", "The event loop of ASGI workers; auto is uvloop where it is installed")
    http: str = _row(ENGINE, parsers.choice("auto", "1", "2"), "auto", "HTTP versions: 1, 2 (needs granian or hypercorn), or auto for what the engine offers")
    gunicorn_conf: str | None = _row(ENGINE, parsers.text, None, "A gunicorn configuration file; it chooses the gunicorn engine", "GUNICORN_CONF", shown_default="found by the profile's search order")
    gunicorn_cmd_args: str | None = _row(ENGINE, parsers.text, None, "Arguments for gunicorn, as on its command line; they choose the gunicorn engine", "GUNICORN_CMD_ARGS")
    hypercorn_conf: str | None = _row(ENGINE, parsers.text, None, "A hypercorn configuration (PATH.py, PATH.toml, file:PATH, python:MODULE); it chooses the hypercorn engine", "HYPERCORN_CONF", shown_default="found by the profile's search order")

    bind: tuple[Address, ...] | None = _row(LISTENERS, address.parse_bind, None, f"Where to listen: {address.EXPECTED}; it wins over HOST and PORT", "BIND", shown_default="HOST:PORT", restart=True)
    host: str = _row(LISTENERS, address.parse_host, "127.0.0.1", "The address to listen on", "HOST", restart=True)
    port: int = _row(LISTENERS, address.parse_port, 8000, "The TCP port to listen on; 0 lets the kernel choose, and the choice is printed", "PORT", restart=True)
    unix_mode: int = _row(LISTENERS, parsers.octal_mode, 0o666, "Permission bits of a unix socket, in octal", shown_default="666", restart=True)
    backlog: int = _row(LISTENERS, parsers.integer(1, 65535), 2048, "Connections that may wait to be accepted", restart=True)
    tls_certificate: str | None = _row(LISTENERS, parsers.text, None, "A PEM file with the certificate chain; with tls_key it turns TLS on", restart=TLS_SWITCH)
    tls_key: str | None = _row(LISTENERS, parsers.text, None, "A PEM file with the private key", restart=TLS_SWITCH)
    tls_key_password: str | None = _row(LISTENERS, parsers.text, None, "The password of the private key", secret=True, restart=TLS_SWITCH)
    tls_client_ca: str | None = _row(LISTENERS, parsers.text, None, "A PEM file of authorities: clients must then present a certificate signed by one of them", restart=TLS_SWITCH)

    workers: int | None = _row(WORKERS, parsers.integer(1, MOST_WORKERS), None, "Worker processes, exactly", "WEB_CONCURRENCY", "WORKERS", shown_default="tuned: CPU cores x WORKERS_PER_CORE, capped by memory")
    workers_per_core: float = _row(WORKERS, parsers.number(0, MOST_WORKERS, exclusive=True), 1.0, "Workers for each CPU core that the container can really use", "WORKERS_PER_CORE")
    max_workers: int = _row(WORKERS, parsers.integer(0, MOST_WORKERS), 0, "Upper bound of the tuned number of workers; 0 is none", "MAX_WORKERS", shown_default="none")
    cpu_count: float | str | None = _row(WORKERS, parsers.cpu_count, None, "CPU cores to plan with, instead of those found; host is all cores of the machine", shown_default="found: quota, cpuset and affinity")
    threads: int | None = _row(WORKERS, parsers.integer(1, 1024), None, "Threads of each WSGI worker", shown_default="tuned: 8 for each core, shared by the workers, 4 to 32")
    memory_headroom: int = _row(WORKERS, parsers.integer(0, 90), 10, "Percent of the memory limit that the tuned number of workers leaves free; rolls may use half of it")
    max_requests: int = _row(WORKERS, parsers.integer(0), 0, "Recycle a worker after so many requests: its replacement is ready first; 0 is never", shown_default="never")
    max_requests_jitter: int | None = _row(WORKERS, parsers.integer(0), None, "Up to so many requests more, different for each worker", shown_default="a tenth of max_requests")
    max_worker_age: float = _row(WORKERS, parsers.seconds(), 0.0, "Recycle a worker after so many seconds, or up to a tenth earlier; 0 is never", shown_default="never")
    max_worker_memory: int | str | None = _row(WORKERS, parsers.memory, None, "Recycle a worker whose memory (proportional set size) stays above a size, such as 256M, or a share of the memory limit, such as 25%", shown_default="no limit")
    preload: str = _row(WORKERS, parsers.choice("off", "warn", "refuse", on="refuse", true="refuse", false="off"), "off", "Import the application once, in a template process that the workers are forked from: refuse, or only warn of, an application whose import leaves behind what a fork does not carry over (threads, child processes, open sockets and SQLite databases, event loops)", restart=True)
    user: str | None = _row(WORKERS, parsers.text, None, "Started as root: the user (name or uid, optionally :group) that imports and runs the application", restart=True)

    timeout: float = _row(TIMES, parsers.seconds(), 30.0, "Seconds without a sign of life after which a worker counts as hung; 0 is never", "TIMEOUT")
    graceful_timeout: float = _row(TIMES, parsers.seconds(), 8.0, "The grace period: seconds that a drain may take", "GRACEFUL_TIMEOUT")
    keep_alive: float = _row(TIMES, parsers.seconds(), 75.0, "Seconds that an idle kept-alive connection stays open", "KEEP_ALIVE")
    boot_timeout: float = _row(TIMES, parsers.seconds(0, exclusive=True), 120.0, "Seconds that a worker may take until it is ready")
    drain_delay: float = _row(TIMES, parsers.seconds(), 0.0, "Seconds from TERM, when readiness turns off, until workers stop accepting", shown_default="0; in Kubernetes 5, but not in the profiles of older images")

    drain_idle: float = _row(TIMES, parsers.seconds(), 1.0, "Seconds that a connection may stay idle in a drain, until it is closed")

    head_timeout: float = _row(TIMES, parsers.seconds(), 20.0, "Seconds from the connection, or from a kept-alive connection's next byte, to a whole head of a request; then 408, or the end; TLS handshakes count; 0 is no limit")
    body_timeout: float = _row(TIMES, parsers.seconds(), 60.0, "Seconds without a byte of a body that the application waits for, then 408, or the end; after the first 20 a body must come with at least 240 bytes a second; 0 is no limit")
    send_timeout: float = _row(TIMES, parsers.seconds(), 60.0, "Seconds in which a client takes no byte of an answer that waits for it, then the connection is cut; 0 is no limit")

    root_path: str = _row(REQUESTS, parsers.text, "", "The path under which a proxy publishes the application (ASGI root_path, WSGI SCRIPT_NAME)")
    max_in_flight: int = _row(REQUESTS, parsers.integer(0, 1_000_000), 0, "The most requests in flight in one worker; what comes beyond is answered with 503 and Retry-After at once; on WSGI no more than the threads; 0 is no limit", shown_default="no limit")
    request_timeout: float = _row(REQUESTS, parsers.seconds(), 0.0, "Seconds after which a request is answered with 504, or its response cut where it has begun; 0 is no limit. WSGI: its thread goes on, and a worker that has lost half of its threads so is replaced", shown_default="no limit")
    max_head: int = _row(REQUESTS, parsers.size, 65_536, "The largest head of a request, in bytes, such as 64K; beyond it 431; it bounds trailers and chunk extensions too", shown_default="64K")
    max_fields: int = _row(REQUESTS, parsers.integer(1, 1000), 100, "The most header fields of a request; beyond it 431")
    max_body: int = _row(REQUESTS, parsers.size, 0, "The largest body of a request, such as 10M; beyond it 413; 0 is no limit", shown_default="no limit")
    max_connections: int | None = _row(REQUESTS, parsers.integer(1, 1_000_000), None, "The most connections of a worker; when it is full, the oldest idle or silent one is closed", shown_default="tuned: from the limit of descriptors and the memory, at most 10000")
    websocket_max_size: int = _row(REQUESTS, parsers.message_size, 16 * 2**20, "The largest WebSocket message from a client, in bytes after decompression, such as 512K or 16M; a larger one closes its connection with 1009", shown_default="16M")
    forwarded_allow_ips: tuple[str, ...] = _row(REQUESTS, _trusted, ("127.0.0.1", "::1", "unix"), "Peers whose X-Forwarded-* headers are believed: addresses, networks, unix, or * for all", "FORWARDED_ALLOW_IPS", shown_default="127.0.0.1,::1,unix")

    request_id: str | None = _row(REQUESTS, parsers.header_name, "auto", "The header that carries the request's id: taken from a trusted peer, else made; for the application, on the response and in the access log; auto is x-request-id where the access log's form shows ids (json, %(rid)s), empty is off", empty_disables=True)
    trace_context: bool = _row(REQUESTS, parsers.flag, False, "W3C trace context: traceparent is taken from a trusted peer, else made; the application and the JSON access log have it, the response has traceresponse", shown_default="false")

    pre_start_path: str | None = _row(START, parsers.text, None, "A script to run once before any worker: .sh is sourced (its exports and its cd count), .py is run with this Python, others are executed", "PRE_START_PATH", shown_default="prestart.sh in the application root", restart=True)
    pre_start_timeout: float = _row(START, parsers.seconds(), 0.0, "Seconds that the pre-start hook may take; 0 is no limit", restart=True)

    companions: tuple[str, ...] = _row(START, parsers.commands, (), "Commands that run beside the workers, once each, separated by semicolons or lines: a scheduler, a queue's worker; started again where they end, stopped with the workers", shown_default="none", restart=True)

    log_level: str = _row(LOGS, parsers.log_level, "info", "The least severe level that is logged: debug, info, warning, error or critical; another library's name for it, or a number as in Python's logging, is the nearest of these", "LOG_LEVEL")
    log_format: str = _row(LOGS, parsers.choice("text", "json"), "text", "The form of mooring's own log", restart=True)
    access_log: str | None = _row(LOGS, parsers.log_file, "-", "Where the access log goes: - or true is stdout, a path is a file, empty or false is off", "ACCESS_LOG", empty_disables=True, shown_default="-", restart=True)
    access_log_format: str | None = _row(LOGS, parsers.line_format, None, "A line of the access log: common, combined, json, uvicorn, hypercorn, or a text with gunicorn's atoms, such as %(h)s %(r)s %(s)s %(M)s", shown_default="the profile's; without one, common")
    access_log_skip: tuple[str, ...] = _row(LOGS, parsers.access_log_skip, (), "What the access log leaves out: paths (/healthz, /static/*) and statuses (304, 2xx)", shown_default="nothing")
    access_log_sample: tuple[str, ...] = _row(LOGS, parsers.access_log_sample, (), "What it shows a part of: paths and statuses with a share, such as /static/*=0.01 or 2xx=0.1", shown_default="nothing")
    error_log: str | None = _row(LOGS, parsers.log_file, "-", "Where mooring's own log goes: - or true is stderr, a path is a file, empty or false leaves warnings and errors only", "ERROR_LOG", empty_disables=True, shown_default="-", restart=True)

    logging_conf: str | None = _row(LOGS, parsers.text, None, "The application's logging configuration: a module, or a .py file, with the dictionary LOGGING_CONFIG for logging.config.dictConfig; access lines go to the logger uvicorn.access where it has a handler for it", shown_default="none")

    reload: bool = _row(DEVELOPMENT, parsers.flag, False, "Live reload: one worker, restarted when a file changes (as mooring dev)", "RELOAD", "WITH_RELOAD", shown_default="false", restart=True)
    reload_dirs: tuple[str, ...] = _row(DEVELOPMENT, parsers.items, (), "Folders to watch", "RELOAD_DIRS", shown_default="the application root", restart=True)
    reload_includes: tuple[str, ...] = _row(DEVELOPMENT, parsers.items, ("*.py",), "Names (*.html), paths (app/*.html) and folders whose changes reload, besides *.py", "RELOAD_INCLUDES", shown_default="*.py", restart=True)
    reload_excludes: tuple[str, ...] = _row(DEVELOPMENT, parsers.items, (), "Names, paths and folders whose changes don't; stronger than the includes", "RELOAD_EXCLUDES", shown_default="none beyond .git, caches, virtual environments", restart=True)
    reload_delay: float = _row(DEVELOPMENT, parsers.seconds(), 0.25, "Seconds of quiet after a change before the reload", "RELOAD_DELAY", restart=True)
    reload_polling: str = _row(DEVELOPMENT, parsers.choice("auto", "on", "off"), "auto", "Poll for changes; auto polls only where the system can't notify", restart=True)

    debugpy: Address | None = _row(DEVELOPMENT, parsers.debug_address, None, "Where to listen for a debugger (VS Code, PyCharm), as [HOST:]PORT: one worker, no timeouts; whoever reaches it can run any code", shown_default="nowhere")  # noqa: RUF009 (frozen)

    admin_bind: tuple[Address, ...] | None = _row(INSTANCE, address.parse_bind, None, "Where else than on the control socket the admin endpoint answers, for reading only: /livez, /readyz, /status, /metrics", shown_default="nowhere", restart=True)
    admin_hosts: tuple[str, ...] = _row(INSTANCE, parsers.host_names, (), "Names, besides addresses, localhost and the one it is bound to, by which /status, /stats and the page are read at admin_bind; the name in a reader's Host header", shown_default="none", restart=True)
    admin_token: str | None = _row(INSTANCE, parsers.text, None, "What a reader at admin_bind must send as a Bearer token, or as a browser's password, for all but /livez and /readyz", secret=True, shown_default="none", restart=True)
    admin_unix_mode: int = _row(INSTANCE, parsers.octal_mode, 0o600, "Permission bits of unix sockets of admin_bind and probe_bind, in octal", shown_default="600", restart=True)
    probe_bind: tuple[Address, ...] | None = _row(INSTANCE, address.parse_bind, None, "Where /livez and /readyz alone are answered", shown_default="nowhere", restart=True)
    app_metrics: bool = _row(INSTANCE, parsers.flag, True, "Merge what the application records with prometheus_client in all workers into /metrics", shown_default="true", restart=True)

    profile: str = _row(INSTANCE, parsers.text, "none", "The defaults of an image: image, image-nonroot, those of an older image (hypercorn, conda-starlette, inboard-base, inboard-starlette, inboard-fastapi, uvicorn-gunicorn, uvicorn-gunicorn-starlette, uvicorn-gunicorn-fastapi, poetry, meinheld-flask), or none")
    config: str | None = _row(INSTANCE, parsers.text, None, "The configuration file to read", shown_default="mooring.toml, or [tool.mooring] of pyproject.toml, in the application root")
    name: str | None = _row(INSTANCE, _instance, None, "The name of this instance, by which status, reload and health find it", shown_default="its first listener", restart=True)
    runtime_dir: str | None = _row(INSTANCE, parsers.text, None, "The folder in which instances keep their sockets", shown_default="/run/mooring, $XDG_RUNTIME_DIR/mooring or /tmp/mooring-UID", restart=True)
    worker_tmp_dir: str | None = _row(INSTANCE, parsers.text, None, "gunicorn's folder for heartbeat files", "WORKER_TMP_DIR", shown_default="gunicorn's own default")
    # fmt: on


def _rows() -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for field in dataclasses.fields(Settings):
        found[field.name] = Setting(name=field.name, default=field.default, **field.metadata)
    return found


ROWS: dict[str, Setting] = _rows()


def show(value: Any) -> str:
    """A value as a user would write it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def restart_text(row: Setting) -> str:
    """What of it only a restart changes, as the reference shows it; empty: nothing."""
    return row.restart if isinstance(row.restart, str) else "yes" if row.restart else ""


def default_text(row: Setting) -> str:
    """The default as the reference shows it."""
    return row.shown_default or show(row.default) or "not set"
