"""The supervisor's side of the application's metrics: asks the helper, and never waits for it."""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from mooring.logs.log import Log
from mooring.metrics import prometheus
from mooring.metrics.multiprocess import files
from mooring.metrics.multiprocess.files import DEATHS
from mooring.metrics.multiprocess.folder import MetricsFolder
from mooring.metrics.multiprocess.frames import FAILED, FOLD, FRAME, LONGEST, MERGE, NOTE
from mooring.system import process
from mooring.system.accounts import Account
from mooring.system.child import NEVER, Child, Restarts

UP, DOWN = (prometheus.family(prometheus.APP_METRICS_UP, [((), up)]).encode() for up in (1, 0))

# A helper that ends before it has answered is replaced at once, a single time; then the page goes without.
_RESTARTS = Restarts(give_up=2)

Told = Callable[[bytes], None]


class AppMetrics:
    """Has what the workers record in `folder` with prometheus_client merged by a process: the helper.

    The helper is not started before a worker has recorded something. It has `patience` seconds to answer;
    after `idle` seconds without a request it ends, so that its memory is free.
    """

    patience = 4.0
    idle = 60.0

    def __init__(
        self,
        folder: MetricsFolder,
        selector: selectors.BaseSelector,
        log: Log,
        account: Account | None = None,
    ) -> None:
        self.folder = folder
        self.selector = selector
        self.log = log
        self.account = account
        self._helper = Child(_RESTARTS)
        self._deadline: float | None = None
        self._buffer = bytearray()
        self._waiting: list[Told] = []  # for the next page, which the helper has not been asked for
        self._asked: list[Told] = []  # for the page that the helper is making
        self._deaths = 0
        self._said: set[str] = set()

    @property
    def pid(self) -> int:
        """The helper's pid; 0: no helper runs."""
        return self._helper.pid

    def process_gone(self, pid: int) -> None:
        """A child of the supervisor has ended, and is not reaped yet, so that no process has its pid.

        Its files are renamed: a later process with the same pid must not add to them.
        """
        if self._helper.ended(pid):
            self._hear()  # what the helper has sent before its end
            self._lost()
            return
        files.retire(self.folder.fd, pid)
        self.told_gone()

    def told_gone(self) -> None:
        """A worker of an engine's arbiter has ended. The arbiter has called files.retire_in for it."""
        self._deaths += 1
        if self._deaths >= DEATHS:
            self._ask()

    def request(self, told: Told) -> None:
        """Call `told` with the text of the application's metrics, at once or later; b"": it has none.

        The text ends with mooring_app_metrics_up; where the metrics could not be read, the text is only that
        metric, with the value 0.
        """
        if self._helper.channel < 0 and not self.folder.holds_metrics():
            told(b"")
            return
        self._waiting.append(told)
        self._ask()

    # -- as a part of the supervisor -------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `expire` is due (monotonic seconds); None: not before the helper is asked something."""
        return self._deadline

    def expire(self) -> None:
        """End a helper that has not answered in time; the page goes without its metrics."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._warn(f"the application's metrics were not read within {self.patience:g} s")
            self._helper.abandon()
            self._finish(DOWN)

    def told(self, _kind: str, _data: Mapping[str, Any], /) -> None:
        """Does nothing: the helper does not depend on the workers' states."""

    def exited(self, _ended: process.Reaped, /) -> None:
        """Does nothing: `process_gone` was called before."""

    def busy(self) -> bool:
        """False: the stop does not wait for a page."""
        return False

    def close(self) -> None:
        """End the helper. The caller closes the folder."""
        self._asked, self._waiting = [], []
        self._helper.stop()

    # -- the helper ----------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Ask the helper for a page if one is wanted, else to fold if that is due; one request at a time."""
        wanted = bool(self._waiting)
        if self._deadline is not None or not (wanted or self._deaths >= DEATHS):
            return
        if not (wanted or self.folder.holds_metrics()):
            self._deaths = 0
            return
        try:
            self._send(MERGE if wanted else FOLD)
        except OSError as error:
            self._deaths = 0
            self._warn(f"the application's metrics cannot be read: {error.strerror or error}")
            waiting, self._waiting = self._waiting, []
            _tell(waiting, DOWN)
            self._helper.abandon()
            return
        self._asked, self._waiting = self._waiting, []
        if not wanted:
            self._deaths = 0
        self._deadline = time.monotonic() + self.patience

    def _send(self, request: bytes) -> None:
        if self._helper.channel >= 0:
            try:
                os.write(self._helper.channel, request)
                return
            except OSError:
                self._helper.abandon()  # the helper has just ended by itself
        self._start()
        os.write(self._helper.channel, request)

    def _start(self) -> None:
        ours, theirs = (end.detach() for end in socket.socketpair())
        path, own, account, idle = self.folder.path, self.folder.own, self.account, self.idle

        def run() -> int:
            from mooring.metrics.multiprocess import helper  # here, so that the supervisor does not load it

            if account is not None and account.uid != os.geteuid():
                process.drop_privileges(account.uid, account.gid, account.groups)
            return helper.Helper(socket.socket(fileno=theirs), path, own, idle).run()

        self._helper.start(run, ours=ours, theirs=theirs)
        self._buffer = bytearray()
        self._helper.listen(self.selector, self._hear)

    def _hear(self) -> None:
        """Read what the helper has sent; where it has ended, see to the request that it had."""
        if self._helper.channel < 0:
            return
        try:
            data = os.read(self._helper.channel, 1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        self._buffer += data
        while self._helper.channel >= 0 and len(self._buffer) >= FRAME.size:
            letter, length = FRAME.unpack_from(self._buffer)
            if length > LONGEST:
                self._lost()
                return
            end = FRAME.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[FRAME.size : end])
            del self._buffer[:end]
            self._take(letter, body)

    def _take(self, letter: bytes, body: bytes) -> None:
        if letter in (NOTE, FAILED):
            self._warn(body.decode("utf-8", "replace")[:1000])
        if letter == NOTE:
            return
        self._helper.forgive()
        self._finish(DOWN if letter == FAILED else body + UP)

    def _finish(self, text: bytes) -> None:
        self._deadline = None
        asked, self._asked = self._asked, []
        _tell(asked, text)
        self._ask()

    def _lost(self) -> None:
        """The helper has ended or is unusable: give its request to a new one, once; then go without."""
        if self._helper.channel < 0:
            return
        self._helper.abandon()
        if self._deadline is None:
            return
        self._deadline = None
        if self._helper.failed() < NEVER:
            self._waiting = [*self._asked, *self._waiting]
            self._asked = []
            self._deaths = max(self._deaths, DEATHS)  # if it was folding, that is asked for again
            self._ask()
        else:
            self._helper.forgive()
            self._warn("the application's metrics cannot be read: the process that does it keeps ending")
            self._finish(DOWN)

    def _warn(self, words: str) -> None:
        """Log a warning, each text once: it would come again at each scrape."""
        if words not in self._said and len(self._said) < 100:
            self._said.add(words)
            self.log.warning(words)


def _tell(those: list[Told], text: bytes) -> None:
    for told in those:
        told(text)
