r"""The access log as JSON: one compact object a line, whatever bytes a client sends.

An entry's texts are already escaped for a log (logs/escape.py). A text without a backslash is put between
quotes as it is. Any other is turned back into what was sent, and escaped as JSON. A byte that was no UTF-8
stays as the text `\xff`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from mooring.logs.access.parts import SURE, Entry, Line, fitted, number, texts

_KEPT, _KEPT_LENGTH = 256, 256
_ESCAPED = re.compile(r'\\(?:x([01][0-9a-f]|7f)|u([0-9a-f]{4})|U([0-9a-f]{8})|([nrt\\"]))')
_SHORT = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"'}


def line() -> Line:
    """A function that makes the line. The client's port is left out: behind a proxy there is none."""
    clock, text_of = time.time, texts.get
    quotes: dict[str | None, str] = {}
    quote = _keeping(quotes, quoted)
    targets: dict[str | None, str] = {}
    split = _keeping(targets, _parts)
    quotes_of, parts_of = quotes.get, targets.get
    millis = tuple(f"{n:03d}" for n in range(1000))
    short = tuple(f"0.{n:03d}" for n in range(1000))
    second = (0.0, "")  # its begin, and as text; one tuple: another thread may replace it

    def new_second(now: float) -> tuple[float, str]:
        nonlocal second
        began = int(now)
        second = (float(began), time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(began)))
        return second

    def one(entry: Entry) -> str:
        host, _, method, target, version, status, size, seconds, referer, agent, request_id, trace, _ = entry
        now, (began, date) = clock(), second
        if not began <= now < began + 1:
            began, date = new_second(now)
        took = int(seconds * 1000000)
        lasted = short[took] if took < 1000 else f"{took // 1000}.{millis[took % 1000]}"
        request = f'"{request_id}"' if request_id != "-" else "null"
        traced = f'"{trace}"' if trace != "-" else "null"
        text = (
            f'{{"time":"{date}.{millis[int((now - began) * 1000)]}Z",'
            f'"client":{quotes_of(host) or quote(host)},"method":{quotes_of(method) or quote(method)},'
            f"{parts_of(target) or split(target)},"
            f'"http_version":"{version}","status":{text_of(status) or number(status)},'
            f'"bytes":{"null" if size is None else text_of(size) or number(size)},"duration_ms":{lasted},'
            f'"referer":{quotes_of(referer) or quote(referer)},'
            f'"user_agent":{quotes_of(agent) or quote(agent)},"request_id":{request},"trace_id":{traced}}}\n'
        )
        return text if len(text) <= SURE else fitted(text, one, entry)

    return one


def quoted(text: str | None) -> str:
    """A text of an entry as a JSON value: `-` is null; None, the method of a WebSocket, is "WEBSOCKET"."""
    if text is None:
        return '"WEBSOCKET"'
    if text == "-":
        return "null"
    return f'"{text}"' if "\\" not in text else _encode(_ESCAPED.sub(_original, text))


def _parts(target: str | None) -> str:
    path, mark, query = (target or "").partition("?")
    return f'"path":{quoted(path)},"query":{quoted(query) if mark else "null"}'


def _encode(text: str) -> str:
    import json  # rarely needed, and its import takes 1 ms

    return json.dumps(text)


def _original(match: re.Match[str]) -> str:
    byte, short, long, char = match.groups()
    return _SHORT[char] if char else chr(int(byte or short or long, 16))


def _keeping(kept: dict[str | None, str], make: Callable[[Any], str]) -> Callable[[Any], str]:
    """`make` with a cache: short results are kept in `kept`, which has a bounded size."""

    def kept_or_made(text: str | None) -> str:
        made = make(text)
        if len(made) <= _KEPT_LENGTH and made.isascii():
            if len(kept) >= _KEPT:
                kept.clear()
            kept[text] = made
        return made

    return kept_or_made
