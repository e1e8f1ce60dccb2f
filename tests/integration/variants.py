"""Every engine as a user switches to it: the variables of each variant. Nothing else differs between them.

`everywhere`, `asgi_only` and `wsgi_only` give a test the shared fixture `served` (conftest.py): one
server each, with the plain application of apps/plain, for all tests of a session.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

APPS = Path(__file__).parent / "apps"


@dataclass(frozen=True)
class Variant:
    """An engine with its worker class, and the interface it is to serve."""

    interface: str
    engine: str
    worker_class: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, (self.interface, self.engine, self.worker_class.rpartition(".")[2])))

    @property
    def environ(self) -> dict[str, str]:
        found = {"MOORING_ENGINE": self.engine, "WEB_CONCURRENCY": "1", "MOORING_GRACEFUL_TIMEOUT": "20"}
        return {**found, "WORKER_CLASS": self.worker_class} if self.worker_class else found

    @property
    def keeps_alive(self) -> bool:
        """Whether connections are kept: docs/engines.md, "connections"."""
        return self.worker_class != "sync"

    @property
    def plain(self) -> str:
        """The plain application for its interface."""
        return f"plain_{self.interface}:app"


ASGI = [
    Variant("asgi", "uvicorn"),
    Variant("asgi", "granian"),
    Variant("asgi", "hypercorn", "asyncio"),
    Variant("asgi", "hypercorn", "uvloop"),
    Variant("asgi", "hypercorn", "trio"),
    Variant("asgi", "gunicorn", "asgi"),
    Variant("asgi", "gunicorn", "uvicorn_worker.UvicornWorker"),
]
WSGI = [
    Variant("wsgi", "granian"),
    Variant("wsgi", "hypercorn", "asyncio"),
    Variant("wsgi", "hypercorn", "trio"),
    Variant("wsgi", "gunicorn", "sync"),
    Variant("wsgi", "gunicorn", "gthread"),
    Variant("wsgi", "gunicorn", "gevent"),
]
ALL = [*ASGI, *WSGI]
HTTP2 = [variant for variant in ALL if variant.engine in {"granian", "hypercorn"}]


def served_by(variants: Iterable[Variant]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("served", list(variants), indirect=True, scope="session", ids=str)


everywhere, asgi_only, wsgi_only = served_by(ALL), served_by(ASGI), served_by(WSGI)
each_variant = pytest.mark.parametrize("variant", ALL, ids=str)
each_asgi = pytest.mark.parametrize("variant", ASGI, ids=str)
