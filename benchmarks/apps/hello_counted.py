"""hello_starlette with metrics of its own, by prometheus_client."""

from typing import Any

from hello_starlette import app as inner
from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("shop_requests", "Requests.", ["path", "method"])
BUSY = Gauge("shop_busy", "Busy.", multiprocess_mode="livesum")
TIMES = Histogram("shop_seconds", "Seconds.", ["path"])
for number in range(100):
    REQUESTS.labels(f"/items/{number}", "GET").inc(number)
for number in range(10):
    TIMES.labels(f"/items/{number}").observe(number / 100)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Count, then answer."""
    if scope["type"] == "http":
        REQUESTS.labels("/", "GET").inc()
    await inner(scope, receive, send)
