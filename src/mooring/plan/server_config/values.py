"""Translate a server's settings to mooring's: names, values, and warnings for those that are not used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mooring.errors import ConfigurationError
from mooring.settings.parsers import LARGEST_MESSAGE
from mooring.settings.table import ROWS, show

_DEFAULT_PORT = 8000  # in both servers, for a host without a port

# The server's name of a setting: mooring's name. Only the server uses settings that are not listed here.
GUNICORN: Mapping[str, str] = {
    "bind": "bind",
    "workers": "workers",
    "worker_class": "worker_class",
    "threads": "threads",
    "timeout": "timeout",
    "graceful_timeout": "graceful_timeout",
    "keepalive": "keep_alive",
    "backlog": "backlog",
    "loglevel": "log_level",
    "accesslog": "access_log",
    "errorlog": "error_log",
    "certfile": "tls_certificate",
    "keyfile": "tls_key",
    "ca_certs": "tls_client_ca",
    "forwarded_allow_ips": "forwarded_allow_ips",
    "worker_tmp_dir": "worker_tmp_dir",
    "max_requests": "max_requests",
    "max_requests_jitter": "max_requests_jitter",
    "websocket_max_message_size": "websocket_max_size",
    "reload": "reload",
}
HYPERCORN: Mapping[str, str] = {
    "bind": "bind",
    "workers": "workers",
    "worker_class": "worker_class",
    "graceful_timeout": "graceful_timeout",
    "keep_alive_timeout": "keep_alive",
    "backlog": "backlog",
    "loglevel": "log_level",
    "accesslog": "access_log",
    "access_log_format": "access_log_format",
    "errorlog": "error_log",
    "certfile": "tls_certificate",
    "keyfile": "tls_key",
    "keyfile_password": "tls_key_password",
    "ca_certs": "tls_client_ca",
    "root_path": "root_path",
    "use_reloader": "reload",
    "websocket_max_message_size": "websocket_max_size",
}
NAMES: Mapping[str, Mapping[str, str]] = {"gunicorn": GUNICORN, "hypercorn": HYPERCORN}

_UNUSED: Mapping[str, Mapping[str, str]] = {
    "gunicorn": {
        "daemon": "mooring stays in the foreground",
        "pidfile": "ask `mooring status` for the process",
        "wsgi_app": "name the application with APP_MODULE or on the command line",
    },
    "hypercorn": {
        "insecure_bind": "listeners speak TLS all or none; run a second instance without",
        "quic_bind": "HTTP/3 is not served",
        "pid_path": "ask `mooring status` for the process",
        "application_path": "name the application with APP_MODULE or on the command line",
        "max_requests": "recycling is mooring's",
    },
}


@dataclass(slots=True)
class Overrides:
    """The settings that a configuration sets, by mooring's names; their origins; and warnings."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add(self, kind: str, found: Mapping[str, Any], source: str) -> None:
        """Take over what one source sets; a later source wins. Raises ConfigurationError for a bad value."""
        for name, setting in NAMES[kind].items():
            if name not in found:
                continue
            value = self._value(kind, name, found, source)
            if setting in {"tls_key", "tls_client_ca", "worker_tmp_dir", "tls_certificate"} and value is None:
                continue
            if setting == "reload" and not value:
                continue
            self.values[setting] = value
            self.sources[setting] = source
        if "tls_certificate" in self.values and "tls_key" not in self.values:
            self.values["tls_key"] = self.values["tls_certificate"]  # one file may hold both
            self.sources["tls_key"] = source
        for name, instead in _UNUSED[kind].items():
            if found.get(name):
                self.warnings.append(f"{name} of {source} is not used: {instead}")

    def _value(self, kind: str, name: str, found: Mapping[str, Any], source: str) -> Any:
        value, setting = found[name], NAMES[kind][name]
        if name == "accesslog" and kind == "gunicorn":
            return None  # gunicorn writes the access log itself, in the format that the user chose
        if name == "ca_certs" and kind == "gunicorn" and found.get("cert_reqs") != 2:  # ssl.CERT_REQUIRED
            return None
        if name == "workers" and value == 0:
            self.warnings.append(f"workers=0 of {source}: one worker is the least")
            return 1
        if name == "websocket_max_message_size" and value == 0 and kind == "gunicorn":
            return LARGEST_MESSAGE  # there 0 is no limit
        if value is None:
            return None
        if isinstance(value, str) and value.startswith("<"):
            return ROWS[setting].default  # an object that JSON cannot hold: only the server can use it
        try:
            return ROWS[setting].parse(_bind_text(value) if name == "bind" else _text(value))
        except ValueError as error:
            raise ConfigurationError(f"{source}: {name}={value!r}: expected {error}") from None


def _text(value: Any) -> str:
    return ",".join(str(part) for part in value) if isinstance(value, list) else show(value).strip()


def _bind_text(value: Any) -> str:
    """Addresses in a server's form, as text in mooring's form."""
    parts = value if isinstance(value, list) else str(value).split(",")
    return ",".join(_address(str(part).strip()) for part in parts)


def _address(text: str) -> str:
    text = text.removeprefix("tcp://")
    if text.startswith(("unix:", "fd://")):
        return text
    if text.startswith("[") and text.endswith("]"):
        return f"{text}:{_DEFAULT_PORT}"
    return text if ":" in text else f"{text}:{_DEFAULT_PORT}"
