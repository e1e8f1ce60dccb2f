"""Another version of mooring is installed while one runs: what is said, and that the old workers serve on."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

import mooring as package

NEWER = "99.0"


def install(site, version):
    """A copy of this mooring, as pip leaves it."""
    shutil.rmtree(site / "mooring", ignore_errors=True)  # no file is written over: one of them is mapped
    shutil.copytree(Path(package.__file__).parent, site / "mooring")
    for old in site.glob("*.dist-info"):
        shutil.rmtree(old)
    info = site / f"mooring-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: mooring\nVersion: {version}\n")


def test_an_upgrade_under_a_running_supervisor_is_named_and_the_old_workers_serve_on(mooring):
    site = mooring.base / "site"
    install(site, package.__version__)
    mooring.command = ["/usr/bin/env", f"PYTHONPATH={site}", sys.executable, "-m", "mooring"]
    app = mooring.run(workers=2)
    before = app.ready()
    install(site, NEWER)
    with (site / "mooring/instrument/asgi.py").open("a") as file:
        file.write("\nfrom mooring.logs.escape import new_in_that_version\n")
    app.signal(signal.SIGHUP)
    line = app.wait_log("roll to generation 2 failed")
    assert f"mooring {NEWER} is installed now, and {package.__version__} is running: restart it" in line
    assert app.get("/").text == "hello"
    assert app.wait_ready(2) == before
    assert app.stop() == 0
