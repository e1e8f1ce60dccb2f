"""One application served by one variant: what the tests of the HTTP matrix talk to."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

from harness import PATIENCE, Mooring, Starter
from variants import APPS, Variant
from wire import Wire


@dataclass(frozen=True)
class Served:
    """A running `mooring run` and its variant."""

    app: Mooring
    variant: Variant

    @classmethod
    def start(
        cls, starter: Starter, variant: Variant, *arguments: str, folder: str = "plain", **environ: Any
    ) -> Served:
        """`mooring run` in a folder of apps/, the plain application where nothing else is said."""
        environ = {**variant.environ, "options": {"cwd": APPS / folder}, **environ}
        if folder == "plain" and not arguments:
            arguments = (variant.plain,)
        return cls(starter.run(*arguments, files={}, **environ), variant)

    @property
    def url(self) -> str:
        return self.app.urls[0]

    def wire(self, index: int = 0) -> Wire:
        """A connection to a listener."""
        return Wire(self.app.connect(index))

    def wire_from(self, source: str) -> Wire:
        """A connection to the first listener from another address of this machine."""
        return Wire(socket.create_connection(("127.0.0.1", self.app.port), PATIENCE, (source, 0)))
