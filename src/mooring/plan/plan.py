"""The plan: every decision that follows from settings and resources, with its origin and reason. Pure.

Two stages: `plan` before anything runs, and `fit` (fit.py) after worker 0 has reported what the application
is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from mooring.errors import ConfigurationError
from mooring.plan import connections, development
from mooring.settings import engines
from mooring.settings.profiles import Profile
from mooring.settings.resolve import CLI, DEFAULT, Resolved, origin_name
from mooring.settings.table import MOST_WORKERS, ROWS, Settings, show
from mooring.system.address import Address

if TYPE_CHECKING:
    from mooring.application.discovery import Target
    from mooring.plan.server_config.find import ServerConf
    from mooring.resources import Resources


_BY_PORT = "HOST:PORT"  # how the reason begins of listeners that were made of host and port
_SERVICE_HOST = "KUBERNETES_SERVICE_HOST"  # set in every container that a cluster runs
_IN_KUBERNETES = 5.0  # seconds: the default of drain_delay there
_ENDPOINTS = "requests still come while a pod's endpoint is removed"
_SET_DRAIN_DELAY = f"as in the older image; in Kubernetes set MOORING_DRAIN_DELAY=5: {_ENDPOINTS}"
_SPARE_THREADS = 2  # of a WSGI worker: they refuse excess requests while the other threads are busy


class Explained(NamedTuple):
    """A decision's value, origin (`cli`, `env:X`, `file:X`, `profile:X`, `tuned`, `default`) and reason."""

    value: Any
    origin: str
    reason: str = ""


class Report(NamedTuple):
    """What worker 0 reports: `memory` is its proportional set size in bytes, None if that is not known."""

    interface: str
    framework: str
    engine: str
    target: str
    memory: int | None

    @property
    def has_arbiter(self) -> bool:
        """Whether the worker that says it is an arbiter, with workers of its own."""
        return engines.row(self.engine).has_arbiter


class FitWarning(NamedTuple):
    """A warning of the plan's second stage. `workers`: the number that it is about; None: any number."""

    text: str
    workers: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that was decided; immutable.

    `settings` holds the final values, `explained` the reason of each. `asked` is the settings as resolved
    from their origins, with listeners and workers decided, but without the changes that a server's own
    configuration and live reload make. `warnings` has all texts, those of `fit_warnings` too.
    """

    settings: Settings
    asked: Settings
    profile: Profile
    target: Target
    binds: tuple[Address, ...]
    engine: str
    interface: str
    workers: int
    threads: int
    conf: ServerConf | None
    resources: Resources
    explained: Mapping[str, Explained]
    warnings: tuple[str, ...] = ()
    fit_warnings: tuple[FitWarning, ...] = ()
    framework: str = ""
    revision: int = 1

    @property
    def engine_threads(self) -> int:
        """The number of threads of a WSGI engine.

        If max_in_flight is set and not above the plan's threads, there are some spare threads: they refuse
        excess requests and never run the application.
        """
        most = self.settings.max_in_flight
        return self.threads + (_SPARE_THREADS if 0 < most <= self.threads else 0)

    @property
    def max_connections(self) -> int:
        """The most connections of each worker."""
        return self.settings.max_connections or 0  # the first stage has decided it

    @property
    def has_arbiter(self) -> bool:
        """Whether its only worker is an arbiter, which forks the plan's number of workers itself."""
        return engines.row(self.engine).has_arbiter

    @property
    def tls(self) -> bool:
        """Whether the listeners speak TLS."""
        return self.settings.tls_certificate is not None

    @property
    def bind_source(self) -> str:
        """Where the listeners' addresses come from, for an error: `HOST=x, PORT=80`, `from --bind`."""
        bind = self.explained["bind"]
        if not bind.reason.startswith(_BY_PORT):
            return f"from {origin_name('bind', bind.origin) or bind.origin}"
        given = [(name, self.explained[name]) for name in ("host", "port")]
        named = [(origin_name(name, item.origin), item.value) for name, item in given]
        found = ", ".join(f"{name}={value}" for name, value in named if name)
        return found or "the default: set HOST, PORT or BIND"

    @property
    def advice(self) -> tuple[str, ...]:
        """What `mooring check` recommends, and what a start does not repeat each time."""
        reason = self.explained["drain_delay"].reason
        return (f"drain_delay is 0, {reason}",) if reason == _SET_DRAIN_DELAY else ()

    def as_json(self) -> dict[str, dict[str, Any]]:
        """{NAME: {"value", "origin", "reason"}}; secrets are not shown."""
        return as_json(self.explained)


def as_json(explained: Mapping[str, Explained]) -> dict[str, dict[str, Any]]:
    """{NAME: {"value", "origin", "reason"}}; secrets are not shown."""
    shown = {}
    for name, item in explained.items():
        secret = name in ROWS and ROWS[name].secret and item.value
        value = "(secret)" if secret else _plain(item.value)
        value = f"{value:o}" if name == "unix_mode" else value  # in octal, as users write it
        shown[name] = {"value": value, "origin": item.origin, "reason": item.reason}
    return shown


def given(resolved: Resolved) -> dict[str, Explained]:
    """Every setting as it was given, before anything is decided."""
    return {name: Explained(getattr(resolved.settings, name), resolved.origins[name].text) for name in ROWS}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Address) else value


def plan(resolved: Resolved, resources: Resources, target: Target, conf: ServerConf | None) -> Plan:
    """The first stage. Raises ConfigurationError for settings that contradict each other."""
    settings = resolved.settings
    explained = given(resolved)
    for name, (value, origin, reason) in _from_conf(resolved, conf).items():
        explained[name] = Explained(value, origin, reason)
        settings = dataclasses.replace(settings, **{name: value})
    for name, (value, reason) in (
        development.changes(resolved, settings, conf) if _single(settings) else {}
    ).items():
        explained[name] = Explained(value, "tuned", reason)
        settings = dataclasses.replace(settings, **{name: value})
    settings = _drain_delay(resolved, settings, resources, explained)
    binds = _binds(resolved, settings, explained)
    engine = _engine(resolved, settings, conf, explained)
    _check_preload(settings, engine)
    if settings.debugpy is not None:
        _check_debugger()
    if conf is not None and conf.path and conf.kind == engine:
        reason = "the configuration in use"
        explained[f"{engine}_conf"] = Explained(conf.path, conf.origin("engine"), reason)
    workers = _workers(resolved, settings, resources, explained)
    threads = _threads(settings, engine, resources, workers, explained)
    if settings.max_connections is None:
        most, reason = connections.most(resources, workers)
        explained["max_connections"] = Explained(most, "tuned", reason)
        settings = dataclasses.replace(settings, max_connections=most)
    explained["app"] = Explained(str(target), target.origin, target.reason)
    _check_tls(settings)
    settings = dataclasses.replace(settings, bind=binds, engine=engine)
    return Plan(
        settings=settings,
        asked=_asked(resolved, resources),
        profile=resolved.profile,
        target=target,
        binds=binds,
        engine=engine,
        interface=settings.interface,
        workers=workers,
        threads=threads,
        conf=conf,
        resources=resources,
        explained=explained,
        warnings=(
            *resolved.warnings,
            *resources.warnings,
            *(conf.warnings if conf else ()),
            *([target.warning] if target.warning else []),
        ),
    )


def _asked(resolved: Resolved, resources: Resources) -> Settings:
    settings = dataclasses.replace(resolved.settings, reload=False)
    workers = _workers(resolved, settings, resources, {})
    return dataclasses.replace(resolved.settings, bind=_binds(resolved, settings, {}), workers=workers)


def _from_conf(resolved: Resolved, conf: ServerConf | None) -> dict[str, tuple[Any, str, str]]:
    """The settings that the server's own configuration sets. As in gunicorn, only the command line wins."""
    if conf is None:
        return {}
    rank = {name: resolved.rank(name) for name in conf.overrides}
    if "bind" in rank:
        rank["bind"] = resolved.rank("bind", "host", "port")
    found = {name: value for name, value in conf.overrides.items() if rank[name] != CLI}
    return {name: (value, conf.origin(name), "set there") for name, value in found.items()}


def _drain_delay(
    resolved: Resolved, settings: Settings, resources: Resources, explained: dict[str, Explained]
) -> Settings:
    """In Kubernetes a stop goes on accepting for a while, by default; older images did not."""
    if (
        resources.kubernetes.source != _SERVICE_HOST
        or resolved.rank("drain_delay") != DEFAULT
        or _single(settings)
    ):
        return settings
    if resolved.profile.older:
        explained["drain_delay"] = Explained(settings.drain_delay, "default", _SET_DRAIN_DELAY)
        return settings
    explained["drain_delay"] = Explained(_IN_KUBERNETES, "tuned", f"Kubernetes: {_ENDPOINTS}")
    return dataclasses.replace(settings, drain_delay=_IN_KUBERNETES)


def _binds(resolved: Resolved, settings: Settings, explained: dict[str, Explained]) -> tuple[Address, ...]:
    """The listeners: BIND wins over HOST and PORT unless those come from a stronger origin."""
    given = settings.bind
    by_port = Address("tcp", settings.host, settings.port)
    from_conf = "bind" in explained and explained["bind"].reason == "set there"
    if given is not None and (from_conf or resolved.rank("bind") >= resolved.rank("host", "port")):
        return given
    origin = resolved.origins["port"]
    if resolved.rank("host") > origin.rank:
        origin = resolved.origins["host"]
    reason = _BY_PORT if given is None else f"{_BY_PORT}, from a stronger origin than bind ({show(given)})"
    explained["bind"] = Explained((by_port,), origin.text, reason)
    return (by_port,)


def _single(settings: Settings) -> bool:
    """Whether live reload or a debugger needs exactly one worker."""
    return settings.reload or settings.debugpy is not None


def _engine(
    resolved: Resolved, settings: Settings, conf: ServerConf | None, explained: dict[str, Explained]
) -> str:
    unwanted = development.gives_way(resolved, conf) if _single(settings) else ""
    if unwanted:
        what = "live reload" if settings.reload else "a debugger"
        explained["engine"] = Explained("auto", "tuned", f"{what} runs one worker without {unwanted}")
        return "auto"
    if settings.debugpy is not None and not engines.row(settings.engine).debuggable:
        raise ConfigurationError(
            f"MOORING_DEBUGPY: {settings.engine}'s workers cannot be debugged; leave the engine open"
        )
    if (
        conf is not None
        and conf.kind
        and explained["engine"].origin in {"default", f"profile:{settings.profile}"}
    ):
        engines.require(conf.kind)
        explained["engine"] = Explained(
            conf.kind, conf.origin("engine"), f"{conf.kind} configuration was given"
        )
        return conf.kind
    if settings.engine == "auto":
        if settings.interface != "auto":
            chosen = engines.choose("auto", settings.interface)
            explained["engine"] = Explained(chosen, "tuned", f"the default for {settings.interface.upper()}")
            return chosen
        each = (f"{default} for {interface.upper()}" for interface, default in engines.DEFAULTS.items())
        explained["engine"] = Explained("auto", "default", ", ".join(each))
        return "auto"
    engines.require(settings.engine)
    if settings.interface != "auto":
        engines.choose(settings.engine, settings.interface)
    return settings.engine


def cores(settings: Settings, resources: Resources) -> tuple[float, str]:
    """The number of CPU cores to plan with, and its source in words."""
    if isinstance(settings.cpu_count, float):
        return settings.cpu_count, "CPU_COUNT"
    if settings.cpu_count == "host":
        return float(resources.host_cpus.value or 1), "all cores of the host"
    return resources.cpus.value or 1.0, resources.cpus.source


def _workers(
    resolved: Resolved, settings: Settings, resources: Resources, explained: dict[str, Explained]
) -> int:
    if _single(settings):
        what = "live reload" if settings.reload else "a debugger"
        explained["workers"] = Explained(1, "tuned", f"{what} runs one worker")
        return 1
    if settings.workers is not None:
        return settings.workers
    available, source = cores(settings, resources)
    unlimited = resources.cpu_quota.value is None and settings.cpu_count is None
    if not resolved.profile.older and unlimited and resources.kubernetes.value:
        reason = "Kubernetes without a CPU limit: one worker, the cluster replicates"
        explained["workers"] = Explained(1, "tuned", reason)
        return 1
    wanted = int(settings.workers_per_core * available)
    reason = f"{available:g} CPU cores ({source}) x {settings.workers_per_core:g}"
    if wanted < resolved.profile.floor:
        wanted = resolved.profile.floor
        reason += f", at least {wanted}"
    if wanted > MOST_WORKERS:
        wanted = MOST_WORKERS
        reason += f", at most {wanted}"
    if 0 < settings.max_workers < wanted:
        wanted = settings.max_workers
        reason += f", at most {wanted} (MAX_WORKERS)"
    explained["workers"] = Explained(wanted, "tuned", reason)
    return wanted


def _threads(
    settings: Settings, engine: str, resources: Resources, workers: int, explained: dict[str, Explained]
) -> int:
    if settings.threads is not None:
        return settings.threads
    threaded = engines.row(engine).threaded_classes
    if threaded and settings.worker_class is not None and settings.worker_class not in threaded:
        explained["threads"] = Explained(
            1, "tuned", f"not for {engine}'s worker class {settings.worker_class}"
        )
        return 1
    available, source = cores(settings, resources)
    wanted = min(32, max(4, round(8 * available / workers)))
    reason = f"8 for each of {available:g} CPU cores ({source}), shared by {workers} workers, 4 to 32"
    explained["threads"] = Explained(wanted, "tuned", reason)
    return wanted


def _check_preload(settings: Settings, engine: str) -> None:
    own = engines.row(engine).own_preload
    if settings.preload != "off" and own:
        raise ConfigurationError(
            f"preload={settings.preload} is not for engine {engine}, which has preloading of its own: {own}, "
            "and MOORING_PRELOAD=off"
        )


def _check_tls(settings: Settings) -> None:
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        missing = "tls_key" if settings.tls_key is None else "tls_certificate"
        raise ConfigurationError(f"TLS needs both tls_certificate and tls_key: {missing} is not set")
    if settings.tls_client_ca is not None and settings.tls_certificate is None:
        raise ConfigurationError("tls_client_ca needs tls_certificate and tls_key")


def _check_debugger() -> None:
    if find_spec("debugpy") is None:
        raise ConfigurationError("MOORING_DEBUGPY: debugpy is not installed: pip install 'mooring[debug]'")
