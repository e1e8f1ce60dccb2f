"""Which requests the access log leaves out (access_log_skip) or shows a share of (access_log_sample).

An item is a path as it was requested, without its query (`/healthz`; `/static/*` means each path that begins
with `/static/`), a status (`304`), or a class of statuses (`2xx`); in access_log_sample `=SHARE` follows. A
skipped request is not sampled. If several shares match, one counts: that of the path, else of the longest
beginning, else of the status, else of the class. A 5xx response always has a line, unless an item names its
status or 5xx.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any, NamedTuple

from mooring.errors import ConfigurationError

SKIP_EXPECTED = "paths (/healthz, /static/*) and statuses (304, 2xx)"
SAMPLE_EXPECTED = "paths and statuses with a share from 0 to 1, such as /static/*=0.01 or 2xx=0.1"

_PATH = re.compile(r"/[^\s*?#]*\*?")
_STATUS = re.compile(r"[1-5](?:[0-9]{2}|xx)", re.IGNORECASE)
_SHARE = re.compile(r"(0?|1)(?:\.([0-9]{1,9}))?")

Share = tuple[int, int]  # numerator, denominator
Decision = Callable[[], bool]
Wanted = Callable[[bytes | str, int], bool]  # the path as requested (WSGI: Latin-1 text), and the status


class LineRules(NamedTuple):
    """`wanted(path, status)`: whether a request has a line. A path is bytes (ASGI) or Latin-1 text (WSGI)."""

    wanted: Wanted


def parse(skip: tuple[str, ...], sample: tuple[str, ...]) -> LineRules | None:
    """The rules of the settings' items; None without items. Raises ConfigurationError for a bad item."""
    if not skip and not sample:
        return None
    return LineRules(
        _wanted(
            {_read("access_log_skip", skipped_item, item) for item in skip},
            dict(_read("access_log_sample", sampled_item, item) for item in sample),
        )
    )


def _read(setting: str, read: Callable[[str], Any], item: str) -> Any:
    try:
        return read(item)
    except ValueError as error:
        raise ConfigurationError(f"{setting}: {item!r}: expected {error}") from None


def skipped_item(item: str) -> str:
    """What an item of access_log_skip names. Raises ValueError."""
    if not (_PATH.fullmatch(item) or _STATUS.fullmatch(item)):
        raise ValueError(SKIP_EXPECTED)
    return item if item.startswith("/") else item.lower()


def sampled_item(item: str) -> tuple[str, Share]:
    """What an item of access_log_sample names, and its share, exactly. Raises ValueError."""
    what, _, text = (part.strip() for part in item.rpartition("="))
    found = _SHARE.fullmatch(text)
    if not text or found is None or not (_PATH.fullmatch(what) or _STATUS.fullmatch(what)):
        raise ValueError(SAMPLE_EXPECTED)
    digits = found[2] or ""
    share = int(found[1] + digits or "0"), 10 ** len(digits)
    if share[0] > share[1]:
        raise ValueError(SAMPLE_EXPECTED)
    return (what if what.startswith("/") else what.lower()), share


def _wanted(skip: set[str], sample: dict[str, Share]) -> Wanted:
    decisions = {what: _decision(share) for what, share in sample.items()}
    skipped = frozenset(_statuses(skip))
    sampled = {status: decisions[what] for status, what in _statuses(decisions).items()}
    # ASGI's paths are bytes, WSGI's are Latin-1 text: each has its own tables, since the two are never equal.
    raw = _by_path(skip, decisions, str.encode)
    text = _by_path(skip, decisions, lambda path: path.encode().decode("latin-1"))

    def wanted(path: bytes | str, status: int) -> bool:
        if status in skipped:
            return False
        decision = None
        if status < 500:
            left_out, beginnings, exact, parts = raw if path.__class__ is bytes else text
            if path in left_out or (beginnings and path.startswith(beginnings)):
                return False
            decision = exact.get(path)
            if decision is None:
                for beginning, its in parts:
                    if path.startswith(beginning):
                        decision = its
                        break
        if decision is None:
            decision = sampled.get(status)
        return decision is None or decision()

    return wanted


def _by_path(skip: set[str], decisions: dict[str, Decision], coded: Callable[[str], Any]) -> tuple[Any, ...]:
    """Four tables: skipped paths, skipped beginnings, sampled paths, sampled beginnings (longest first)."""
    paths = {what: its for what, its in decisions.items() if what.startswith("/")}
    return (
        frozenset(coded(what) for what in skip if not what.endswith("*")),
        tuple(coded(what[:-1]) for what in skip if what.endswith("*")),
        {coded(what): its for what, its in paths.items() if not what.endswith("*")},
        tuple(
            (coded(what[:-1]), paths[what])
            for what in sorted(paths, key=len, reverse=True)
            if what.endswith("*")
        ),
    )


def _statuses(items: Iterable[str]) -> dict[int, str]:
    """Each status that an item names, and that item; a status's own item wins over that of its class."""
    found: dict[int, str] = {}
    for what in items:
        if what.startswith("/"):
            continue
        if what.endswith("xx"):
            first = int(what[0]) * 100
            found = dict.fromkeys(range(first, first + 100), what) | found
        else:
            found[int(what)] = what
    return found


def _decision(share: Share) -> Decision:
    """A function that is True for this share of its calls, evenly spread, the first included. Thread-safe."""
    part, whole = share
    calls = count()
    return lambda: next(calls) * part % whole < part
