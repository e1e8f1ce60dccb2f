"""The pre-start hook with real shells and processes: what comes back, what ends the start, what TERM does."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from mooring.commands.run.hook import Hook, HookResult, run_blocking
from mooring.commands.run.prestart import find, messages, run_before
from mooring.errors import ConfigurationError, HookError
from mooring.logs.log import Log
from mooring.settings.invocation import Invocation
from mooring.settings.resolve import Resolved, resolve
from mooring.system.signals import SignalQueue, Stopped

ENVIRON = {"PATH": os.environ["PATH"], "KEPT": "as it was", "PORT": "80", "GONE": "1"}

Run = Callable[..., HookResult]


@pytest.fixture
def queue() -> Iterator[SignalQueue]:
    """The supervisor's signal queue; a hook that hangs ends the test, not the session."""

    def hangs(_number: int, _frame: object) -> None:
        raise TimeoutError("the hook's end was not seen")

    queue = SignalQueue()
    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(60)
    yield queue
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    queue.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "an app's root"
    folder.mkdir()
    return folder


def settings(root: Path, profile: str = "none", **environ: str) -> Resolved:
    return resolve({"app_root": str(root), "profile": profile}, environ, root)


@pytest.fixture
def run(root: Path, queue: SignalQueue) -> Run:
    """Run a text as the hook."""

    def start(
        text: str,
        *,
        name: str = "prestart.sh",
        profile: str = "none",
        environ: Mapping[str, str] = ENVIRON,
        **more: float,
    ) -> HookResult:
        path = root / name
        path.write_text(text)
        hook = find(settings(root, profile, PRE_START_PATH=str(path)))
        assert hook is not None
        return run_blocking(hook, environ, queue, **more)

    return start


def failure(run: Run, text: str, **more: object) -> tuple[int, str]:
    with pytest.raises(HookError) as caught:
        run(text, **more)
    assert "\n" not in str(caught.value)
    return caught.value.exit_code, str(caught.value)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def gone(pid: int) -> bool:
    """Whether a process that was killed is gone; the kernel may take a moment where it is no child."""
    deadline = time.monotonic() + 10
    while running(pid) and time.monotonic() < deadline:
        os.sched_yield()
    return not running(pid)


# -- what a sourced script leaves ---------------------------------------------------------------------------


@pytest.mark.parametrize("shebang", ["", "#!/bin/sh\n", "#! /usr/bin/env bash\n"], ids=["none", "sh", "bash"])
def test_exports_reassignments_and_removals_come_back_and_nothing_else(run: Run, shebang: str) -> None:
    result = run(f"{shebang}export NEW=1\nPORT=81\nNOT_EXPORTED=1\nunset GONE\n")
    assert result == HookResult(
        {"PATH": ENVIRON["PATH"], "KEPT": "as it was", "PORT": "81", "NEW": "1"}, result.cwd
    )


@pytest.mark.parametrize("shebang", ["", "#!/bin/bash\n"], ids=["sh", "bash"])
def test_values_come_back_exactly(run: Run, shebang: str) -> None:
    before = {**ENVIRON, "OLD": "a\nb\n\n=c'\"\\ é \udcff", "EMPTY": "", "LC_ALL": "C", "dotted.name-x": "y"}
    text = (
        f"{shebang}export LINES='1\n2\n=3\n' QUOTES=\"'\" UNICODE='é✓' NOTHING= BIG=$(printf '%0100000d' 7)\n"
    )
    result = run(text, environ=before)
    assert result.environ == {
        **before,
        "LINES": "1\n2\n=3\n",
        "QUOTES": "'",
        "UNICODE": "é✓",
        "NOTHING": "",
        "BIG": "7".zfill(100000),
    }


def test_what_bash_adds_for_itself_does_not_come_back(run: Run) -> None:
    result = run("#!/bin/bash\nf() { :; }\nexport -f f\ncd /\n", environ={**ENVIRON, "SHLVL": "3", "_": "/x"})
    assert result.environ == {**ENVIRON, "SHLVL": "3", "_": "/x"}


def test_pwd_follows_where_it_was_set(run: Run) -> None:
    assert run("cd /usr", environ={**ENVIRON, "PWD": "/old", "OLDPWD": "/older"}).environ["PWD"] == "/usr"


def test_cd_comes_back(run: Run, root: Path) -> None:
    (root / "sub").mkdir()
    assert run("cd sub").cwd == str(root / "sub")
    assert run(":").cwd == str(root)


def test_the_script_starts_in_the_application_root_without_arguments_and_execute_bit(
    run: Run, root: Path
) -> None:
    result = run('export SEEN="$#:$PWD:$0"')
    assert result.environ["SEEN"] == f"0:{root}:{root}/prestart.sh"
    assert not os.access(root / "prestart.sh", os.X_OK) or os.stat(root / "prestart.sh").st_mode & 0o111 == 0


def test_its_output_goes_to_ours(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("echo out; echo err >&2; export X=1").environ["X"] == "1"
    assert capfd.readouterr() == ("out\n", "err\n")


def test_no_option_or_redirection_of_the_script_disturbs_the_return(run: Run) -> None:
    text = "set -u -f; IFS=e; PATH=; exec >/dev/null 2>&1 3>&1 4>&1 9>&1; umask 077; export X='a b'"
    assert run(text).environ["X"] == "a b"


def test_a_bash_shebang_gets_bash(run: Run) -> None:
    text = "#! /usr/bin/env bash\nset -o pipefail\n[[ abc == a* ]] && source /dev/stdin <<< 'export X=1'\n"
    assert run(text).environ["X"] == "1"


def test_a_bash_shebang_gets_sh_where_there_is_no_bash(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to("/bin/sh")
    result = run("#!/bin/bash\nexport X=${BASH_VERSION:-none}\n", environ={"PATH": str(tmp_path)})
    assert result.environ["X"] == "none"


def test_it_reads_nothing(run: Run) -> None:
    read, write = os.pipe()
    standard = os.dup(0)
    try:
        os.dup2(read, 0)
        os.write(write, b"ours\n")
        assert run("read line || export X=nothing").environ["X"] == "nothing"
    finally:
        os.dup2(standard, 0)
        for fd in (read, write, standard):
            os.close(fd)


def test_it_ignores_no_signal(run: Run, root: Path) -> None:
    run("grep SigIgn /proc/$$/status >ignored")
    ignored = int((root / "ignored").read_text().split()[1], 16)
    assert not ignored & (1 << signal.SIGINT - 1 | 1 << signal.SIGPIPE - 1 | 1 << signal.SIGTERM - 1)


def test_a_child_inherits_no_descriptor(run: Run, root: Path) -> None:
    run("import os\nopen('fds', 'w').write(str(os.listdir('/proc/self/fd')))", name="prestart.py")
    assert (root / "fds").read_text() == "['0', '1', '2', '3', '4']"  # the file and the listing


def test_it_inherits_no_descriptor(run: Run) -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)  # as a socket of systemd's would be
    run(f"[ ! -e /proc/self/fd/{write} ]")
    os.close(read)
    os.close(write)


def test_return_is_not_exit(run: Run) -> None:
    result = run("export X=1\nreturn 0\nexport X=2\n")
    assert (result.environ["X"], result.ended) == ("1", False)


def test_what_it_leaves_running_is_not_waited_for(run: Run) -> None:
    result = run("sleep 300 &\nexport SLEEPER=$!\n")
    assert running(int(result.environ["SLEEPER"]))
    os.kill(int(result.environ["SLEEPER"]), signal.SIGKILL)


# -- how it ends --------------------------------------------------------------------------------------------


def test_a_failing_command_stops_the_script_and_the_start(
    run: Run, root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, text = failure(run, "echo a\nfalse\necho b\n")
    assert (code, text) == (1, f"the pre-start hook {root}/prestart.sh failed: exit code 1")
    assert capfd.readouterr().out == "a\n"


@pytest.mark.parametrize("shebang", ["", "#!/bin/bash\n"], ids=["sh", "bash"])
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("exit 7", 7),
        ("return 3", 3),
        ("exit 255", 255),
        ("no-such-command", 127),
        ("if", 2),
        ("kill -KILL $$", 137),
    ],
)
def test_its_exit_code_is_the_starts(run: Run, shebang: str, text: str, code: int) -> None:
    assert failure(run, shebang + text)[0] == code


def test_a_failing_pipe_under_pipefail(run: Run) -> None:
    assert failure(run, "#!/bin/bash\nset -o pipefail\n(exit 5) | cat\n")[0] == 5


def test_a_signal_is_named(run: Run, root: Path) -> None:
    assert failure(run, "kill -KILL $$") == (
        137,
        f"the pre-start hook {root}/prestart.sh failed: killed by SIGKILL",
    )


def test_exit_0_ends_the_run(run: Run) -> None:
    assert run("export X=1\nexit 0\n").ended
    assert run("exec true").ended


def test_a_working_folder_that_it_removes_is_not_followed(run: Run, root: Path) -> None:
    assert run("mkdir x && cd x && rmdir ../x").cwd == str(root)


# -- other kinds --------------------------------------------------------------------------------------------


def test_python_is_run_with_this_interpreter_as_a_child(run: Run, root: Path) -> None:
    text = "import os, sys\nos.environ['X'] = '1'\n"
    text += "open('seen', 'w').write(f'{sys.executable} {os.getcwd()} {sys.argv[1:]}')"
    assert run(text, name="prestart.py") == HookResult(dict(ENVIRON), str(root))
    assert (root / "seen").read_text() == f"{sys.executable} {root} []"
    assert failure(run, "raise SystemExit(7)", name="prestart.py")[0] == 7
    assert not run("raise SystemExit(0)", name="prestart.py").ended


def test_an_executable_is_run(root: Path, queue: SignalQueue) -> None:
    path = root / "prepare"
    path.write_text(f"#!{sys.executable}\nopen('seen', 'w')\n")
    given = settings(root, PRE_START_PATH="prepare")
    with pytest.raises(ConfigurationError) as caught:
        find(given)
    assert str(caught.value) == (
        f"the pre-start hook {path} is not executable: chmod +x it, or name it .sh (sourced) or .py"
    )
    path.chmod(0o755)
    hook = find(given)
    assert hook == Hook(path, "executable", "", str(root))
    assert not run_blocking(hook, ENVIRON, queue).ended
    assert (root / "seen").exists()


def test_an_executable_without_its_interpreter(
    root: Path, queue: SignalQueue, capfd: pytest.CaptureFixture[str]
) -> None:
    path = root / "prepare"
    path.write_text("#!/no/such/interpreter\n")
    path.chmod(0o755)
    hook = find(settings(root, PRE_START_PATH="prepare"))
    assert hook is not None
    with pytest.raises(HookError) as caught:
        run_blocking(hook, ENVIRON, queue)
    assert caught.value.exit_code == 127
    assert capfd.readouterr().err == f"mooring: cannot run {path} in {root}: No such file or directory\n"


def test_the_inboard_profiles_run_a_shell_script_as_a_child(run: Run, root: Path) -> None:
    result = run("export X=1; cd /; exit 0", profile="inboard-base")
    assert result == HookResult(dict(ENVIRON), str(root))
    assert failure(run, "exit 7", profile="inboard-base")[0] == 7


@pytest.mark.parametrize(
    ("profile", "name", "text", "kind", "interpreter"),
    [
        ("none", "x.sh", "", "sourced", "sh"),
        ("none", "x.sh", "#!/bin/sh -e\n", "sourced", "sh"),
        ("none", "x.sh", "#!/usr/bin/env -S bash -x\n", "sourced", "bash"),
        ("none", "x.sh", "#!/usr/bin/zsh\n", "sourced", "sh"),
        ("hypercorn", "x", "", "sourced", "sh"),
        ("conda-starlette", "x.txt", "#!/bin/bash\n", "sourced", "bash"),
        ("inboard-fastapi", "x", "", "shell", "sh"),
        ("inboard-base", "x.py", "", "python", sys.executable),
        ("meinheld-flask", "x.py", "", "python", sys.executable),
        ("hypercorn", "x", "#!/usr/bin/perl\n", "executable", ""),
        ("none", "x", "#!/bin/sh\n", "executable", ""),
    ],
)
def test_what_runs_what(root: Path, profile: str, name: str, text: str, kind: str, interpreter: str) -> None:
    (root / name).write_text(text)
    (root / name).chmod(0o755)
    hook = find(settings(root, profile, PRE_START_PATH=name))
    assert hook is not None
    assert (hook.kind, hook.interpreter) == (kind, interpreter)


# -- finding it ---------------------------------------------------------------------------------------------


def test_the_profiles_names_are_looked_for_in_the_application_root(root: Path) -> None:
    assert find(settings(root)) is None
    (root / "prestart.sh").write_text("")
    for profile in ("none", "hypercorn", "inboard-base"):
        hook = find(settings(root, profile))
        assert hook is not None
        assert hook.path == root / "prestart.sh"
    assert find(settings(root, "poetry")) is None
    (root / "prestart.py").write_text("")
    hook = find(settings(root, "inboard-base"))
    assert hook is not None
    assert hook.path == root / "prestart.py"


def test_a_named_hook_that_is_missing_stops_the_start_but_not_in_an_older_image(root: Path) -> None:
    for name in ("no.sh", "."):
        with pytest.raises(ConfigurationError) as caught:
            find(settings(root, PRE_START_PATH=name))
        assert str(caught.value) == f"PRE_START_PATH: the pre-start hook {root / name} is not a file"
        assert find(settings(root, "hypercorn", PRE_START_PATH=name)) is None
        assert find(settings(root, "inboard-base", PRE_START_PATH=name)) is None


def test_the_messages_of_the_older_images(root: Path) -> None:
    def shown(profile: str) -> tuple[str, ...]:
        given = settings(root, profile)
        return messages(given, find(given))

    path = f"{root}/prestart"
    assert shown("hypercorn") == (f"Checking for script in {path}.sh", f"There is no script {path}.sh")
    assert shown("inboard-base") == (
        f"Checking for pre-start script in {path}.py.",
        "No pre-start script found.",
    )
    assert shown("none") == shown("poetry") == ()
    (root / "prestart.sh").write_text("")
    assert shown("conda-starlette") == (f"Checking for script in {path}.sh", f"Running script {path}.sh")
    sh = (f"Checking for pre-start script in {path}.sh.", f"Running pre-start script sh {path}.sh.")
    assert shown("inboard-base") == sh
    (root / "prestart.py").write_text("")
    python = (f"Checking for pre-start script in {path}.py.", f"Running pre-start script python {path}.py.")
    assert shown("inboard-base") == python
    assert shown("none") == ()


# -- stopping it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["TERM", "INT", "QUIT"])
def test_a_stop_during_the_hook_stops_it_and_what_it_started(run: Run, root: Path, number: str) -> None:
    started = "sleep 300 & echo $! >child; (sleep 300 & echo $! >grandchild); echo $$ >self"
    text = f"{started}; kill -{number} $PPID; wait"
    with pytest.raises(Stopped) as caught:
        run(text, grace=30)
    assert str(caught.value) == f"stopped by SIG{number} during the pre-start hook"
    for name in ("child", "grandchild", "self"):
        assert gone(int((root / name).read_text())), name


def test_a_stop_before_the_hook_counts(run: Run, root: Path) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Stopped):
        run("sleep 300")


def test_what_the_hook_started_may_end_in_its_own_way(run: Run, root: Path) -> None:
    migration = """
import os, signal
signal.signal(signal.SIGTERM, lambda *_: [open("out", "w").write("rolled back"), os._exit(0)])
os.kill(int(os.environ["MOORING"]), signal.SIGTERM)
while True: signal.pause()
"""
    with pytest.raises(Stopped):
        run(f"export MOORING=$PPID\n{sys.executable} -c '{migration}'\n:", grace=50)
    assert (root / "out").read_text() == "rolled back"


def test_a_hook_that_ignores_term_is_killed_after_the_grace_period(run: Run, root: Path) -> None:
    with pytest.raises(Stopped):
        run("trap '' TERM; echo $$ >self; sleep 300 & echo $! >child; kill -TERM $PPID; wait", grace=0.1)
    assert gone(int((root / "self").read_text()))
    assert gone(int((root / "child").read_text()))


def test_a_second_interrupt_kills_at_once(run: Run, root: Path) -> None:
    begin = time.monotonic()
    text = "trap 'kill -INT $PPID' TERM; echo $$ >self; kill -INT $PPID; while :; do sleep 300 & wait; done"
    with pytest.raises(Stopped):
        run(text, grace=50)
    assert time.monotonic() - begin < 40
    assert gone(int((root / "self").read_text()))


def test_the_end_of_the_group_is_seen_although_nobody_reaps_it(run: Run, root: Path) -> None:
    begin = time.monotonic()
    never_waits = "exec setsid sh -c 'kill -TERM $1; exec sleep 300' x $PPID"  # and leaves the group
    with pytest.raises(Stopped):
        run(f"(sleep 300 & {never_waits}) & echo $! >parent; wait", grace=50)
    assert time.monotonic() - begin < 40
    os.kill(int((root / "parent").read_text()), signal.SIGKILL)


def test_hangups_and_ends_of_other_processes_are_no_reason_to_stop(run: Run) -> None:
    assert run("kill -HUP $PPID; kill -USR1 $PPID; kill -CHLD $PPID; export X=1").environ["X"] == "1"


def test_a_hook_that_takes_too_long_is_stopped_with_the_code_of_timeout(run: Run, root: Path) -> None:
    code, text = failure(run, "echo $$ >self; sleep 300", timeout=0.2)
    assert (code, text) == (124, f"the pre-start hook {root}/prestart.sh took longer than 0.2 s")
    assert gone(int((root / "self").read_text()))


def test_nothing_stays_open(run: Run) -> None:
    run(":")
    before = sorted(os.listdir("/proc/self/fd"))
    run(":")
    failure(run, "false")
    failure(run, "sleep 300", timeout=0.05)
    with pytest.raises(Stopped):
        run("kill -TERM $PPID; sleep 300")
    assert sorted(os.listdir("/proc/self/fd")) == before


# -- as the start's first step ------------------------------------------------------------------------------


def before(
    root: Path, queue: SignalQueue, profile: str = "none", cli: Mapping[str, str] | None = None
) -> Invocation | None:
    given = {"app_root": str(root), "profile": profile} if cli is None else cli
    invocation = Invocation(given, ENVIRON, root)
    found = run_before(resolve(given, ENVIRON, root), invocation, queue, Log(level="error"))
    assert found is None or found.cli == given
    return found


def left(found: Invocation | None) -> tuple[Mapping[str, str], Path, str | None]:
    """What the start goes on with: environment, folder, and the workers' folder."""
    assert found is not None
    return found.environ, found.folder, found.cwd


def test_without_a_hook_nothing_changes(root: Path, queue: SignalQueue) -> None:
    assert left(before(root, queue)) == (ENVIRON, root, None)


def test_the_messages_come_before_the_scripts_output(
    root: Path, queue: SignalQueue, capfd: pytest.CaptureFixture[str]
) -> None:
    path = root / "prestart.sh"
    path.write_text("echo migrated; export X=1")
    after = before(root, queue, "meinheld-flask")
    assert after is not None
    assert after.environ["X"] == "1"
    assert capfd.readouterr() == (f"Checking for script in {path}\nRunning script {path}\nmigrated\n", "")


def test_a_cd_moves_the_workers_and_the_root_only_where_none_was_given(
    root: Path, queue: SignalQueue
) -> None:
    (root / "prestart.sh").write_text("cd /usr")
    assert left(before(root, queue)) == (ENVIRON, root, "/usr")
    assert left(before(root, queue, cli={})) == (ENVIRON, Path("/usr"), "/usr")
    (root / "prestart.sh").write_text("cd . ; :")
    assert left(before(root, queue)) == (ENVIRON, root, None)


def test_exit_0_and_a_stop_end_the_run_without_an_error(root: Path, queue: SignalQueue) -> None:
    (root / "prestart.sh").write_text("exit 0")
    assert before(root, queue) is None
    (root / "prestart.sh").write_text("kill -TERM $PPID; sleep 300")
    assert before(root, queue) is None


def test_a_failure_is_the_callers(root: Path, queue: SignalQueue) -> None:
    (root / "prestart.sh").write_text("exit 7")
    with pytest.raises(HookError) as caught:
        before(root, queue)
    assert caught.value.exit_code == 7
