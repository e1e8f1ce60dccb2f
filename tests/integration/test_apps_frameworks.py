"""Applications of six frameworks, found as users lay them out, on every engine that can serve them.

The same questions to each; each application is a folder of apps/.
"""

from __future__ import annotations

import os

import httpx
import pytest
from harness import PATIENCE
from served import Served
from variants import ASGI, WSGI, Variant
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

# Folder: what mooring finds there, the variants that can serve it.
ON_ASYNCIO = [variant for variant in ASGI if variant.worker_class != "trio"]
FRAMEWORKS = {
    "fastapi": ("main:app", ASGI),
    "starlette": ("app.main:app", ASGI),
    "quart": ("app:create_app()", ON_ASYNCIO),
    "litestar": ("app:app", ON_ASYNCIO),
    "flask": ("flaskr:create_app()", WSGI),
}
CASES = [(name, variant) for name, (_, variants) in FRAMEWORKS.items() for variant in variants]
MIB = os.urandom(1024 * 1024)


@pytest.mark.parametrize(("framework", "variant"), CASES, ids=str)
def test_a_framework_is_found_and_serves(mooring, framework: str, variant: Variant):
    target, _ = FRAMEWORKS[framework]
    served = Served.start(mooring, variant, folder=framework)
    plan = served.app.status()["plan"]
    assert (plan["app"]["value"], plan["interface"]["value"]) == (target, variant.interface)
    with httpx.Client(base_url=served.url, timeout=PATIENCE, trust_env=False) as client:
        answers_requests(client)
        if variant.interface == "asgi":
            assert client.get("/threaded/you").json() == {"hello": "you"}
            assert client.get("/state").json() == {"state": "in lifespan"}
    if variant.interface == "asgi":
        echoes_over_a_websocket(served)
    assert served.app.stop() == 0


def answers_requests(client: httpx.Client) -> None:
    assert client.get("/hello/grüße").json() == {"hello": "grüße"}
    created = client.post("/notes", json={"title": "größer"})
    assert (created.status_code, created.json()) == (201, {"title": "größer", "size": 0})
    assert client.post("/upload", content=MIB).json() == {"size": len(MIB)}
    chunked = client.post("/upload", content=iter([MIB[:1000], MIB[1000:]]))
    assert chunked.json() == {"size": len(MIB)}
    assert client.get("/stream").text == "0\n1\n2\n3\n4\n"
    assert client.get("/nowhere").status_code == 404
    head = client.head("/hello/you")
    assert (head.status_code, head.content) in {(200, b""), (405, b"")}  # FastAPI and Litestar have no HEAD


def echoes_over_a_websocket(served: Served) -> None:
    url = served.url.replace("http", "ws", 1) + "/ws"
    with connect(url, open_timeout=PATIENCE, proxy=None) as socket:
        socket.send("you")
        assert socket.recv(PATIENCE) == "heard you"
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(PATIENCE)
    assert closed.value.rcvd.code == 4002
