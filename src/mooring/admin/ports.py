"""The admin endpoint's listeners besides the control socket: opened once, before the first worker starts.

No worker inherits these sockets: they are close-on-exec, and mooring's fork closes such descriptors too
(system/process.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mooring.errors import BindError, ConfigurationError
from mooring.settings.table import Settings
from mooring.system.address import Address
from mooring.system.listeners import Listener, close_listeners, open_listeners

_BACKLOG = 1024  # more than the admin endpoint holds at once, so that a crowd's handshakes are not dropped


class Ports(NamedTuple):
    """The listeners of MOORING_ADMIN_BIND and of MOORING_PROBE_BIND."""

    admin: list[Listener]
    probes: list[Listener]

    def close(self) -> None:
        """Close all listeners, and remove the unix sockets' files."""
        close_listeners([*self.admin, *self.probes])


def open_ports(settings: Settings, environ: Mapping[str, str]) -> Ports:
    """Open the listeners of both settings. Raises BindError, and ConfigurationError for `systemd`."""
    ports = Ports([], [])
    for name, binds, opened in (
        ("MOORING_ADMIN_BIND", settings.admin_bind, ports.admin),
        ("MOORING_PROBE_BIND", settings.probe_bind, ports.probes),
    ):
        if any(address.kind == "systemd" for address in binds or ()):
            ports.close()
            raise ConfigurationError(f"{name}=systemd: those sockets are BIND's; use HOST:PORT or unix:PATH")
        try:
            opened.extend(_open(binds or (), settings, environ, name))
        except BindError:
            ports.close()
            raise
    return ports


def _open(
    binds: tuple[Address, ...], settings: Settings, environ: Mapping[str, str], source: str
) -> list[Listener]:
    mode = settings.admin_unix_mode
    return open_listeners(binds, backlog=_BACKLOG, unix_mode=mode, environ=environ, source=source)
