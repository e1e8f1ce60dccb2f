"""Which of the reasons of a refusal (scoreboard/row.py) an error of gunicorn's parsers is."""

from __future__ import annotations

from ssl import SSLError

from gunicorn.http import errors

LINE = "Invalid request from ip="
"""How gunicorn's own line about a refusal begins; it writes one for each, however many they are."""

_OTHERS = (errors.InvalidResponseHeader, errors.InvalidResponseHeaderName, errors.ConfigurationProblem)


def reason_of(error: BaseException) -> str:
    """The reason; empty where it is not the client's fault."""
    if isinstance(error, _OTHERS) or not isinstance(error, (errors.ParseException, SSLError)):
        return ""
    return reason_for(_STATUS.get(type(error), 400), str(error))


def reason_for(status: int, text: str) -> str:
    """The same for an answer of gunicorn's ASGI worker; empty for one that refuses nothing."""
    if status == 431:
        return "head_size" if "size" in text or "large" in text else "head_fields"
    return {400: "malformed", 414: "head_size", 501: "malformed"}.get(status, "")


_STATUS = {errors.LimitRequestLine: 414, errors.LimitRequestHeaders: 431}
