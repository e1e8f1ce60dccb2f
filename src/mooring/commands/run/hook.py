"""One pre-start hook as a process: run it, wait for it or end it, return what a sourced script changed.

Not for which hook runs, nor for what its result means for the start (prestart.py).
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from mooring.errors import HookError
from mooring.system import process
from mooring.system.memfd import memory
from mooring.system.signals import STOPS, SignalQueue, Stopped, reset_for_program

HookKind = Literal["sourced", "python", "shell", "executable"]
GRACE = 5.0  # seconds from TERM to KILL
EXIT_TIMEOUT = 124  # as timeout(1)
_DUMP_FD = 99  # above the descriptors that shells and scripts commonly use
_TICK_MS = 20
_LONGEST_WAIT_MS = 86_400_000  # poll(2) takes an int: 24 days at most
# Run by the shell's `exec` after the script. /proc/self/environ has exactly what was exported; os.environ may
# have more, since Python sets LC_CTYPE for itself (PEP 538).
_DUMP = f"""
import os
try:
    cwd = os.getcwdb()
except OSError:
    cwd = b""
with open("/proc/self/environ", "rb") as environ, open({_DUMP_FD}, "wb") as out:
    out.write(cwd + b"\\0" + environ.read())
"""
_SHELL_NOISE = ("_", "SHLVL", "OLDPWD", "PWD")


class Hook(NamedTuple):
    """A script to run: how (`kind`), by what (`interpreter`, empty: it is run itself), and where (`cwd`).

    `exported`: variables that are exported before a sourced script runs, as the older image's launcher did.
    """

    path: Path
    kind: HookKind
    interpreter: str
    cwd: str
    exported: tuple[str, ...] = ()


class HookResult(NamedTuple):
    """What a hook left: the environment and the working folder. `ended`: its `exit 0` ends the whole run."""

    environ: dict[str, str]
    cwd: str
    ended: bool = False


class HookRun:
    """A running hook. The caller reaps it after a SIGCHLD, and gives its exit code to `finish`."""

    def __init__(self, hook: Hook, environ: Mapping[str, str]) -> None:
        """Start it. Raises HookError where no process can be started."""
        self.hook = hook
        self._environ = dict(environ)
        # A file, not a pipe: nothing waits for its end, so processes that the hook leaves may hold it open.
        self._dump = memory("mooring-hook")
        try:
            self.pid = process.spawn(self._execute, [self._dump])
        except OSError as error:
            self.close()
            raise HookError(
                f"the pre-start hook {hook.path} cannot be started: {error.strerror}", 1
            ) from None
        with suppress(OSError):  # the child has executed already: it has set its group itself
            os.setpgid(self.pid, self.pid)  # both processes set it, so that kill() never comes too early

    def _execute(self) -> int:
        """In the child: become the hook."""
        path = os.fspath(self.hook.path)
        argv = [part for part in (self.hook.interpreter, path) if part]
        reset_for_program()
        try:
            os.chdir(self.hook.cwd)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # its group may not read the terminal
            os.dup2(self._dump, _DUMP_FD, inheritable=self.hook.kind == "sourced")
            for fd in map(int, os.listdir("/proc/self/fd")):
                with suppress(OSError):  # the listing's own descriptor
                    os.close(fd if fd not in (0, 1, 2, _DUMP_FD) else -1)
            if self.hook.kind == "sourced":
                dump = " ".join(_quoted(word) for word in (sys.executable, "-I", "-S", "-c", _DUMP))
                export = " ".join(["export", *self.hook.exported]) if self.hook.exported else ":"
                argv = [argv[0], "-c", f"set -e; {export}; . {_quoted(path)}; exec {dump}", path]
            if argv[0] == "bash" and not _in_path("bash", self._environ):
                argv[0] = "sh"  # as in those older images that have no bash
            os.execvpe(argv[0], argv, self._environ)  # noqa: S606
        except OSError as error:
            text = f"mooring: cannot run {argv[0]} in {self.hook.cwd}: {error.strerror}\n"
            os.write(2, text.encode("utf-8", "backslashreplace"))
        return 127

    def kill(self, number: int) -> None:
        """Signal the hook and all it started in its process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def alive(self) -> bool:
        """Whether a process of the hook's group runs. Zombies do not count: they may never be reaped."""
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                state, _, group = file.read().rpartition(b")")[2].split()[:3]  # proc_pid_stat(5)
                if int(group) == self.pid and state not in (b"Z", b"X"):
                    return True
        return False

    def close(self) -> None:
        """Close the hook's file, without a result."""
        os.close(self._dump)

    def finish(self, code: int) -> HookResult:
        """The result, from the exit code (negative: a signal). Raises HookError where the code is not 0."""
        with open(self._dump, "rb") as file:
            file.seek(0)
            dumped = file.read()
        if code != 0:
            text = f"the pre-start hook {self.hook.path} failed: {process.describe(code)}"
            raise HookError(text, code if code > 0 else 128 - code)
        if self.hook.kind != "sourced":
            return HookResult(self._environ, self.hook.cwd)
        if not dumped:
            return HookResult(self._environ, self.hook.cwd, ended=True)
        cwd, _, block = dumped.partition(b"\0")
        return HookResult(_merged(self._environ, block), os.fsdecode(cwd) or self.hook.cwd)


def _merged(before: Mapping[str, str], block: bytes) -> dict[str, str]:
    """The environment that a shell exported. Names that no shell can set stay as before: dash drops these."""
    after = {name: value for name, value in before.items() if not _shell_name(name)}
    for entry in filter(None, os.fsdecode(block).split("\0")):
        name, _, value = entry.partition("=")
        if _shell_name(name):
            after[name] = value
    for name in _SHELL_NOISE:
        if name not in before:
            after.pop(name, None)
        elif name in ("_", "SHLVL"):
            after[name] = before[name]
    return after


def _shell_name(name: str) -> bool:
    return name.isascii() and name.isidentifier()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _in_path(program: str, environ: Mapping[str, str]) -> bool:
    return any(os.access(os.path.join(folder, program), os.X_OK) for folder in os.get_exec_path(environ))


def run_blocking(
    hook: Hook,
    environ: Mapping[str, str],
    signals: SignalQueue,
    *,
    timeout: float = 0.0,
    grace: float = GRACE,
) -> HookResult:
    """Run a hook to its end, at most `timeout` seconds (0: no limit).

    Raises HookError where it fails or takes too long, and Stopped after a TERM, INT or QUIT. A hook that
    takes too long or is stopped is ended with its process group: by TERM, and by KILL after `grace` seconds.
    """
    run = HookRun(hook, environ)
    code, stop = _wait(run, signals, timeout)
    if stop:
        _end(run, signals, 0.0 if stop == signal.SIGQUIT else grace)
        run.close()
        raise Stopped(f"stopped by {signal.Signals(stop).name} during the pre-start hook")
    if code is None:
        _end(run, signals, grace)
        run.close()
        raise HookError(f"the pre-start hook {hook.path} took longer than {timeout:g} s", EXIT_TIMEOUT)
    return run.finish(code)


def _wait(run: HookRun, signals: SignalQueue, timeout: float) -> tuple[int | None, int]:
    """Wait for the hook's exit code (None: out of time) or a signal to stop (0: none came)."""
    deadline = time.monotonic() + timeout if timeout else None
    poller = select.poll()
    poller.register(signals.fileno(), select.POLLIN)
    while True:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return None, 0
        poller.poll(None if left is None else min(left * 1000 + 1, _LONGEST_WAIT_MS))
        stop = next((number for number in signals.read() if number in STOPS), 0)
        code = next((ended.code for ended in process.reap() if ended.pid == run.pid), None)
        if stop or code is not None:
            return code, stop


def _end(run: HookRun, signals: SignalQueue, grace: float) -> None:
    """TERM the hook's group; KILL what is left after the grace period, or at a second INT or QUIT."""
    deadline = time.monotonic() + grace
    poller = select.poll()
    poller.register(signals.fileno(), select.POLLIN)
    run.kill(signal.SIGTERM)
    while time.monotonic() < deadline and run.alive():
        poller.poll(_TICK_MS)  # a grandchild's end causes no signal here
        if {signal.SIGINT, signal.SIGQUIT} & set(signals.read()):
            break
    run.kill(signal.SIGKILL)
    with suppress(ChildProcessError):  # it was reaped before
        os.waitpid(run.pid, 0)
