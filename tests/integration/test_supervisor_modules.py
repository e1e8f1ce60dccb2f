"""What process 1 has imported when it has served and rolled: no engine, and nothing of the application."""

from __future__ import annotations

import signal
import sys

import pytest

from mooring.settings.engines import REGISTRY

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
    *(row.module for row in REGISTRY.values()),
    *("uvloop", "httptools", "trio", "gevent", "websockets"),
    *("asyncio", "ssl", "subprocess", "watchfiles", "prometheus_client", "opentelemetry", "main"),
}
# The packages that the supervisor's own code may not import.
STRANGERS = {"engines", "instrument", "application", "metrics"}
# What other packages in the same process have imported of these, by the reason.
EXCEPTIONS = {
    "the start and the plan look for the application, and import none": (
        *("application", "application.discovery", "application.model"),
        *("application.search_order", "application.source_scan"),
    ),
    "the plan warns of OpenTelemetry's variables": (
        *("instrument", "instrument.otel", "instrument.otel.variables"),
    ),
    "worker/run.py is imported before the fork, and with it the interface to engines": (
        *("engines", "instrument.drain", "application.failure"),
    ),
    "the admin endpoint makes the page of metrics, and asks the helper for the application's": (
        *("metrics", "metrics.prometheus", "metrics.multiprocess", "metrics.multiprocess.client"),
        *("metrics.multiprocess.files", "metrics.multiprocess.folder", "metrics.multiprocess.frames"),
    ),
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
    own = {name.removeprefix("mooring.") for name in loaded if name.startswith("mooring.")}
    strange = {name for name in own if name.split(".")[0] in STRANGERS}
    assert strange == {name for names in EXCEPTIONS.values() for name in names}
    assert "mooring.supervisor.loop" in loaded  # else it was not the supervisor that told
