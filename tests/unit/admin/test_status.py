"""What of an end's reason may leave by the admin endpoint: mooring's own words, never the application's."""

from __future__ import annotations

import pytest

from mooring.admin import status
from mooring.supervisor.history import ended_by
from mooring.supervisor.lifecycle import Cause, Reason


@pytest.mark.parametrize(
    ("why", "said"),
    [
        (ended_by(0), "exit code 0"),
        (ended_by(3), "exit code 3"),
        (ended_by(-9), "killed by SIGKILL"),
        (ended_by(-15), "killed by SIGTERM"),
        (ended_by(-99), "killed by signal 99"),
        (Reason(Cause.BOOT_DEADLINE), "boot deadline exceeded"),
        (Reason(Cause.HEARTBEAT_DEADLINE), "heartbeat deadline exceeded"),
        (Reason(Cause.GRACE_DEADLINE), "grace deadline exceeded"),
        (Reason(Cause.STOP_NOW), "told to stop now"),
        (Reason(Cause.STOP_ASKED), "asked to stop"),
        (Reason(Cause.OUT_OF_MEMORY), "killed by the kernel: out of memory"),
        (
            Reason(Cause.NOT_SPAWNED, "Resource temporarily unavailable"),
            "could not be spawned: Resource temporarily unavailable",
        ),
        (
            Reason(Cause.ENDED_EARLY, "exit code 7"),
            "the application ended its worker before it was ready: exit code 7",
        ),
    ],
)
def test_moorings_own_words_are_shown(why, said):
    assert str(why) == said
    assert status.own_words(why) == said


@pytest.mark.parametrize(
    "why",
    [
        Reason(Cause.FAILED, "cannot import main: KeyError: 's3cret'"),
        Reason(Cause.FAILED, "exit code 3: s3cret"),
        Reason(Cause.FAILED, "s3cret\nexit code 0"),
        Reason(Cause.FAILED, "could not be spawned: s3cret"),
    ],
)
def test_the_applications_words_are_not(why):
    assert "s3cret" in str(why)
    assert "s3cret" not in status.own_words(why)
