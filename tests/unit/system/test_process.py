"""The adapter of the process system calls, where no real process can show it: test_processes.py has those."""

from __future__ import annotations

import os
import signal

import pytest

from mooring.system import process


@pytest.mark.parametrize("error", [ProcessLookupError, PermissionError])
@pytest.mark.parametrize(
    "send",
    [
        process.kill_group,
        lambda pid: process.send(pid, signal.SIGTERM),
        lambda pid: process.send(pid, signal.SIGUSR1),
        lambda pid: process.send(pid, signal.SIGTTIN),
    ],
)
def test_a_worker_that_cannot_be_signalled_does_not_end_the_supervisor(monkeypatch, send, error):
    """Gone already, or (without CAP_KILL, or under a security module) another user's by now."""
    asked = []

    def refuse(pid, number):
        asked.append(pid)
        raise error

    monkeypatch.setattr(os, "kill", refuse)
    monkeypatch.setattr(os, "killpg", refuse)
    send(4711)
    assert set(asked) == {4711}
