"""`mooring top`: the live view in a terminal, or one plain snapshot if stdout is no terminal.

A thread requests /stats, so that keys, resizing and quitting never wait for the instance. What is shown:
view.py.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
import termios
import threading
import time
import tty
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from mooring import __version__
from mooring.admin.instance import Instance
from mooring.commands.control import ask, find
from mooring.commands.top.columns import ScreenLine
from mooring.commands.top.rates import Stats, between
from mooring.commands.top.view import BARS, View, render
from mooring.errors import ConfigurationError, MooringError
from mooring.system.sockets import socket_state

_HISTORY = 60  # intervals
_SHORTEST, _LONGEST = 0.2, 3600  # seconds
_PATIENCE = 2.0  # seconds to wait for a response
_STYLES = {"good": "32", "busy": "33", "bad": "1;31", "strong": "1", "dim": "2", "head": "1;4"}
_PLAIN = {"good": "", "busy": "", "bad": "1", "strong": "1", "dim": "2", "head": "1;4"}  # NO_COLOR
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[0m\x1b[?25h\x1b[?1049l"
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_HANDLED = (*_ENDING, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
_ASCII = str.maketrans({"…": "~", "µ": "u", **dict(zip(BARS, "_.-:=+*#", strict=True))})


class EndedError(MooringError):
    """The instance that was shown has ended."""

    exit_code = 1


def top(cli: Mapping[str, str], environ: Mapping[str, str], *, interval: float, once: bool) -> int:
    """Show the instance every `interval` seconds until `q`, or once if asked for or without a terminal.

    Raises ConfigurationError if there is no instance or no response, EndedError if the instance ends.
    """
    if not _SHORTEST <= interval <= _LONGEST:  # false for nan, too
        raise ConfigurationError(f"--interval {interval:g}: expected seconds, {_SHORTEST} to {_LONGEST}")
    instance = find(cli, environ)
    first = _ask(instance)
    try:
        if once or not sys.stdout.isatty() or environ.get("TERM", "dumb") == "dumb":
            _snapshot(instance, first, interval)
        else:
            _Live(instance, first, interval, environ).run()
    except (KeyError, TypeError) as error:
        if first.get("version") == __version__:
            raise
        raise ConfigurationError(_other_version(instance)) from error
    return 0


def _ask(instance: Instance) -> Stats:
    status, body = ask(instance, "GET", "/stats", _PATIENCE)
    if status != 200:
        raise ConfigurationError(_other_version(instance))
    try:
        facts: dict[str, Any] = json.loads(body)
    except ValueError:
        raise ConfigurationError(f"instance {instance.name} has cut its answer off") from None
    return facts


def _other_version(instance: Instance) -> str:
    return f"instance {instance.name} runs another version of mooring than this, {__version__}; restart it"


def _snapshot(instance: Instance, first: Stats, interval: float) -> None:
    time.sleep(interval)
    facts = _ask(instance)
    width = _size()[0] if sys.stdout.isatty() else 120
    for row in render(View(facts, *between(first, facts)), width):
        _write(_text("".join(span.text for span in row).rstrip() + "\n"))


def _size() -> tuple[int, int]:
    """The terminal's columns and lines; 80 and 24 if it does not know its size."""
    width, height = os.get_terminal_size(1)
    return width or 80, height or 24


def _text(text: str) -> bytes:
    """The text in the terminal's encoding; with ASCII for mooring's symbols if that is not Unicode."""
    encoding = sys.stdout.encoding or "ascii"
    if not encoding.lower().startswith("utf"):
        text = text.translate(_ASCII)
    return text.encode(encoding, "replace")


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


class _Poller(threading.Thread):
    """Requests /stats every `interval` seconds. `news` holds each response, or the error in its place."""

    def __init__(self, instance: Instance, interval: float, wake: int) -> None:
        super().__init__(daemon=True)
        self.instance, self.interval, self.wake = instance, interval, wake
        self.news: deque[Stats | ConfigurationError] = deque()

    def run(self) -> None:
        while True:
            time.sleep(self.interval)
            try:
                self.news.append(_ask(self.instance))
            except ConfigurationError as error:
                self.news.append(error)
            with suppress(OSError):
                os.write(self.wake, b"\0")  # no signal has this number


class _Live:
    """The terminal's screen while it shows an instance."""

    def __init__(self, instance: Instance, first: Stats, interval: float, environ: Mapping[str, str]) -> None:
        self.instance = instance
        self.interval = interval
        self.styles = _PLAIN if environ.get("NO_COLOR") else _STYLES
        self.facts = first
        self.answered = time.monotonic()
        self.history: deque[float] = deque(maxlen=_HISTORY)
        self.view = View(first, *between(None, first))
        self.modes: list[Any] | None = None

    def run(self) -> None:
        """Show the instance until a key or a signal ends the view. Raises EndedError."""
        with _wakeups() as (read, write), selectors.DefaultSelector() as selector:
            selector.register(read, selectors.EVENT_READ)
            if _ours(0):
                selector.register(0, selectors.EVENT_READ)
            poller = _Poller(self.instance, self.interval, write)
            try:
                self._enter()
                poller.start()
                while self._turn(selector, poller):
                    pass
            finally:
                self._leave()

    def _turn(self, selector: selectors.BaseSelector, poller: _Poller) -> bool:
        """Paint, wait, then handle keys, signals and news. Returns whether to go on."""
        self._paint()
        for key, _ in selector.select():
            data = os.read(key.fd, 4096)
            if key.fd == 0:
                if not data or data[:1] in b"qQ\x03\x04":
                    return False
                continue
            if any(number in _ENDING for number in data):
                return False
            if signal.SIGTSTP in data:
                self._leave()
                os.kill(os.getpid(), signal.SIGSTOP)
            if signal.SIGCONT in data or signal.SIGTSTP in data:
                self._enter()  # another program may have changed the terminal's modes meanwhile
        while poller.news:
            self._take(poller.news.popleft())
        return True

    def _take(self, news: Stats | ConfigurationError) -> None:
        if isinstance(news, ConfigurationError):
            with suppress(PermissionError):
                if socket_state(self.instance.socket)[0] != "live":
                    raise EndedError(f"instance {self.instance.name} has ended")
            silent = time.monotonic() - self.answered
            self.view = self.view._replace(note=f"no answer for {silent:.0f} s: it is stopped or overloaded")
            return
        self.answered = time.monotonic()
        if news["now"] == self.facts["now"]:  # the same response again: an instance reuses it for a moment
            self.view = self.view._replace(note="")
            return
        total, workers = between(self.facts, news)
        if total.requests is not None:
            self.history.append(total.requests)
        self.facts = news
        self.view = View(news, total, workers, tuple(self.history))

    # -- the terminal --------------------------------------------------------------------------------------

    def _enter(self) -> None:
        if _ours(0):
            self.modes = self.modes or termios.tcgetattr(0)
            tty.setcbreak(0, termios.TCSADRAIN)
        _write(_ENTER.encode())

    def _leave(self) -> None:
        with suppress(OSError):  # the terminal was closed: nothing to restore
            _write(_LEAVE.encode())
        if self.modes is not None:
            with suppress(termios.error):
                termios.tcsetattr(0, termios.TCSADRAIN, self.modes)

    def _paint(self) -> None:
        with suppress(OSError):  # not our controlling terminal: it has no foreground for us to check
            if os.tcgetpgrp(1) != os.getpgrp():
                return  # in the background
        rows = render(self.view, *_size())
        lines = ["".join(self._styled(row)) + "\x1b[K" for row in rows]
        _write(_text("\x1b[H" + "\r\n".join(lines) + "\x1b[J"))

    def _styled(self, row: ScreenLine) -> Iterator[str]:
        for span in row:
            code = self.styles.get(span.style, "")
            yield f"\x1b[{code}m{span.text}\x1b[0m" if code else span.text


def _ours(fd: int) -> bool:
    """Whether a descriptor is a terminal with this process in its foreground, so that keys may be read."""
    try:
        return os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False


@contextmanager
def _wakeups() -> Iterator[tuple[int, int]]:
    """A pipe (its read end, its write end) to which the numbers of handled signals are written."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = {number: signal.signal(number, lambda *_: None) for number in _HANDLED}
    previous = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield read, write
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
