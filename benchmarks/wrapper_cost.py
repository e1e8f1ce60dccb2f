"""What mooring's wrapper costs per request: microseconds over the bare callable, ASGI and WSGI.

Medians of alternating runs, so that a machine that changes its speed changes both sides. Requests are
counted in a row of a scoreboard, and the log goes to /dev/null through a ring and a real log writer.
Usage: python benchmarks/wrapper_cost.py [ROUNDS]
"""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

from mooring.instrument.asgi import wrap_asgi
from mooring.instrument.meter import Lines, Meter
from mooring.instrument.proxy import asgi_proxy, wsgi_proxy
from mooring.instrument.request_id import asgi_identifier, wsgi_identifier
from mooring.instrument.wsgi import wrap_wsgi
from mooring.logs.access.keeper import LogKeeper
from mooring.logs.access.line import formatter
from mooring.logs.log import Log, LogFiles
from mooring.scoreboard.ring import writer
from mooring.scoreboard.row import Row
from mooring.settings.trusted import parse_trusted

AGENT = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
)
REQUESTS = 2000
OTHERS = (
    "accept",
    "accept-encoding",
    "accept-language",
    "cookie",
    "connection",
    "sec-fetch-mode",
    "x-request-id",
)
BODY = b'{"hello": "world"}'
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"18")]}
END = {"type": "http.response.body", "body": BODY}


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send(START)
    await send(END)


def wsgi_list(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("Content-Length", "18")])
    return [BODY]


def wsgi_iterable(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("Content-Length", "18")])
    return iter((BODY,))


def scope(browser: bool) -> dict[str, Any]:
    headers = [(b"host", b"localhost")]
    if browser:
        headers += [(b"user-agent", bytes(bytearray(AGENT.encode())))]
        headers += [(name.encode(), b"some value") for name in OTHERS]
    return {
        "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": "/items/42",
        "raw_path": b"/items/42", "query_string": b"q=1", "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 50000), "server": ("127.0.0.1", 8000),
    }  # fmt: skip


def environ(browser: bool) -> dict[str, Any]:
    made = {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/items/42", "QUERY_STRING": "q=1",
        "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "127.0.0.1", "wsgi.url_scheme": "http",
    }  # fmt: skip
    return {**made, "HTTP_USER_AGENT": AGENT} if browser else made


async def _send(message: Any) -> None:
    """Stands for uvicorn's send, which is a coroutine function too."""


def asgi_seconds(app: Any, requests: int, browser: bool) -> float:
    async def run() -> float:
        scopes = [scope(browser) for _ in range(requests)]
        began = perf_counter()
        for one in scopes:
            await app(one, None, _send)
        return perf_counter() - began

    return asyncio.run(run())


def wsgi_seconds(app: Any, requests: int, browser: bool) -> float:
    environs = [environ(browser) for _ in range(requests)]
    began = perf_counter()
    for one in environs:
        body = app(one, lambda status, headers: None)
        for _ in body:
            pass
        if hasattr(body, "close"):
            body.close()
    return perf_counter() - began


def compare(measure: Callable[..., float], bare: Any, wrapped: Any, rounds: int, browser: bool) -> float:
    """Microseconds per request by which `wrapped` is slower: the median of the rounds' differences."""
    differences = []
    for _ in range(rounds):
        without = measure(bare, REQUESTS, browser)
        differences.append((measure(wrapped, REQUESTS, browser) - without) / REQUESTS * 1e6)
    return statistics.median(differences)


def meter(keeper: LogKeeper, name: str) -> Meter:
    """A meter with a row, and with an access log of the given form."""
    if name == "off":
        return Meter(Row())
    return Meter(Row(), Lines(formatter(name), writer(keeper.rings.fd, 0, keeper.rings.wake)))


def variants(peer: str, header: str | None, made: Meter) -> list[tuple[str, Callable[..., float], Any, Any]]:
    """For each case: its name, the function that measures it, the bare application, the wrapped one."""
    trusted = parse_trusted([{"other": "10.0.0.1", "trusted": "127.0.0.1"}[peer]])
    asgi, wsgi = asgi_proxy(trusted, unix=False), wsgi_proxy(trusted, unix=False)
    ids = asgi_identifier(header, False, trusted, unix=False)
    wsgi_ids = wsgi_identifier(header, False, trusted, unix=False)
    return [
        ("ASGI", asgi_seconds, asgi_app, wrap_asgi(asgi_app, asgi, "", made, ids)),
        ("WSGI list", wsgi_seconds, wsgi_list, wrap_wsgi(wsgi_list, wsgi, "", made, wsgi_ids)),
        ("WSGI iterable", wsgi_seconds, wsgi_iterable, wrap_wsgi(wsgi_iterable, wsgi, "", made, wsgi_ids)),
    ]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 41
    keeper = LogKeeper(os.open(os.devnull, os.O_WRONLY), LogFiles(), Log(2))
    keeper.rings.give(0)
    keeper.start()
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {rounds} rounds of {REQUESTS} requests"
    )
    print(f"{'interface':14}{'log':10}{'id':5}{'peer':10}{'headers':10}us/request")
    for name in ("off", "uvicorn", "common", "json"):
        made = meter(keeper, name)
        for peer, header in (("other", None), ("trusted", None), ("other", "x-request-id")):
            for browser in (False, True):
                for interface, measure, bare, wrapped in variants(peer, header, made):
                    cost = compare(measure, bare, wrapped, rounds, browser)
                    head = f"{interface:14}{name:10}{'yes' if header else 'no':5}{peer:10}"
                    print(f"{head}{'browser' if browser else 'host':10}{cost:6.2f}", flush=True)
    keeper.close()


if __name__ == "__main__":
    main()
