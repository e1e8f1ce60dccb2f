"""What a fork that the application makes is given: nothing of mooring's.

A process that runs application code calls `guard` before it imports any. From then on, a child that the
application forks has signals as Python has them, none of mooring's descriptors and none of the clients'
connections, and gets a TERM when its parent dies. Forks of mooring's own are made within `own`. Not for
programs that are executed: descriptors are close-on-exec for them, and no signal is ignored (signals.py).
"""

from __future__ import annotations

import _socket  # gevent replaces the class in the module socket
import functools
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mooring.system import offspring, process

# The packages whose signal handlers are not the application's: these, and what `guard` is given.
_servers = {"mooring", "uvloop", "asyncio", "trio", "gevent", "signal"}
_Identity = tuple[int, int]


class _Guard:
    """What this process knows of itself, for its children."""

    installed = False
    own = 0  # the thread that forks for mooring
    parent = 0  # the pid that has forked last
    by_main = False  # whether its main thread has
    child = False  # this process is a fork that the application has made


_owned: dict[int, _Identity] = {}
_ports, _paths = set[int](), set[Any]()  # the listeners' addresses: by these their connections are known
_undo: list[Callable[[], object]] = []


def guard(servers: Iterable[str] = ()) -> None:
    """From now on, clean what the application forks, in this process and in mooring's own forks of it.

    Signal handlers of the packages `servers`, and those of their libraries, are not the application's.
    """
    _servers.update(servers)
    if not _Guard.installed:
        _Guard.installed = True
        process.prepare_death_signal()
        os.register_at_fork(before=_before, after_in_child=_in_child)


def disown(fd: int) -> int:
    """Keep a descriptor of mooring's, and its duplicates, out of what the application forks. Returns `fd`.

    It is known by its file: where it is closed, and the application gets its number, nothing happens.
    """
    with suppress(OSError):
        found = os.fstat(fd)
        _owned[fd] = found.st_dev, found.st_ino
        name, listens = _look(fd) if stat.S_ISSOCK(found.st_mode) else (None, False)
        if listens and isinstance(name, tuple):
            _ports.add(name[1])
        elif listens and name:
            _paths.add(name)
    return fd


def undo(step: Callable[[], object]) -> None:
    """Have `step` called in each process that the application forks."""
    _undo.append(step)


@contextmanager
def own() -> Iterator[None]:
    """For a fork of mooring's own: the child is another worker, say, and keeps everything.

    In that child what follows is the application's again, before the block has ended.
    """
    _Guard.own = threading.get_ident()
    try:
        yield
    finally:
        _Guard.own = 0


def is_applications() -> bool:
    """Whether this process is a fork that the application has made: it is no worker, and serves nothing."""
    return _Guard.child


def end_by(error: BaseException) -> None:
    """End this process by `error`, a SystemExit mostly, if it is a fork that the application has made.

    What keeps a worker alive would keep that child too, which serves nothing. Where a thread has forked it,
    atexit's functions are left out, as by Python: they would wait for the pool that this thread is of.
    """
    if not (is_applications() and isinstance(error, (SystemExit, KeyboardInterrupt))):
        return
    if _Guard.by_main:
        process.run_to_the_end(functools.partial(_raise, error))
    try:
        for each in (sys.stdout, sys.stderr):
            with suppress(Exception):
                each.flush()
    finally:
        os._exit(process.code_of(error) if isinstance(error, SystemExit) else 1)


def _raise(error: BaseException) -> int:
    raise error


def _before() -> None:
    _Guard.parent, _Guard.by_main = os.getpid(), threading.get_native_id() == os.getpid()


def _in_child() -> None:
    if _Guard.child:
        return  # a fork of such a fork: that one's own affair
    if _Guard.own:
        mine = _Guard.own == threading.get_ident()
        _Guard.own = 0
        if mine:
            return
    _Guard.child = True
    offspring.leave_alone()
    for step in (_reset_signals, _shut, *_undo):
        with suppress(Exception):
            step()
    # Not if a thread has forked: the kernel would take the thread's end for the parent's, prctl(2).
    if _Guard.by_main:
        process.term_with_parent(_Guard.parent)


# -- signals -------------------------------------------------------------------------------------------------


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if number == signal.SIGCHLD and handler in {None, signal.SIG_DFL}:
            signal.signal(number, signal.SIG_DFL)  # libuv has a handler that Python does not know of
        elif callable(handler) and handler is not signal.default_int_handler and _is_servers(handler):
            signal.signal(number, _default(number))
        elif number in {signal.SIGTTIN, signal.SIGTTOU} and handler is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
        elif number == signal.SIGINT and handler in {signal.SIG_IGN, signal.SIG_DFL}:
            signal.signal(number, signal.default_int_handler)


def _default(number: int) -> Any:
    return signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL


def _is_servers(handler: Any) -> bool:
    """Whether a signal handler is mooring's or an engine's, by its module and its object's classes."""
    handler = getattr(handler, "func", handler)  # of a functools.partial
    holder = getattr(handler, "__self__", None)
    places = [handler, *(type(holder).__mro__ if holder is not None else ())]
    names = {str(getattr(each, "__module__", "")).partition(".")[0] for each in places}
    return bool(names & _servers)


# -- descriptors ---------------------------------------------------------------------------------------------


def _shut() -> None:
    """Put a dead socket in the place of what is mooring's.

    The numbers stay taken: objects of the engine that still refer to them can neither do harm nor close what
    the application has opened since. A datagram socket, since it is never readable: an event loop that goes
    on in the child (gevent's does) waits for it in silence.
    """
    doomed = list(_found())
    if not doomed:
        return
    dead = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    for fd in doomed:
        if fd != dead.fileno():
            os.dup2(dead.fileno(), fd, inheritable=False)
    dead.close()
    _owned.clear()


def _found() -> Iterator[int]:
    files = _files()
    try:
        numbers = list(map(int, os.listdir("/proc/self/fd")))
    except OSError:
        numbers = list(_owned)
    for fd in numbers:
        try:
            status = os.fstat(fd)
        except OSError:
            continue  # the listing's own
        identity = status.st_dev, status.st_ino
        known = identity == _owned.get(fd) or identity in files
        if known or (stat.S_ISSOCK(status.st_mode) and _is_connection(fd)):
            yield fd


def _files() -> set[_Identity]:
    """What mooring's files are known by, but for eventfds, which share one."""
    files = set[_Identity]()
    for fd, identity in _owned.items():
        try:
            status = os.fstat(fd)
        except OSError:
            continue
        if stat.S_IFMT(status.st_mode):
            files.add(identity)
    return files


def _is_connection(fd: int) -> bool:
    """Whether it is a client's connection that came in by one of mooring's listeners."""
    name, listens = _look(fd)
    if listens:
        return False
    return name[1] in _ports if isinstance(name, tuple) and len(name) > 1 else bool(name) and name in _paths


def _look(fd: int) -> tuple[Any, bool]:
    """A socket's own address, and whether it listens."""
    sock = _socket.socket(fileno=fd)
    try:
        return sock.getsockname(), bool(sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN))
    except OSError:
        return None, False
    finally:
        sock.detach()
