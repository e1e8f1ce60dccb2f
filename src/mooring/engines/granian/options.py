"""Settings as the positional arguments of granian's workers. See granian/server/mp.py for their order."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from granian.http import HTTP1Settings, HTTP2Settings

from mooring.engines.common.watch import accepted_connections
from mooring.errors import ConfigurationError
from mooring.settings.table import Settings
from mooring.system.memfd import memory

_LEAST, _SIZE = 8192, 1 << 19  # bytes of a head: the least that hyper takes, and for no limit
_STREAMS, _WINDOW = 100, 1 << 16  # of an HTTP/2 connection to WSGI; bytes of a body that may come unread
_LONGEST = 86_400.0  # seconds: for no limit


def options(settings: Settings, connections: int, *, websockets: bool) -> list[Any]:
    """The arguments `backpressure` to `metrics` of granian's ASGI worker."""
    return [
        # A connection holds its place while it idles: the watch ends the oldest idle ones before that.
        accepted_connections(connections),
        settings.http,
        http1(settings),
        http2(settings, wsgi=not websockets),
        websockets,
        None,
        *tls(settings),
        (None, None),
    ]


def http1(settings: Settings) -> HTTP1Settings:
    """Granian's time for a head counts from the answer before; the watch tells a head from idle time."""
    longest = _LONGEST if not settings.head_timeout else settings.keep_alive + settings.head_timeout
    return HTTP1Settings(
        header_read_timeout=max(1, round(longest * 1000)),
        keep_alive=settings.keep_alive != 0,
        max_buffer_size=max(_LEAST, settings.max_head or _SIZE),
    )


def http2(settings: Settings, *, wsgi: bool) -> HTTP2Settings:
    """Granian's own limit for a head is 16 MiB; it ends floods of resets and of empty frames by itself.

    Where requests wait for a thread, what has come of their bodies must not fill the connection's window:
    those that have a thread would get nothing more. So all streams' windows fit into it.
    """
    own: dict[str, Any] = {}
    if settings.max_head:
        own["max_headers_size"] = min(settings.max_head, 2**31)
    if wsgi:
        own["max_concurrent_streams"] = _STREAMS
        own["initial_stream_window_size"] = _WINDOW
        own["initial_connection_window_size"] = _STREAMS * _WINDOW
    return HTTP2Settings(**own)


def tls(settings: Settings) -> tuple[Any, ...]:
    """The arguments `ssl_enabled` to `ssl_client_verify`. Raises ConfigurationError for unusable files."""
    certificate, key, password = settings.tls_certificate, settings.tls_key, settings.tls_key_password
    if certificate is None or key is None:
        return (False, None, None, None, "tls1.2", None, [], False)
    from mooring.engines.common import tls as _tls

    _tls.context(settings, ())  # granian panics on bad files; OpenSSL's error text is clear
    if "ENCRYPTED" in Path(key).read_text("latin-1"):
        key = _decrypted(key, password or "")
    ca = settings.tls_client_ca
    return (True, certificate, key, None, "tls1.2", ca, [], ca is not None)


def _decrypted(key: str, password: str) -> str:
    """The path of an unencrypted copy, in memory only. Granian 2.8.7 fails on every encrypted key."""
    read, write = os.pipe()
    os.write(write, password.encode() + b"\n")
    os.close(write)
    command = ["openssl", "pkey", "-passin", f"fd:{read}"]
    try:
        done = subprocess.run(  # noqa: S603 (no shell, nothing of a request's)
            command, input=Path(key).read_bytes(), capture_output=True, pass_fds=[read], check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigurationError(
            f"granian cannot read the encrypted key {key}, and the openssl command that would decrypt it "
            f"failed ({error}): give an unencrypted key, or choose another engine"
        ) from None
    finally:
        os.close(read)
    copy = memory("mooring-key")
    os.write(copy, done.stdout)
    return f"/proc/self/fd/{copy}"
