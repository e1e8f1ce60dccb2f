"""What a drain had to cut: one warning that names the requests. Knows no engine."""

from __future__ import annotations

import logging

from mooring.engines import Serving
from mooring.logs.escape import escape

_NAMED = 10


def warn(log: logging.Logger, serving: Serving, count: int | None = None) -> None:
    """Warn of the requests in flight, up to 10 by method, path and age; `count` where the engine knows it
    better. Says nothing where there are none.
    """
    requests = serving.in_flight()
    count = len(requests) if count is None else count
    if not count:
        return
    names = ", ".join(
        f"{each.method} {escape(each.path)} (after {each.age:.1f} s)" for each in requests[:_NAMED]
    )
    more = f" and {count - _NAMED} more" if names and count > _NAMED else ""
    log.warning(
        "%d request%s outlived the grace period of %g s, and %s cut%s%s%s",
        count,
        "" if count == 1 else "s",
        serving.plan.settings.graceful_timeout,
        "was" if count == 1 else "were",
        ": " if names else "",
        names,
        more,
    )
