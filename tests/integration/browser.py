"""A headless Chromium for tests of pages, by its protocol (chromedevtools.github.io/devtools-protocol).

with browser.page("http://127.0.0.1:9100/", width=360, height=740, dark=True) as page:
    page.wait("document.title != ''")
    assert page.evaluate("innerWidth") == 360
    page.screenshot(path)
    assert page.complaints == []      # console errors, exceptions, violated security policies
    assert page.requested == {...}    # every address that was asked for
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import PATIENCE, eventually
from websockets.sync.client import ClientConnection, connect


def chromium() -> str:
    """The path of Chromium; where there is none, the test is skipped, or fails where CI is set."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        reason = "the page needs a real browser: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return str(found)


class Page:
    """One open page. Errors of its scripts and of the protocol are assertions."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.numbers = itertools.count(1)
        self.complaints: list[str] = []
        self.requested: list[str] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One call of the protocol: its result. Events that come before it are taken in."""
        number = next(self.numbers)
        self.connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.connection.recv(PATIENCE))
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])
            self._hear(message.get("method"), message.get("params"))

    def _hear(self, method: str, facts: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requested.append(facts["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(facts["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and facts["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(facts["args"]))
        elif method == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
            self.complaints.append(facts["entry"]["text"])

    def evaluate(self, expression: str) -> Any:
        """A JavaScript expression's value."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, (expression, found)
        return found["result"].get("value")

    def wait(self, expression: str, timeout: float = PATIENCE) -> Any:
        """The first true value of an expression."""
        return eventually(lambda: self.evaluate(expression), expression, timeout)

    def text(self, selector: str) -> str:
        """The text of the first element that a selector finds."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def screenshot(self, path: Path) -> None:
        """The whole page, as PNG."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def page(url: str, width: int = 1280, height: int = 800, *, dark: bool = False) -> Iterator[Page]:
    """A page in a window of its own browser, of that many CSS pixels; a narrow one is a phone's."""
    command = [chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
               "--disable-background-networking", "--disable-component-update", "--no-first-run",
               "--remote-debugging-port=0", "--remote-allow-origins=*"]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="mooring-test-", ignore_cleanup_errors=True) as folder:
        log = Path(folder, "log")
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [*command, f"--user-data-dir={folder}/profile", "about:blank"],
                env={**os.environ, "HOME": folder, "TZ": "UTC"},
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
        try:
            with connect(_target(process, Path(folder)), max_size=None, proxy=None) as connection:
                found = Page(connection)
                for domain in ("Page", "Runtime", "Network", "Log"):
                    found.call(f"{domain}.enable")
                mobile = width < 600
                found.call("Emulation.setDeviceMetricsOverride", width=width, height=height, mobile=mobile,
                           deviceScaleFactor=2 if mobile else 1)  # fmt: skip
                scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
                found.call("Emulation.setEmulatedMedia", features=[scheme])
                found.call("Page.navigate", url=url)
                found.wait("location.href !== 'about:blank' && document.readyState === 'complete'")
                yield found
        finally:
            process.kill()
            process.wait()


def _target(process: subprocess.Popen[bytes], folder: Path) -> str:
    """The debugging address of the browser's one page, once it listens."""

    def look() -> str | None:
        assert process.poll() is None, f"chromium has ended: {(folder / 'log').read_text()}"
        told = folder / "profile" / "DevToolsActivePort"
        if not told.exists() or len(told.read_text().split()) < 2:
            return None
        import httpx

        port = told.read_text().split()[0]
        pages = httpx.get(f"http://127.0.0.1:{port}/json/list", trust_env=False, timeout=PATIENCE).json()
        return next((each["webSocketDebuggerUrl"] for each in pages if each["type"] == "page"), None)

    return str(eventually(look, "chromium's debugging port"))
