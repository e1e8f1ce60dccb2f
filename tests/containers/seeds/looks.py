"""What the table's rows look at, from outside: answers, the number of workers, logs, the time of a stop."""

from __future__ import annotations

import socket
import ssl
import threading
import time
import urllib.request
from pathlib import Path

import httpx

from .applications import ANSWERS
from .row import Look, Subject

GRACE_LEFT = 60
"""Seconds that `docker stop` allows, more than any grace period in the table."""


def _quiet(url: str) -> None:
    try:
        httpx.get(url, timeout=300)
    except httpx.TransportError:
        pass  # it is cut when the grace period is over


def answers(body: str = "", path: str = "/") -> Look:
    """GET answers 200 with this body; without one, that of the seed's application."""

    def look(subject: Subject) -> None:
        assert subject.container.text(path) == (body or ANSWERS[subject.seed])

    return look


def contains(*parts: str) -> Look:
    """GET / answers 200, with these in the body."""

    def look(subject: Subject) -> None:
        body = subject.container.text()
        assert all(part in body for part in parts), body

    return look


def logs(text: str) -> Look:
    """It says so, on either stream."""

    def look(subject: Subject) -> None:
        subject.container.wait_log(text)

    return look


def never_logs(text: str) -> Look:
    """It has not said so by now: after the looks before."""

    def look(subject: Subject) -> None:
        assert text not in subject.container.logs()

    return look


def accesses(shown: bool) -> Look:
    """Whether a request has its line in the access log."""

    def look(subject: Subject) -> None:
        subject.container.text()
        if shown:
            subject.container.wait_log('"GET / ')
        else:  # what is written late is written by the end
            subject.container.stop()
            assert "GET /" not in subject.container.logs()

    return look


def workers(exactly: int = 0, per_core: float = 0, most: int = 0) -> Look:
    """So many workers serve: a number, or one that follows from the cores of the container."""

    def look(subject: Subject) -> None:
        cores = int(subject.container.execute("nproc")[1])
        least = 1 if subject.seed == "004" else 2
        expected = exactly or max(int(per_core * cores), least)
        expected = min(expected, most or expected)
        subject.container.until(lambda: _ready(subject) == expected, f"{expected} workers")

    return look


def _ready(subject: Subject) -> int:
    """How many workers are ready, once that is their final number; gunicorn's own are counted too."""
    status = subject.container.status()
    if status.get("plan", {}).get("revision") != 2:
        return 0
    rows = status["workers"]
    return len(rows) if all(row["state"] == "ready" for row in rows) else 0


def nobody_at(port: int) -> Look:
    """The port that the line publishes is not the server's: nobody answers there, as with the older image."""

    def look(subject: Subject) -> None:
        code, _ = subject.container.execute(
            "python", "-c", f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
        )
        assert code != 0, f"something listens at {port}"

    return look


def idle_connection_lives(seconds: float) -> Look:
    """A connection without a request is held longer than that, and closed in the end."""

    def look(subject: Subject) -> None:
        subject.container.get()
        url = httpx.URL(subject.container.url)
        with socket.create_connection((url.host, url.port or 80), timeout=120) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            start = time.monotonic()
            while connection.recv(65536):  # the rest of the body
                start = time.monotonic()
            assert time.monotonic() - start > seconds

    return look


def stops_after(least: float, most: float) -> Look:
    """With a request in flight that never ends, `docker stop` takes as long as the grace period."""

    def look(subject: Subject) -> None:
        subject.container.get()
        slow = subject.container.url + "/slow"
        request = threading.Thread(target=_quiet, args=(slow,), daemon=True)
        request.start()
        subject.container.until(lambda: _in_flight(subject), "the request in flight")
        start = time.monotonic()
        code = subject.container.stop(GRACE_LEFT)
        assert least < time.monotonic() - start < most, subject.container.logs()
        assert code == 0, subject.container.logs()

    return look


def _in_flight(subject: Subject) -> bool:
    rows = subject.container.status().get("workers", ())
    return sum(row.get("in_flight") or 0 for row in rows) > 0


def reloads(file: str, port: int = 80) -> Look:
    """A change of the file, on the machine, is served by and by."""

    def look(subject: Subject) -> None:
        path = Path(subject.folder, file)
        before = ANSWERS[subject.seed]
        assert subject.container.text() == before
        path.write_text(path.read_text().replace("Hello", "Good morning"))
        after = before.replace("Hello", "Good morning")
        subject.container.until(lambda: subject.container.get().text == after, "the new code")
        subject.container.wait_log("Worker reloading: ")

    return look


def answers_by_tls() -> Look:
    """HTTPS answers, with whatever certificate."""

    def look(subject: Subject) -> None:
        url = subject.container.url.replace("http://", "https://")
        trusting = ssl._create_unverified_context()

        def get() -> str:
            try:
                with urllib.request.urlopen(url, timeout=30, context=trusting) as answer:
                    return str(answer.read().decode())
            except OSError:
                return ""

        assert subject.container.until(get, "an answer by TLS") == ANSWERS[subject.seed]

    return look
