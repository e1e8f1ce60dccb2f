"""The parsers that the settings table names: each turns a text into a typed value.

A parser takes the stripped text and returns the value, or raises ValueError that says what was expected.
Modules of other packages are imported only when a value is given: most starts need none of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from mooring.system.address import Address, parse_address

Parser = Callable[[str], Any]

LONGEST = 1_000_000_000  # seconds: 31 years
MOST_CORES = 65_536

_TRUE = frozenset({"1", "true", "yes", "on", "y", "t"})
_FALSE = frozenset({"0", "false", "no", "off", "n", "f"})
_HOST_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def text(value: str) -> str:
    """Any text."""
    return value


def flag(value: str) -> bool:
    """True or false, in any of the usual spellings."""
    lowered = value.lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise ValueError("true or false")


LARGEST_MESSAGE = 2**40  # bytes: in effect no limit


def integer(minimum: int, maximum: int | None = None) -> Parser:
    """A parser for a whole number within bounds."""
    expected = f"a whole number of at least {minimum}" + (
        f" and at most {maximum}" if maximum is not None else ""
    )

    def parse(value: str) -> int:
        digits = value[1:] if value[:1] in "+-" else value
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
            raise ValueError(expected)
        number = int(value)
        if number < minimum or (maximum is not None and number > maximum):
            raise ValueError(expected)
        return number

    return parse


def number(minimum: float, maximum: float = math.inf, *, exclusive: bool = False, unit: str = "") -> Parser:
    """A parser for a finite decimal number within bounds; `exclusive` excludes the lower bound."""
    bound = f"more than {minimum:g}" if exclusive else f"at least {minimum:g}"
    bound += f" and at most {maximum:.0f}" if math.isfinite(maximum) else ""
    expected = f"a number of {unit + ', ' if unit else ''}{bound}"

    def parse(value: str) -> float:
        try:
            parsed = float(value)
        except ValueError:
            raise ValueError(expected) from None
        if not value.isascii() or "_" in value:  # float() accepts 1_000, and digits of any script
            raise ValueError(expected)
        if not (math.isfinite(parsed) and minimum <= parsed <= maximum) or (exclusive and parsed == minimum):
            raise ValueError(expected)
        return parsed

    return parse


def seconds(minimum: float = 0, *, exclusive: bool = False) -> Parser:
    """A parser for a duration in seconds, at most LONGEST: no engine takes more than the kernel can count."""
    return number(minimum, LONGEST, exclusive=exclusive, unit="seconds")


def choice(*names: str, **synonyms: str) -> Parser:
    """A parser for one of some names, upper or lower case; `synonyms` maps other spellings to a name."""

    def parse(value: str) -> str:
        lowered = value.lower()
        lowered = synonyms.get(lowered, lowered)
        if lowered not in names:
            raise ValueError("one of " + ", ".join(names))
        return lowered

    return parse


_MOST_SEVERE = 100  # the greatest number of a level

# Levels of other libraries (loguru, uvicorn, syslog, log4j, .NET), each with the nearest of ours.
_OTHER_LEVELS = {
    **dict.fromkeys(("notset", "all", "trace", "verbose", "finest", "finer", "fine"), "debug"),
    **dict.fromkeys(("success", "notice", "information"), "info"),
    "warn": "warning",
    **dict.fromkeys(("err", "severe", "exception"), "error"),
    **dict.fromkeys(("fatal", "crit", "alert", "emergency", "emerg", "panic"), "critical"),
}


def log_level(value: str) -> str:
    """One of mooring's levels: by its name, or the nearest to another library's, or to a number of `logging`.

    A number in the middle, such as 25, is the less severe one: no line is lost.
    """
    from mooring.logs.log import LEVELS

    name = value.lower()
    name = _OTHER_LEVELS.get(name, name)
    if name.isascii() and name.isdigit() and len(name) <= 3 and int(name) <= _MOST_SEVERE:
        given = int(name)
        name = min(LEVELS, key=lambda level: abs(LEVELS[level] - given))
    if name not in LEVELS:
        raise ValueError("one of " + ", ".join(LEVELS) + f", or a number from 0 to {_MOST_SEVERE}")
    return name


def log_file(value: str) -> str | None:
    """Where a log goes: - or a path. True is -, false and none are None, which is off.

    Other servers have a switch under the same variable, and nobody means a file called true.
    """
    lowered = value.lower()
    if lowered in _FALSE or lowered in {"none", "null"}:
        return None
    if lowered in _TRUE:
        return "-"
    if quoted(value):
        raise ValueError("-, a path, true or false")
    return value


def quoted(value: str) -> bool:
    """Whether quotes are around a value: `docker --env-file` and systemd's own files keep some of them."""
    return len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"


def octal_mode(value: str) -> int:
    """File permission bits in octal, such as 660."""
    if not value or set(value) - set("01234567") or int(value, 8) > 0o777:
        raise ValueError("permission bits in octal, such as 660")
    return int(value, 8)


def host_names(value: str) -> tuple[str, ...]:
    """Names of hosts as a Host header has them, without a port."""
    names = items(value)
    if all(_HOST_NAME.fullmatch(name) for name in names):
        return names
    raise ValueError("names of hosts, separated by commas, such as shop.example, each without a port")


def items(value: str) -> tuple[str, ...]:
    """A comma-separated list; empty parts are dropped."""
    return tuple(part.strip() for part in value.split(",") if part.strip())


def commands(value: str) -> tuple[str, ...]:
    """Commands, separated by line ends or by semicolons outside quotes; the quotes are a shell's."""
    import shlex  # imported here: 2 ms, and most users give no commands

    found: list[str] = []
    for line in value.splitlines():
        words = shlex.shlex(line, posix=False, punctuation_chars=";")
        words.whitespace_split = True
        words.commenters = ""
        command: list[str] = []
        try:
            for word in [*words, ";"]:
                if set(word) != {";"}:
                    command.append(word)
                elif command:
                    found.append(" ".join(command))
                    command = []
        except ValueError:
            raise ValueError("commands separated by semicolons, each quote closed") from None
    return tuple(found)


_SIZES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def memory(value: str) -> int | str:
    """A size in bytes, with K, M, G or T for powers of 1024 (256M, 1.5G, 256MiB); or a share as text: 25%."""
    expected = "a size of at least 1M such as 256M or 1.5G, or a share of the memory limit such as 25%"
    try:
        if value.endswith("%"):
            return f"{number(0, 100, exclusive=True)(value[:-1].strip()):g}%"
        size = _bytes(value)
    except (ValueError, KeyError):
        raise ValueError(expected) from None
    if not 2**20 <= size <= 2**53:
        raise ValueError(expected)
    return size


def size(value: str) -> int:
    """A size in bytes, with K, M, G or T for powers of 1024 (64K, 10M, 1.5GiB); 0 is none."""
    try:
        return _bytes(value)
    except (ValueError, KeyError):
        raise ValueError("a size in bytes such as 64K, 10M or 1.5G") from None


def message_size(value: str) -> int:
    """A size in bytes, as for `memory`."""
    expected = "a size of 1 byte to 1T, such as 65536, 512K or 16M"
    try:
        size = _bytes(value)
    except (ValueError, KeyError):
        raise ValueError(expected) from None
    if not 1 <= size <= LARGEST_MESSAGE:
        raise ValueError(expected)
    return size


def _bytes(value: str) -> int:
    """Raises ValueError for what is no number, KeyError for what is no unit."""
    digits = value.rstrip("kmgtibKMGTIB ")
    unit = value[len(digits) :].strip().lower().removesuffix("b").removesuffix("i")
    return int(number(0, 2**50)(digits) * _SIZES[unit])


def cpu_count(value: str) -> float | str:
    """`host`, or a number of CPU cores more than 0."""
    if value.lower() == "host":
        return "host"
    try:
        return float(number(0, MOST_CORES, exclusive=True)(value))
    except ValueError:
        raise ValueError(f"host, or a number of CPU cores more than 0 and at most {MOST_CORES}") from None


def debug_address(text: str) -> Address:
    """[HOST:]PORT; the host is 127.0.0.1. Raises ValueError."""
    expected = "[HOST:]PORT"
    try:
        address = parse_address(text if ":" in text else f"127.0.0.1:{text}")
    except ValueError:
        raise ValueError(expected) from None
    if address.kind != "tcp" or not address.port:
        raise ValueError(expected)
    return address


# A request id in one of these headers would break the response, change who is trusted, or show a secret.
_TAKEN = (
    "accept authorization connection content-encoding content-length content-type cookie date forwarded host "
    "keep-alive location origin proxy-authorization referer server set-cookie te traceparent tracestate "
    "traceresponse trailer transfer-encoding upgrade user-agent vary via x-forwarded-for x-forwarded-proto"
)


def line_format(text: str) -> str:
    """The form of an access log line: a name, or a text with atoms (logs/access/atoms.py)."""
    from mooring.errors import ConfigurationError
    from mooring.logs.access.line import formatter

    try:
        formatter(text)
    except ConfigurationError as error:
        raise ValueError(str(error).partition(f"{text!r}: ")[2].removeprefix("expected ")) from None
    return text


def access_log_skip(text: str) -> tuple[str, ...]:
    """The items of access_log_skip: paths and statuses."""
    from mooring.logs.access.rules import SKIP_EXPECTED, skipped_item

    return _items(text, skipped_item, SKIP_EXPECTED)


def access_log_sample(text: str) -> tuple[str, ...]:
    """The items of access_log_sample: paths and statuses with a share."""
    from mooring.logs.access.rules import SAMPLE_EXPECTED, sampled_item

    return _items(text, sampled_item, SAMPLE_EXPECTED)


def header_name(text: str) -> str:
    """The name of a header that has no other use, in lower case; or auto."""
    name = text.lower()
    if (name != "auto" and not re.fullmatch(r"[a-z0-9-]{1,64}", name)) or name in _TAKEN.split():
        raise ValueError("a header's name that has no other use, such as x-request-id, or nothing for none")
    return name


def _items(text: str, read: Callable[[str], object], expected: str) -> tuple[str, ...]:
    found = items(text)
    for item in found:
        try:
            read(item)
        except ValueError:
            raise ValueError(f"{expected}, not {item!r}") from None
    return found
