"""What all forms of access log lines share: the entry, the type of a form, numbers and dates as text.

A line is made on a request's path, so texts that come again are kept. Not for a form itself (line.py,
json_line.py, atoms.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

# host; port, None if the client has none; method, None for a WebSocket handshake, whose status is 101 if it
# was accepted; target; HTTP version; status; bytes of the body, None if unknown; seconds; referer; user
# agent; request id; trace id (32 hex digits); with Format.full the scope or environ and the response's
# headers, as a tuple, else None. A missing text is `-`.
Entry = tuple[
    str, int | str | None, str | None, str, str, int, int | None, float, str, str, str, str, Any
]  # fmt: skip
ENTRY = 13
(HOST, PORT, METHOD, TARGET, VERSION, STATUS, SIZE, SECONDS, REFERER, AGENT, REQUEST_ID, TRACE_ID, EXTRA) = (
    range(ENTRY)
)
Line = Callable[[Entry], str]
T = TypeVar("T")

LONGEST = 4095  # bytes of a line: below PIPE_BUF, so that a pipe takes it whole: pipe(7)
SURE = LONGEST // 4  # so many characters never have more than LONGEST bytes

# Small numbers as text: looked up in half the time that int() to str() takes.
DIGITS = tuple(map(str, range(1024)))
_KEPT = 512
texts: dict[int | None, str] = {None: "-"}

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Format(NamedTuple):
    """A form of the access log: `line` makes a line, newline included, of at most LONGEST bytes.

    What the form needs: `headers`: referer and user agent (else they are `-`); `declared`: the size is the
    response's Content-Length, not the bytes counted; `full`: the entry's last item; `ids`: a request id for
    each request. `timed`: whether Apache's combined form has the duration; None for all other forms, which
    scoreboard/accelerator.py cannot write.
    """

    line: Line
    headers: bool = False
    declared: bool = False
    full: bool = False
    ids: bool = False
    timed: bool | None = None


def number(value: int | None) -> str:
    """The text of a status or a size, `-` for None. Hot paths ask `texts.get` first."""
    text = "-" if value is None else str(int(value))
    if len(texts) < _KEPT:
        texts[value] = text
    return text


def each_second(render: Callable[[time.struct_time], T]) -> Callable[[], T]:
    """A function that gives the local time, rendered once a second. A race renders it twice, never wrong."""
    clock, local = time.time, time.localtime
    kept = (0.0, render(local(0)))

    def now() -> T:
        nonlocal kept
        since, made = kept
        moment = clock()
        if since <= moment < since + 1:
            return made
        second = int(moment)
        kept = (float(second), render(local(second)))
        return kept[1]

    return now


def apache_date(now: time.struct_time) -> str:
    """`[21/Nov/2026:08:46:19 +0000]`, in English whatever the locale."""
    return f"[{now.tm_mday:02d}/{_MONTHS[now.tm_mon - 1]}/{time.strftime('%Y:%H:%M:%S %z', now)}]"


def log_date(now: time.struct_time) -> str:
    """`[2026-11-21 08:46:19 +0000]`."""
    return time.strftime("[%Y-%m-%d %H:%M:%S %z]", now)


def fitted(text: str, line: Line, entry: Entry) -> str:
    """`text`, made by `line` from `entry`, if it has at most LONGEST bytes; else a line with the client's
    longest texts cut. Call it only if `len(text) > SURE`.
    """
    if len(text.encode("utf-8", "backslashreplace")) <= LONGEST:
        return text
    longest = max(len(entry[3]), len(entry[8]), len(entry[9]))
    if longest <= 64:  # the length comes from the format's own text
        return f"{text[: SURE - 4].rstrip()}...\n"
    limit = longest // 2
    return line(
        (
            *entry[:3],
            _cut(entry[3], limit),
            *entry[4:8],
            _cut(entry[8], limit),
            _cut(entry[9], limit),
            *entry[10:],
        )
    )


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3].rstrip('.')}..."
