"""What process 1 has imported when it has served and rolled: no engine, and nothing of the application."""

from __future__ import annotations

import signal
import sys

import pytest

PROGRAM = """
import atexit, os, sys
import mooring.__main__
supervisor = os.getpid()

def tell():
    if os.getpid() == supervisor:
        with open("modules", "w") as file:
            file.write("\\n".join(sys.modules))

atexit.register(tell)
sys.exit(mooring.__main__.main())
"""

NEVER = {
    *("uvicorn", "granian", "hypercorn", "gunicorn", "uvloop", "httptools", "trio", "gevent", "websockets"),
    *("asyncio", "ssl", "subprocess", "watchfiles", "prometheus_client", "opentelemetry", "main"),
}
# What the start and the plan know of an application without importing one: where it is, what it looks like.
DESCRIPTIONS = {
    *(f"mooring.application.{name}" for name in ("discovery", "model", "search_order", "source_scan")),
    *("mooring.instrument.drain", "mooring.instrument.otel", "mooring.instrument.otel.variables"),
}


@pytest.mark.parametrize("more", [{}, {"MOORING_PRELOAD": "warn"}], ids=["forked", "preload"])
def test_the_supervisor_has_imported_no_engine_and_no_application(mooring, more):
    mooring.command = [sys.executable, "-c", PROGRAM]
    app = mooring.run(workers=2, **more)
    assert app.get("/").status == 200
    app.signal(signal.SIGHUP)
    app.wait_log("rolled: generation 2 serves")
    assert app.status()["generation"] == 2
    assert app.stop() == 0
    loaded = set((app.folder / "modules").read_text().split())
    assert not {name for name in loaded if name.split(".")[0] in NEVER}
    rooms = ("mooring.engines.", "mooring.instrument.", "mooring.application.")
    assert {name for name in loaded if name.startswith(rooms)} <= DESCRIPTIONS
    assert "mooring.supervisor.loop" in loaded  # else it was not the supervisor that told
