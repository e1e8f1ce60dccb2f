"""hypercorn's configuration for a plan: the user's file, and over it mooring's decisions. Not its workers."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypercorn.config import Config, Sockets

from mooring.application.failure import one_line
from mooring.engines import Serving
from mooring.engines.common.stop import StopRequest
from mooring.engines.common.websockets import WebSockets
from mooring.engines.hypercorn.limits import Limits
from mooring.errors import ConfigurationError

if TYPE_CHECKING:
    from mooring.plan.plan import Plan

_LATER = 10.0  # seconds: the watch of limits.py is first
_ALPN = {"1": ["http/1.1"], "2": ["h2"]}


@dataclass(frozen=True, slots=True)
class HypercornJob:
    """What a worker class needs. `app` is in hypercorn's form; `threads` is None for the loop's default."""

    serving: Serving
    app: Any
    config: Config
    sockets: Sockets
    stop: StopRequest
    ready: Callable[[], None]
    websockets: WebSockets
    threads: int | None
    limits: Limits


def configuration(plan: Plan) -> Config:
    """The user's configuration, as hypercorn's own command loads it, with mooring's decisions over it.

    Raises ConfigurationError if it can't be loaded, or its TLS files can't be used.
    """
    conf = plan.conf
    config = load(conf.path) if conf is not None and conf.kind == "hypercorn" and conf.path else Config()
    given = set(vars(config))
    for name, value in _decided(plan).items():
        setattr(config, name, value)
    settings = plan.settings
    suggested: dict[str, Any] = {"include_server_header": False}
    if settings.max_head:
        suggested["h11_max_incomplete_size"] = settings.max_head
        suggested["h2_max_header_list_size"] = settings.max_head
    if settings.max_body:
        suggested["wsgi_max_body_size"] = settings.max_body
    if settings.head_timeout:
        suggested["ssl_handshake_timeout"] = settings.head_timeout + _LATER
    for name, value in suggested.items():
        if name not in given:
            setattr(config, name, value)
    if config.ssl_enabled and config.keyfile_password is None:
        config.keyfile_password = ""  # with None OpenSSL would ask on the terminal, and wait
    try:
        config.create_ssl_context()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"TLS: certificate {config.certfile} and key {config.keyfile} can't be used: {error}"
        ) from None
    return config


def load(path: str) -> Config:
    """The configuration at `path`: file:PATH, PATH.py, PATH.toml or python:MODULE.

    Raises ConfigurationError with what went wrong.
    """
    kind, _, rest = path.partition(":") if path.startswith(("file:", "python:")) else ("", "", path)
    try:
        if kind == "python":
            return Config.from_object(rest)
        if kind == "file" or rest.endswith(".py"):
            return Config.from_pyfile(rest)
        return Config.from_toml(rest)
    except Exception as error:
        what = f"{type(error).__name__}: {one_line(error)}"
        raise ConfigurationError(f"hypercorn configuration {path} can't be loaded: {what}") from None


def _decided(plan: Plan) -> dict[str, Any]:
    settings = plan.settings
    decided: dict[str, Any] = {
        "accesslog": None,
        "errorlog": logging.getLogger("hypercorn.error"),
        "workers": 1,
        "use_reloader": False,
        "max_requests": None,  # the supervisor recycles workers
        "backlog": settings.backlog,
        "keep_alive_timeout": settings.keep_alive,
        "graceful_timeout": settings.graceful_timeout,
        "websocket_max_message_size": settings.websocket_max_size,
        "startup_timeout": settings.boot_timeout,
    }
    if settings.http != "auto":
        decided["alpn_protocols"] = _ALPN[settings.http]
    if settings.tls_certificate is not None:
        decided["certfile"], decided["keyfile"] = settings.tls_certificate, settings.tls_key
        decided["keyfile_password"] = settings.tls_key_password
    if settings.tls_client_ca is not None:
        decided["ca_certs"], decided["verify_mode"] = settings.tls_client_ca, ssl.CERT_REQUIRED
    return decided
