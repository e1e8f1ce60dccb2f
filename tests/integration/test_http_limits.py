"""How large a request's head may be: what every engine takes, what it refuses, and how. docs/engines.md.

A refusal is an answer, 414 or 431 (400 on uvicorn for a long target), and the worker keeps serving.
"""

from __future__ import annotations

import json

import pytest
from served import Served
from variants import Variant, everywhere

KIB = 1024
TOO_LARGE = {400, 414, 431}
TARGET, HEADER = 0, 1


def limits(variant: Variant) -> tuple[int, int]:
    """The largest target and header that were measured to be taken, in KiB; all take 3 and 8."""
    if variant.engine != "gunicorn" or variant.worker_class.endswith("UvicornWorker"):
        return 60, 60
    return 3, 8


def ask(served: Served, target: int = 0, header: int = 0) -> int:
    """The status of a request with a target, or a header, of so many bytes."""
    headers = [("X-Large", "x" * header)] if header else []
    with served.wire() as wire:
        try:
            wire.send("/cookies?" + "x" * target, headers=headers)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all of it was sent: the answer has come already
        return wire.reply().status


@everywhere
def test_what_every_engine_takes(served: Served):
    assert ask(served, target=3 * KIB) == 200
    assert ask(served, header=8000) == 200
    many = [(f"X-{number}", "x" * 500) for number in range(90)]
    with served.wire() as wire:
        assert wire.ask("/cookies", headers=many).status == 200


@everywhere
@pytest.mark.parametrize("kib", [8, 32, 60])
def test_a_large_target_is_taken_or_refused_as_documented(served: Served, kib: int):
    expected = {200} if kib <= limits(served.variant)[TARGET] else {414}
    assert ask(served, target=kib * KIB - 200) in expected


@everywhere
@pytest.mark.parametrize("kib", [8, 32, 60])
def test_a_large_header_is_taken_or_refused_as_documented(served: Served, kib: int):
    expected = {200} if kib <= limits(served.variant)[HEADER] else {431}
    assert ask(served, header=kib * KIB - 200) in expected


@everywhere
def test_a_large_head_of_small_fields_is_taken_or_refused_as_documented(served: Served):
    bounded = limits(served.variant) == (60, 60) or served.variant.worker_class == "gthread"
    fields = [(f"X-{number}", "x" * 8000) for number in range(50)]
    with served.wire() as wire:
        try:
            wire.send("/cookies", headers=fields)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert wire.reply().status == (431 if bounded else 200)


@everywhere
def test_more_than_a_mebibyte_is_refused_and_the_worker_keeps_serving(served: Served):
    with served.wire() as wire:
        pid = json.loads(wire.ask("/scope").body)["pid"]
    assert ask(served, target=1100 * KIB) in TOO_LARGE
    assert ask(served, header=1100 * KIB) in TOO_LARGE
    with served.wire() as wire:
        assert json.loads(wire.ask("/scope").body)["pid"] == pid
