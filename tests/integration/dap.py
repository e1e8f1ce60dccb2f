"""A client of the Debug Adapter Protocol, as an editor's: requests, responses, events.

https://microsoft.github.io/debug-adapter-protocol/specification
"""

from __future__ import annotations

import json
import socket
from typing import Any

TIMEOUT = 60.0


class Debugger:
    """One session at a debugger's port."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), timeout=TIMEOUT)
        self.file = self.socket.makefile("rb")
        self.number = 0
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Debugger:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def send(self, command: str, **arguments: Any) -> int:
        """A request: its number."""
        self.number += 1
        message = {"seq": self.number, "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(message).encode()
        self.socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        return self.number

    def _read(self) -> dict[str, Any]:
        length = 0
        while line := self.file.readline().strip():
            name, _, value = line.partition(b":")
            length = int(value) if name == b"Content-Length" else length
        assert length, "the debugger hung up"
        found: dict[str, Any] = json.loads(self.file.read(length))
        return found

    def answer(self, number: int) -> dict[str, Any]:
        """The body of a response."""
        while True:
            message = self._read()
            if message["type"] == "event":
                self.events.append(message)
            elif message["type"] == "response" and message["request_seq"] == number:
                assert message["success"], message
                return dict(message.get("body") or {})

    def event(self, name: str) -> dict[str, Any]:
        """The next event of that name."""
        while not (found := [each for each in self.events if each["event"] == name]):
            message = self._read()
            if message["type"] == "event":
                self.events.append(message)
        self.events.remove(found[0])
        return dict(found[0].get("body") or {})

    def attach(self) -> dict[str, Any]:
        """As an editor does: what the adapter can do; breakpoints are still to be set."""
        able = self.answer(self.send("initialize", adapterID="python", clientID="test"))
        self.attaching = self.send("attach", justMyCode=False)
        self.event("initialized")
        return able

    def go(self) -> None:
        """All breakpoints are set."""
        self.answer(self.send("configurationDone"))
        self.answer(self.attaching)
