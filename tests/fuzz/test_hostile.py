"""Nothing is left of requests that misuse the accelerator. Many more: `make sanitize`."""

from __future__ import annotations

import gc
import logging
import os
import sys

import pytest

from mooring.scoreboard import accelerator

pytestmark = pytest.mark.skipif(accelerator.c is None, reason="mooring was installed without a compiler")


@pytest.fixture
def silent(monkeypatch):
    """What is kept of errors and of log records counts as blocks."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("silent")
@pytest.mark.filterwarnings("ignore")
def test_nothing_is_kept_of_hostile_requests():
    """The same 1,500 requests again and again: each object that stays is a reference that C has lost."""
    from hostile import World

    def blocks():
        world = World(5)
        for _ in range(1500):
            world.request()
        world.check()
        os.close(world.wake)
        del world
        gc.collect()
        return sys.getallocatedblocks()

    for _ in range(3):  # caches fill
        before = blocks()
    counts = [blocks() - before for _ in range(4)]
    assert min(counts) < 150, counts
