"""What a template says over its channel: the application can write to it as well."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from mooring.supervisor.templates import Templates


class Answers:
    """A template that was asked for the worker with serial number 5; it notes whether it has answered."""

    number, asked, booted = 1, True, True

    def __init__(self) -> None:
        self.owes: list[Any] = [SimpleNamespace(serial=5)]

    def answered(self) -> Any:
        self.asked = False
        return self.owes.pop(0)


def refusals(number: object) -> list[tuple[int, int]]:
    """What a "refused" message with this error number makes known."""
    templates = Templates(SimpleNamespace(), lambda *_: lambda: 0, SimpleNamespace())  # type: ignore[arg-type]
    found: list[tuple[int, int]] = []
    templates.on_refused = lambda serial, errno: found.append((serial, errno))
    message = {"event": "refused", "serial": 5, "errno": number, "why": "KeyError: 's3cret'"}
    templates._on_message(Answers(), message)  # type: ignore[arg-type]
    return found


def test_a_refusal_carries_the_number_of_the_systems_error() -> None:
    assert refusals(errno.EAGAIN) == [(5, errno.EAGAIN)]


@pytest.mark.parametrize("number", [None, "KeyError: 's3cret'", True, 0, -1, 4096, 2**40, 1.0])
def test_what_is_no_error_number_is_ignored(number: object) -> None:
    assert refusals(number) == []
