"""Make text safe for a log's line: nothing a client sends can end a line, forge one, or control a terminal.

Printable text of any script stays as it is. Not for percent-encoding paths or for JSON.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import count
from typing import TypeVar

K = TypeVar("K", bytes, str)

# Most characters of a line's parts: so a whole line stays below PIPE_BUF, and its status is never cut off.
TARGET_LIMIT = 2048
AGENT_LIMIT = 512
HOST_LIMIT = 253
METHODS = frozenset((None, "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"))

# Caches of texts that come again, some 200 KiB each at most.
kept_targets: dict[bytes, str] = {}
kept_agents: dict[bytes, str] = {}
kept_hosts: dict[str, str] = {}
_KEPT, _KEPT_LENGTH = 256, 256
_turns = count()

# A client's address that needs no escaping, and may be believed (settings/trusted.py): also a name, and the
# obfuscated forms of RFC 7239.
HOST_OTHERS = "._:%-"  # its characters besides letters and digits
ADDRESS = re.compile(rf"[0-9A-Za-z{HOST_OTHERS}]{{1,{HOST_LIMIT}}}")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t", "\\": r"\\", '"': r"\""}
_CANDIDATES = re.compile(r"[^ -~]")
_CANDIDATES_QUOTED = re.compile(r"[^ !#-\[\]-~]")


def escape(text: str) -> str:
    r"""`text` with everything unprintable escaped: `\n`, `\x1b`, `\u202e`.

    A byte that was no UTF-8 (decoded with surrogateescape) is shown as `\xff`. Backslashes stay, so the
    result is for people only; that of `escape_quoted` is unambiguous.
    """
    return text if text.isprintable() else _CANDIDATES.sub(_escaped, text)


def escape_quoted(text: str) -> str:
    """As `escape`, for text between double quotes: quotes and backslashes are escaped too."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return _CANDIDATES_QUOTED.sub(_escaped, text)


def field(value: bytes, limit: int) -> str:
    """A client's text, escaped for a place between quotes: at most `limit` characters, then `...` if cut."""
    text = value[:limit].decode("utf-8", "surrogateescape")
    if not (text.isprintable() and '"' not in text and "\\" not in text):
        text = _CANDIDATES_QUOTED.sub(_escaped, text)
    return text if len(text) <= limit >= len(value) else f"{text[:limit]}..."


def target_field(value: bytes) -> str:
    """`field` for a request's target. Hot paths ask `kept_targets.get(value)` first.

    One in 16 targets is kept: frequent ones soon are, and rare ones cost almost nothing more.
    """
    if len(value) > TARGET_LIMIT:
        return field(value, TARGET_LIMIT)
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return field(value, TARGET_LIMIT)
    if not (text.isprintable() and '"' not in text and "\\" not in text):
        return field(value, TARGET_LIMIT)
    if not next(_turns) & 15 and len(value) <= _KEPT_LENGTH:
        _keep(kept_targets, value, text)
    return text


def kept_agent_field(value: bytes) -> str:
    """`agent_field` of a value of any length. Hot paths ask `kept_agents.get(value)` first."""
    text = agent_field(value[: AGENT_LIMIT + 1])
    if len(value) <= _KEPT_LENGTH:
        _keep(kept_agents, value, text)
    return text


def host_field(host: str) -> str:
    """A client's address or port, which are written without quotes. Hot paths ask `kept_hosts.get` first.

    They do not always come from the kernel: middleware in the application may set them from a header.
    """
    if not ADDRESS.fullmatch(str(host)):
        return field(str(host).encode("utf-8", "surrogatepass"), HOST_LIMIT).replace(" ", r"\x20")
    _keep(kept_hosts, host, host)
    return host


def _keep(kept: dict[K, str], value: K, text: str) -> None:
    if len(kept) >= _KEPT:
        kept.clear()
    kept[value] = text


def latin_field(text: str, limit: int) -> str:
    """`field` for a text that a WSGI server has decoded as Latin-1."""
    if len(text) <= limit and text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return field(text[: limit + 1].encode("latin-1", "replace"), limit)


@lru_cache(maxsize=256)
def agent_field(value: bytes) -> str:
    """`field`, cached, for a user agent or a referer; pass at most AGENT_LIMIT + 1 bytes."""
    return field(value, AGENT_LIMIT)


@lru_cache(maxsize=256)
def latin_agent_field(text: str) -> str:
    """`agent_field` for a text that a WSGI server has decoded as Latin-1."""
    return latin_field(text, AGENT_LIMIT)


def method_field(method: str) -> str:
    """A request's method; an unknown one is escaped, since a client may send any text."""
    return method if method in METHODS else field(method.encode("utf-8", "surrogateescape"), 32)


def _escaped(match: re.Match[str]) -> str:
    char = match.group()
    if char in _SHORT:
        return _SHORT[char]
    if char.isprintable():
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # what surrogateescape makes of a byte (PEP 383)
        code -= 0xDC00
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
