"""What the drop-in tests share: users' applications, a container's configuration file, its end."""

from __future__ import annotations

import json
import socket
import subprocess
from typing import Any
from urllib.parse import urlsplit

from container import Container
from engine import run

STOP = 20
"""Seconds that an idle server may take to stop; two of the older images took 120 s, or for ever."""


def says(text: str, name: str = "app") -> str:
    """An ASGI application that answers with a text, and at /env with its environment as JSON; /slow and /hang
    take 600 s, /hang without yielding.
    """
    return f"""
import asyncio, json, os, time

async def {name}(scope, receive, send):
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({{"type": message["type"] + ".complete"}})
        await send({{"type": "lifespan.shutdown.complete"}})
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(600)
    if scope["path"] == "/hang":
        time.sleep(600)
    body = (json.dumps(dict(os.environ)) if scope["path"] == "/env" else {text!r}).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": body}})
"""


def once(
    docker: str, image: str, *options: str, command: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """`docker run --rm` to its end: for a start that fails, or for another command than the server."""
    return run(docker, "run", "--rm", *options, image, *command)


def envs(**environ: Any) -> list[str]:
    """Options of `docker run`."""
    return [f"--env={name}={value}" for name, value in environ.items()]


def conf(container: Container, path: str, **environ: Any) -> dict[str, Any]:
    """What `python CONF` prints in the container, with these variables besides its own: one JSON object."""
    given = [f"{name}={value}" for name, value in environ.items()]
    code, text = container.execute("env", *given, "python", path)
    assert (code, text.count("\n")) == (0, 1), text
    return dict(json.loads(text))


def check(container: Container, **environ: Any) -> dict[str, Any]:
    """What `mooring check --json` says there: what a start with these variables would run."""
    given = [f"{name}={value}" for name, value in environ.items()]
    code, text = container.execute("env", *given, "mooring", "check", "--json")
    assert code == 0, text
    return dict(json.loads(text))


def summary(container: Container) -> dict[str, Any]:
    """The JSON object that it printed at its last start."""
    lines = [line for line in container.output()[0].splitlines() if line.startswith("{")]
    assert lines, container.logs()
    return dict(json.loads(lines[-1]))


def ends(container: Container) -> None:
    """It is idle: `docker stop` ends it in time, and with 0."""
    assert container.stop(STOP) == 0, container.logs()


def again(container: Container) -> None:
    """It stops, starts again with nothing of the first run in its way, answers the same, and stops."""
    body = container.text()
    ends(container)
    container.again()
    assert container.text() == body
    ends(container)


def refused(done: subprocess.CompletedProcess[str], code: int) -> str:
    """It ended with this code without having listened; the last line on stderr."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "listening at" not in done.stderr
    return done.stderr.splitlines()[-1] if done.stderr else ""


def edit(container: Container, path: str, text: str) -> None:
    """Write a file in the container."""
    assert container.execute("python", "-c", f"open({path!r}, 'w').write({text!r})")[0] == 0


def connect(container: Container) -> socket.socket:
    """A connection to its port."""
    address = urlsplit(container.url)
    return socket.create_connection((address.hostname, address.port), timeout=90)


def request(sock: socket.socket, path: str = "/", *headers: str) -> None:
    """One GET, whose connection is kept."""
    lines = [f"GET {path} HTTP/1.1", "Host: test", *headers, "", ""]
    sock.sendall("\r\n".join(lines).encode())
