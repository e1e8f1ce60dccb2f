"""mooring's own log on a disk that is full: serving and rolling go on, and what was dropped is told later."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess

import pytest
from harness import eventually

RECORD = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\] \[[A-Z]+\] ")


def fill(path):
    """Write until there is no more room."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while os.write(fd, bytes(1024)):
            pass
    os.close(fd)


def lost(app):
    """The metric that counts the records of all processes."""
    lines = app.control(path="/metrics").text.splitlines()
    return next(
        int(each.split()[1]) for each in lines if each.startswith("mooring_log_dropped_records_total ")
    )


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs root and mount(8)")
@pytest.mark.parametrize("engine", ["uvicorn", "granian", "hypercorn", "gunicorn"])
def test_records_that_find_no_room_are_counted_and_told(mooring, engine):
    disk = mooring.base / "disk"
    disk.mkdir()
    log, filler = disk / "log", disk / "filler"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True)
    try:
        app = mooring.run(workers=2, MOORING_ENGINE=engine, ERROR_LOG=log)
        fill(filler)
        for generation in range(2, 5):  # the log's last page may have room for a few records
            app.signal(signal.SIGHUP)
            app.wait_status(lambda s, g=generation: s["generation"] == g and s["state"] == "serving", 60)
            for _ in range(20):
                app.signal(signal.SIGUSR1)  # has the supervisor say something
                app.control()
        assert app.get("/").text == "hello"
        filler.unlink()
        app.signal(signal.SIGUSR1)
        eventually(lambda: "dropped: slow reader or full disk" in log.read_text(), "the news")
        assert lost(app) > 0
        assert app.stop() == 0
        text = log.read_text()
        assert "stopped (asked to stop)" in text
        torn = [each for each in text.splitlines() if not (RECORD.match(each) or each.startswith("  "))]
        assert len(torn) <= 3  # by who wrote when a page's last room was gone
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_device_that_is_always_full_disturbs_nobody(mooring):
    app = mooring.run(workers=1, ERROR_LOG="/dev/full", ACCESS_LOG="/dev/full")
    app.signal(signal.SIGHUP)
    app.wait_status(lambda s: s["generation"] == 2 and s["state"] == "serving")
    assert app.get("/").text == "hello"
    assert lost(app) > 5  # the supervisor's, and the workers'
    assert app.stop() == 0
