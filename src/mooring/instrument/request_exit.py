"""What a request raises to end its process (`sys.exit`, argparse), made an ordinary failure of that request.

A server that lets SystemExit pass ends with all requests in it. KeyboardInterrupt and GeneratorExit do the
same there. A fork that the application has made does end by it: that one serves nothing. Not for a
cancellation, of asyncio, trio or gevent: that passes. Not for tasks that the application has started:
engines/common/event_loop.py.
"""

from __future__ import annotations

import dis

from mooring.logs.escape import escape
from mooring.system import forks

_ENDS = (SystemExit, KeyboardInterrupt, GeneratorExit)
_SUSPENDED = {"YIELD_VALUE", "SEND", "YIELD_FROM", "RESUME"}  # where close() has thrown GeneratorExit in


_passing = False


def let_pass() -> None:
    """From now on let everything pass: the engine itself raises SystemExit, in a signal handler, to leave."""
    global _passing  # noqa: PLW0603 (of this process)
    _passing = True


class RequestExitError(Exception):
    """A request has tried to end its process."""


def failure_of(error: BaseException, method: object, path: object) -> RequestExitError | None:
    """The error to raise instead of `error`; None: let it pass. The path is without its query."""
    found: BaseException | None = error
    if isinstance(error, BaseExceptionGroup):
        found = error.subgroup(_ENDS)
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
    if found is not None:
        forks.end_by(found)
    if _passing or not isinstance(found, _ENDS) or (isinstance(found, GeneratorExit) and _thrown(found)):
        return None
    text = path.decode("latin-1") if isinstance(path, bytes) else str(path)
    what = repr(found) if found.args else type(found).__name__
    return RequestExitError(f"{what} in {escape(str(method))} {escape(text)}: the worker serves on")


def _thrown(error: GeneratorExit) -> bool:
    """Whether the application's coroutine was closed, rather than that it raised GeneratorExit itself."""
    trace = error.__traceback__
    if trace is None:
        return True
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code.co_code
    return trace.tb_lasti < 0 or dis.opname[code[trace.tb_lasti]] in _SUSPENDED
