"""The system calls for processes: spawn, signal, reap. Linux only.

Workers are forked, not executed: the supervisor is single-threaded and holds no application code, so a fork
is safe, and it saves a worker the interpreter's start and the shared imports (docs/decisions.md).
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

from mooring.system import lifeline, offspring, signals

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36
_NAP = 0.001  # seconds between two looks whether a child has ended


class Reaped(NamedTuple):
    """A child that was reaped: its pid, and its exit code or (negative) the signal that ended it."""

    pid: int
    code: int


_libc: Any = None


def prepare_death_signal() -> None:
    """Load what `term_with_parent` needs: in a fork of a process with threads it may be too late for that."""
    global _libc  # noqa: PLW0603
    import ctypes  # imported here: 5 ms, and the supervisor mostly does not need it

    _libc = _libc or ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: int) -> None:
    prepare_death_signal()
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        import ctypes

        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies. Exits at once if the parent has died."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def term_with_parent(parent: int) -> None:
    """Ask the kernel for a TERM when the parent dies; one comes at once if it has died."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def outlive_parent() -> None:
    """Undo `die_with_parent`, for a process that has something to finish after its parent's death."""
    lifeline.release()
    _prctl(_PR_SET_PDEATHSIG, 0)


def adopt_orphans() -> None:
    """Make this process a subreaper: its descendants become its children when their parent has ended."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def drop_privileges(uid: int, gid: int, groups: Collection[int]) -> None:
    """Become an unprivileged user for good. The order matters: setgroups(2) and setgid(2) need root."""
    parent = os.getppid()
    os.setgroups(list(groups))
    os.setgid(gid)
    os.setuid(uid)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    # A change of user clears two settings, prctl(2): the signal at the parent's death, and the right of this
    # process to read its own /proc/self.
    _prctl(_PR_SET_DUMPABLE, 1)
    die_with_parent(parent)


def spawn(run: Callable[[], int], keep: Collection[int]) -> int:
    """Fork a child that runs `run` and exits with what it returns. Returns its pid; raises OSError (EAGAIN).

    The child leads its own process group and dies with this process. Of the close-on-exec descriptors it
    keeps only those in `keep`.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    lifeline.prepare()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.SUPERVISED)
    try:
        pid = os.fork()
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    if pid == 0:
        _child(run, keep, parent)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _child(run: Callable[[], int], keep: Collection[int], parent: int) -> NoReturn:
    def begin() -> int:
        os.setpgid(0, 0)
        close_inherited({*keep, *lifeline.descriptors()})  # first: what follows may need a descriptor
        lifeline.hold()
        die_with_parent(parent)
        signals.reset_in_child()
        # The supervisor's objects stay referenced by its frames below this one: they are never freed, and so
        # cannot close a descriptor number that the application has reused.
        gc.freeze()
        atexit._clear()
        return run()

    run_to_the_end(begin)


def run_to_the_end(run: Callable[[], int]) -> NoReturn:
    """In a forked child: call `run` and exit with the code that it returns or raises. Never returns."""
    code = 1
    try:
        code = run()
    except SystemExit as stop:
        code = code_of(stop)
    except BaseException:
        _show_exception()
    finally:
        _leave(code)


def code_of(stop: SystemExit) -> int:
    """The exit code that a SystemExit asks for."""
    return stop.code if isinstance(stop.code, int) else (0 if stop.code is None else 1)


def _leave(code: int) -> NoReturn:
    """Exit, but first do what the interpreter does at its end: join threads, run atexit functions, flush."""
    try:
        import threading

        shutdown: Any = threading._shutdown  # type: ignore[attr-defined]
        flush = sys.stdout.flush, sys.stderr.flush
        for last in (offspring.ask, shutdown, atexit._run_exitfuncs, *flush, offspring.end_strays):
            try:
                last()
            except BaseException:
                _show_exception()
    finally:
        os._exit(code)  # even if stderr is closed, say: never return into the supervisor's frames


def _show_exception() -> None:
    import traceback  # imported here: only a child that fails needs it

    traceback.print_exc()


def close_inherited(keep: Collection[int]) -> None:
    """Close what an exec would close: every close-on-exec descriptor but those in `keep`."""
    kept = set(keep)
    # Twice: where none was free for the listing, some were not seen: those above a limit that was lowered.
    for _ in range(2):
        for fd in descriptors():
            if fd in kept or fd <= 2:
                continue
            try:
                if fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                    os.close(fd)
            except OSError:
                continue  # the descriptor of the listing itself


def descriptors() -> Collection[int]:
    """The numbers of all descriptors of this process, and perhaps numbers that are not open."""
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # EMFILE: listing the folder needs a descriptor too
        return range(min(65_536, os.sysconf("SC_OPEN_MAX")))


def reap(
    leads: Callable[[int], bool] = lambda _pid: False, dying: Callable[[int], None] = lambda _pid: None
) -> list[Reaped]:
    """Reap every child that has ended, including orphans that process 1 gets.

    `dying` is called with each pid before it is reaped. If `leads` says that a pid leads a process group, the
    processes left in that group get a TERM first: until the pid is reaped, no other process can have it.
    TERM, not KILL: multiprocessing's resource tracker ignores TERM, cleans up, and exits.
    """
    ended: list[Reaped] = []
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                return ended
            if leads(found.si_pid):
                _signal_group(found.si_pid, signal.SIGTERM)
            dying(found.si_pid)
            pid, status = os.waitpid(found.si_pid, 0)
        except ChildProcessError:
            return ended
        ended.append(Reaped(pid, os.waitstatus_to_exitcode(status)))


def errno_of(error: OSError) -> int:
    """The number of a system call's error; EIO for an OSError without one."""
    return error.errno or errno.EIO


def send(pid: int, number: int) -> None:
    """Send one process a signal. Does nothing where it has ended, or may not be signalled."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # it has ended, and will be reaped; or it has become another user, and supervising goes on


def kill_group(pid: int) -> None:
    """Kill a worker, all processes in its process group, and its descendants in other groups."""
    strays = [child for child, group in offspring.descendants(pid) if group != pid]
    if not _signal_group(pid, signal.SIGKILL):
        send(pid, signal.SIGKILL)  # the worker does not lead its group yet
    for each in strays:
        send(each, signal.SIGKILL)


def term_group(group: int) -> None:
    """Send TERM to what is left in a process group."""
    _signal_group(group, signal.SIGTERM)


def kill_rest(group: int) -> None:
    """Kill what is left in a process group whose leader has ended."""
    _signal_group(group, signal.SIGKILL)


def leads_group(pid: int) -> bool:
    """Whether a process leads a process group."""
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False


def group_lives(group: int) -> bool:
    """Whether there is a process left in a process group."""
    try:
        os.killpg(group, 0)
    except PermissionError:
        return True  # of another user
    except ProcessLookupError:
        return False
    return True


def wait_for_end(pid: int, seconds: float) -> None:
    """Wait until a child that was killed has ended, at most so long. It is yet to be reaped."""
    deadline = time.monotonic() + seconds
    with suppress(ChildProcessError):
        while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if time.monotonic() >= deadline:
                return
            time.sleep(_NAP)


def _signal_group(pid: int, number: int) -> bool:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def proportional_set_size(pid: str = "self") -> int | None:
    """A process's proportional set size in bytes, from its smaps_rollup; None if that cannot be read."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def describe(code: int) -> str:
    """An exit in words: `exit code 3`, or `killed by SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
