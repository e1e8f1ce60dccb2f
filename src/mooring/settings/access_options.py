"""Parsers for the settings of the access log and of request ids.

What they ask is imported when a setting is given: most starts need none of it. As in parsers.py, they
take the stripped text and raise ValueError that says what was expected.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mooring.settings import parsers

# A request id in one of these would break the response, change whom to trust, or show what is secret.
_TAKEN = (
    "accept authorization connection content-encoding content-length content-type cookie date forwarded host "
    "keep-alive location origin proxy-authorization referer server set-cookie te traceparent tracestate "
    "traceresponse trailer transfer-encoding upgrade user-agent vary via x-forwarded-for x-forwarded-proto"
)


def line_format(text: str) -> str:
    """A form's name, or a text with atoms (logs/access/atoms.py)."""
    from mooring.errors import ConfigurationError
    from mooring.logs.access.line import formatter

    try:
        formatter(text)
    except ConfigurationError as error:
        raise ValueError(str(error).partition(f"{text!r}: ")[2].removeprefix("expected ")) from None
    return text


def skip(text: str) -> tuple[str, ...]:
    """Items of access_log_skip."""
    from mooring.logs.access.rules import SKIP_EXPECTED, skipped_item

    return _items(text, skipped_item, SKIP_EXPECTED)


def sample(text: str) -> tuple[str, ...]:
    """Items of access_log_sample."""
    from mooring.logs.access.rules import SAMPLE_EXPECTED, sampled_item

    return _items(text, sampled_item, SAMPLE_EXPECTED)


def header(text: str) -> str:
    """A header's name of its own, in lower case; or auto."""
    name = text.lower()
    if (name != "auto" and not re.fullmatch(r"[a-z0-9-]{1,64}", name)) or name in _TAKEN.split():
        raise ValueError("a header's name that has no other use, such as x-request-id, or nothing for none")
    return name


def _items(text: str, read: Callable[[str], object], expected: str) -> tuple[str, ...]:
    items = parsers.items(text)
    for item in items:
        try:
            read(item)
        except ValueError:
            raise ValueError(f"{expected}, not {item!r}") from None
    return items
