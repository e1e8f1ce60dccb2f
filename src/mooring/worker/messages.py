"""The messages of a worker's report pipe, checked: the application has the pipe too, and is not trusted.

The pipe is a pair of sockets. Of the supervisor a worker hears one thing there: DRAIN.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from mooring.plan.plan import Report
from mooring.settings.engines import REGISTRY

DRAIN = b"d"
"""The supervisor's order to drain. Besides SIGTERM, whose handler the application may have replaced."""

_LONGEST = 3000  # characters of a text: a whole message is one write of a few KiB, so is never interleaved


class Failure(NamedTuple):
    """Why a worker cannot boot: the line for the user, and the exit code that it means."""

    message: str
    code: int


def encode(event: str, facts: dict[str, Any]) -> bytes:
    """One message: a line of JSON."""
    if "message" in facts:
        facts = {**facts, "message": str(facts["message"])[:_LONGEST]}
    line = json.dumps({"event": event, **facts})
    if len(line) >= _LONGEST and "message" in facts:
        # JSON may take 12 characters for one: \ud83d\ude00
        facts = {**facts, "message": facts["message"][: _LONGEST // 12]}
        line = json.dumps({"event": event, **facts})
    return line.encode() + b"\n"


def decode(line: bytes) -> dict[str, Any] | None:
    """The message in a line; None where the line holds none."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def failure(message: dict[str, Any]) -> Failure | None:
    """The failure in a message of a worker that cannot boot; None for any other message."""
    code, text = message.get("code"), message.get("message")
    if message.get("event") != "failed" or type(code) is not int or not isinstance(text, str):
        return None
    return Failure(text, code) if 0 < code < 256 else None


def report(message: dict[str, Any]) -> Report | None:
    """The report in a message of a worker that is ready; None for any other message."""
    texts = [message.get(name) for name in ("interface", "framework", "engine", "target")]
    if message.get("event") != "ready" or not all(isinstance(each, str) for each in texts):
        return None
    interface, framework, engine, target = (str(each)[:_LONGEST] for each in texts)
    if interface not in ("asgi", "wsgi") or engine not in REGISTRY:
        return None
    memory = message.get("memory")
    sane = type(memory) is int and 0 < memory < 2**60
    return Report(interface, framework, engine, target, memory if sane else None)


def size(message: dict[str, Any]) -> int | None:
    """How many workers an engine's arbiter wants, as it reports when ready and after each TTIN or TTOU.

    None for any other message.
    """
    found = message.get("workers")
    told = message.get("event") in ("ready", "size")
    return found if told and type(found) is int and 0 < found < 65536 else None


class Apart(NamedTuple):
    """The children of a process that lead process groups of their own."""

    parent: int
    children: list[int]


def apart(message: dict[str, Any]) -> Apart | None:
    """The children that a worker tells of (apart.py); None for any other message."""
    parent, children = message.get("pid"), message.get("children")
    if message.get("event") != "apart" or type(parent) is not int or not isinstance(children, list):
        return None
    return Apart(parent, [each for each in children if type(each) is int and 1 < each < 2**31])


def gone(message: dict[str, Any]) -> int | None:
    """The pid of a worker of an engine's arbiter that has ended; None for any other message."""
    found = message.get("worker")
    return found if message.get("event") == "gone" and type(found) is int and found > 1 else None


def leaving(message: dict[str, Any]) -> str | None:
    """Why a worker drains without an order to, so that it is to be replaced; None for any other message."""
    why = message.get("message")
    return why if message.get("event") == "leaving" and isinstance(why, str) else None
