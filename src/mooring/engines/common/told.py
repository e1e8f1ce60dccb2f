"""What an application may listen to for the stop, besides its lifespan: SIGTERM, and uvicorn's signs of it.

Applications replace the handler of SIGTERM, for good or bad reasons. Libraries with endless responses
(sse-starlette) end them when uvicorn begins to stop: they replace `uvicorn.Server.handle_exit`, or look for
the object that the handler of SIGTERM is bound to, and read its `should_exit`. All of them are told when the
drain begins, on every engine.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

_log = logging.getLogger("mooring")
_LOOPS = {"asyncio", "uvloop"}

Handler = Callable[[int, FrameType | None], object]


class Told:
    """The application's own handlers of SIGTERM, apart from the engine's."""

    def __init__(self) -> None:
        self._own: list[object] = []
        self._theirs: list[object] = []

    def notice(self) -> None:
        """Note the present handler, if it is the application's: an engine may be about to replace it."""
        found = signal.getsignal(signal.SIGTERM)
        if callable(found) and found not in self._own and found not in self._theirs:
            self._theirs.append(found)

    def own(self, handler: object) -> None:
        """Note a handler that is an engine's."""
        self._own.append(handler)

    def install(self, handler: Handler) -> None:
        """Make `handler`, an engine's, the handler of SIGTERM."""
        self.own(handler)
        self.notice()
        signal.signal(signal.SIGTERM, handler)

    def tell(self, server: Any) -> None:
        """Tell the application that the drain begins; in the main thread. Nothing that it raises gets out.

        `server` is uvicorn's own server, or what stands for it: it has `should_exit`.
        """
        _guarded(_tell_uvicorn, server)
        self.notice()
        for handler in self._theirs:
            _guarded(_call, handler)

    def raised(self, error: BaseException) -> bool:
        """Whether an exception comes from an application's handler of SIGTERM, which some raise to exit."""
        self.notice()
        codes = [getattr(getattr(each, "__func__", each), "__code__", None) for each in self._theirs]
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code in codes:
                return True
            trace = trace.tb_next
        return False


def _tell_uvicorn(server: Any) -> None:
    module = sys.modules.get("uvicorn.server")
    if module is None:
        return
    if isinstance(server, module.Server):
        server.handle_exit(signal.SIGTERM, None)
    else:
        module.Server.handle_exit(server, signal.SIGTERM, None)


def _call(handler: Any) -> None:
    owner = type(getattr(handler, "__self__", None)) if hasattr(handler, "__self__") else handler
    if str(getattr(owner, "__module__", "")).partition(".")[0] in _LOOPS:
        signal.raise_signal(signal.SIGTERM)  # add_signal_handler(): the loop itself must hear the signal
    else:
        handler(signal.SIGTERM, sys._getframe())


def _guarded(call: Callable[[Any], None], given: object) -> None:
    try:
        call(given)
    except (SystemExit, KeyboardInterrupt) as end:
        _log.debug("the application's SIGTERM handler wants to exit (%r): the worker drains first", end)
    except Exception as error:
        _log.error("the application's SIGTERM handler failed", exc_info=error)
