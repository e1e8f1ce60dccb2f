"""The instance's folder and control socket: found by its name, closed to others, gone after the stop."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from mooring.admin import instance
from mooring.admin.instance import (
    InstanceFolder,
    connect,
    instance_name,
    list_instances,
    open_instance,
    peer_allowed,
)
from mooring.errors import ConfigurationError
from mooring.settings.table import Settings
from mooring.system.address import Address

FIRST = Address("tcp", host="127.0.0.1", port=8000)
NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")

Opener = Callable[..., InstanceFolder]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def start(base: Path) -> Iterator[Opener]:
    opened: list[InstanceFolder] = []

    def run(
        name: str | None = None, *, folder: str | None = "", environ: Mapping[str, str] | None = None
    ) -> InstanceFolder:
        folder = str(base) if folder == "" else folder
        opened.append(open_instance(Settings(name=name, runtime_dir=folder), FIRST, environ or {}))
        return opened[-1]

    yield run
    for found in opened:
        found.close()


@pytest.fixture
def no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system on which no folder can be made, not even by root."""
    monkeypatch.setattr(instance, "SYSTEM_BASE", "/proc/none")
    monkeypatch.setattr(instance, "TEMPORARY", "/proc")


def refusal(start: Opener, *given: str, **more: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        start(*given, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (Address("tcp", host="127.0.0.1", port=8000), "127.0.0.1-8000"),
        (Address("tcp", host="::1", port=80), "__1-80"),
        (Address("tcp", host="::", port=80), "__-80"),
        (Address("unix", path="/run/app.sock"), "run-app.sock"),
    ],
)
def test_the_first_listener_names_the_instance(first: Address, name: str) -> None:
    assert instance_name(Settings(), first) == name
    assert instance_name(Settings(name="shop"), first) == "shop"


def test_two_paths_never_share_a_name() -> None:
    paths = (
        "/run/a/b",
        "/run/a-b",
        "/run-a/b",
        "/run/a b",
        "/run/a\nb",
        "/run/\udcff",
        "/run/\udcfe",
        "/.run/a",
    )
    names = [instance_name(Settings(), Address("unix", path=path)) for path in paths]
    assert len(set(names)) == len(paths)
    assert all(name.isascii() and name.isprintable() and name[0] not in "-." for name in names)


def test_a_long_name_is_shortened_and_stays_distinct(start: Opener, base: Path) -> None:
    first, second = start("x" * 200 + "1"), start("x" * 200 + "2")
    assert first.name != second.name
    assert len(os.fsencode(first.address)) <= 107
    assert {found.name for found in list_instances(Settings(runtime_dir=str(base)), {})} == {
        first.name,
        second.name,
    }


# -- the folder -------------------------------------------------------------------------------------------


def test_the_folder_and_its_socket(start: Opener, base: Path) -> None:
    before = os.umask(0)
    try:
        made = start("shop")
    finally:
        os.umask(before)
    assert made.path == f"{base}/shop"
    assert made.address == f"{base}/shop/control.sock"
    assert stat.S_IMODE(os.stat(made.path).st_mode) == 0o700
    assert not made.socket.getblocking()
    assert not made.socket.get_inheritable()
    with connect(list_instances(Settings(runtime_dir=str(base)), {})[0]) as client:
        connection, _ = made.socket.accept()
        with connection:
            assert peer_allowed(connection, os.geteuid())
            assert client.gettimeout() == 5.0


def test_closing_removes_the_folder_with_what_the_instance_put_there(start: Opener, base: Path) -> None:
    made = start("shop")
    assert made.path is not None
    (Path(made.path) / "metrics").mkdir()
    (Path(made.path) / "metrics" / "1.db").write_text("x")
    (Path(made.path) / "link").symlink_to("/etc")
    made.close()
    made.close()
    assert os.listdir(base) == []


def test_a_folder_that_was_there_keeps_what_is_not_ours(start: Opener, base: Path) -> None:
    (base / "shop").mkdir(mode=0o700, parents=True)
    (base / "shop" / "precious").write_text("x")
    start("shop").close()
    assert os.listdir(base / "shop") == ["precious"]


def test_several_instances_on_one_host(start: Opener, base: Path) -> None:
    start("b")
    start("a")
    found = list_instances(Settings(runtime_dir=str(base)), {})
    assert [(instance.name, instance.alive) for instance in found] == [("a", True), ("b", True)]


def test_a_running_instance_of_that_name_is_refused_and_stays(start: Opener, base: Path) -> None:
    start("shop")
    code = f"""
from mooring.system.address import Address
from mooring.admin.instance import open_instance
from mooring.settings.table import Settings
try:
    open_instance(Settings(name="shop", runtime_dir={str(base)!r}), Address("tcp"), {{}})
except Exception as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=30, check=True
    )
    who = f"{Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})"
    assert done.stdout == (
        f"an instance named shop is running already by {who}; stop it, or choose another MOORING_NAME\n"
    )
    assert list_instances(Settings(runtime_dir=str(base)), {})[0].alive


KILLED = """
import os, signal, sys
from mooring.system.address import Address
from mooring.admin.instance import open_instance
from mooring.settings.table import Settings
made = open_instance(Settings(name="shop", runtime_dir=sys.argv[1] or None), Address("tcp"), os.environ)
open(made.path + "/left", "w").close()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("given", [True, False], ids=["runtime_dir", "XDG_RUNTIME_DIR"])
def test_what_a_killed_supervisor_left_does_not_block_the_next(
    start: Opener, base: Path, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    base.mkdir()
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(base)}
    code = KILLED if given else f"import mooring.admin.instance as r; r.SYSTEM_BASE = '/proc/no'\n{KILLED}"
    command = [sys.executable, "-c", code, str(base) if given else ""]
    done = subprocess.run(command, env=environ, timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL
    monkeypatch.setattr(instance, "SYSTEM_BASE", "/proc/no")
    settings = Settings(runtime_dir=str(base) if given else None)
    assert [(found.name, found.alive) for found in list_instances(settings, environ)] == [("shop", False)]
    with pytest.raises(ConfigurationError) as caught:
        connect(list_instances(settings, environ)[0])
    assert str(caught.value) == "instance shop cannot be reached: Connection refused"
    made = start("shop", folder=settings.runtime_dir, environ=environ)
    assert list_instances(settings, environ)[0].alive
    made.close()
    # a folder below one that the user chose may hold what is not ours: only below ours is all removed
    assert os.listdir(Path(made.path or "").parent) == (["shop"] if given else [])


def test_of_many_that_start_at_once_one_wins(start: Opener, base: Path) -> None:
    ready, go = os.pipe()
    children = []
    for _ in range(12):
        pid = os.fork()
        if pid == 0:
            os.close(go)
            code = 9
            try:
                os.read(ready, 1)
                start("shop")
                code = 0
                signal.pause()
            except ConfigurationError:
                code = 2
            finally:
                os._exit(code)
        children.append(pid)
    os.close(ready)
    os.close(go)  # the end of the file starts them all
    ended = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(11)]
    assert ended == [2] * 11
    for pid in children:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def test_a_stop_and_a_start_of_one_name_do_not_meet(start: Opener, base: Path) -> None:
    """The folder vanishes under a start again and again; each start still ends with a socket that answers."""

    def turn() -> None:
        try:
            made = start("shop")
        except ConfigurationError as error:
            if "is running already" in str(error):
                return
            raise
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)  # the other's questions may have filled the queue
            assert client.connect_ex(made.address) in (0, errno.EAGAIN)
        made.close()

    pid = os.fork()
    if pid == 0:
        try:
            while True:
                turn()
        finally:
            os._exit(1)
    try:
        for _ in range(500):
            turn()
    finally:
        os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_a_folder_that_a_stopping_instance_removes_is_made_again(
    start: Opener, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock

    def late(fd: int, operation: int) -> None:
        monkeypatch.undo()
        os.rmdir(base / "shop")
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    start("shop")
    connect(list_instances(Settings(runtime_dir=str(base)), {})[0]).close()


def test_a_stop_leaves_alone_what_a_start_has_made_meanwhile(
    start: Opener, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start("shop")
    flock = fcntl.flock

    def late(fd: int, operation: int) -> None:
        monkeypatch.undo()
        start("shop")
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    first.close()
    connect(list_instances(Settings(runtime_dir=str(base)), {})[0]).close()


def test_between_binding_and_listening_nobody_takes_the_socket_for_stale(
    start: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = socket.socket.listen
    rivals = []

    def slow(sock: socket.socket, backlog: int) -> None:
        monkeypatch.undo()
        pid = os.fork()
        if pid == 0:
            code = 0
            try:
                start("shop")
            except ConfigurationError:
                code = 2
            finally:
                os._exit(code)
        rivals.append(pid)
        while (
            f" {pid} " not in Path("/proc/locks").read_text()
            and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        ):
            os.sched_yield()  # until it waits for the lock, or has ended
        listen(sock, backlog)

    monkeypatch.setattr(socket.socket, "listen", slow)
    start("shop")
    assert os.waitstatus_to_exitcode(os.waitpid(rivals[0], 0)[1]) == 2


# -- where it may be ----------------------------------------------------------------------------------------


def test_the_first_base_that_can_be_written(
    start: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, temporary, system = tmp_path / "session", tmp_path / "tmp", tmp_path / "system"
    session.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(instance, "SYSTEM_BASE", str(system / "mooring"))
    monkeypatch.setattr(instance, "TEMPORARY", str(temporary))
    environ = {"XDG_RUNTIME_DIR": str(session)}
    assert start("a", folder=None, environ=environ).path == f"{session}/mooring/a"
    second = start("b", folder=None, environ={"XDG_RUNTIME_DIR": "relative"})
    assert second.path == f"{temporary}/mooring-{os.geteuid()}/b"
    assert not system.exists()
    (system / "mooring").mkdir(parents=True, mode=0o755)  # as systemd's RuntimeDirectory= makes it
    assert start("c", folder=None, environ=environ).path == f"{system}/mooring/c"
    assert [found.name for found in list_instances(Settings(), environ)] == ["a", "b", "c"]


def test_a_chosen_folder_that_cannot_be_made(start: Opener) -> None:
    assert refusal(start, "shop", folder="/proc/none").startswith("runtime folder /proc/none: ")


def test_a_chosen_folder_with_too_long_a_path(start: Opener, base: Path) -> None:
    folder = f"{base}/{'x' * 100}"
    assert refusal(start, "shop", folder=folder) == (
        f"runtime folder {folder}: too long for a unix socket's path (107 bytes)"
    )


def refused(folder: Path) -> str:
    return (
        f"runtime folder {folder.parent}: {folder} is a link, another user's, or open to others "
        "(chmod 700): remove it, or choose another with MOORING_RUNTIME_DIR"
    )


def test_a_link_in_the_folders_place_is_refused(start: Opener, base: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o700)
    base.mkdir()
    (base / "shop").symlink_to(tmp_path / "mine")
    assert refusal(start, "shop") == refused(base / "shop")
    assert list_instances(Settings(runtime_dir=str(base)), {}) == []


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_folder_open_to_others_is_refused(start: Opener, base: Path, mode: int) -> None:
    (base / "shop").mkdir(parents=True)
    (base / "shop").chmod(mode)
    assert refusal(start, "shop") == refused(base / "shop")


@needs_root
def test_another_users_folder_is_refused(start: Opener, base: Path) -> None:
    (base / "shop").mkdir(parents=True, mode=0o700)
    os.chown(base / "shop", NOBODY, NOBODY)
    assert refusal(start, "shop") == refused(base / "shop")


@needs_root
def test_another_users_base_in_tmp_is_passed_over(
    start: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance, "SYSTEM_BASE", "/proc/none")
    monkeypatch.setattr(instance, "TEMPORARY", str(tmp_path))
    squatted = tmp_path / f"mooring-{os.geteuid()}"
    squatted.mkdir(mode=0o700)
    os.chown(squatted, NOBODY, NOBODY)
    made = start("shop", folder=None)
    assert made.path is None
    assert made.address.startswith("\0")
    assert f"{squatted} is a link, another user's, or open to others" in made.warning
    assert [found.name for found in list_instances(Settings(), {})] == ["shop"]


# -- without a folder ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_folder")
def test_without_a_writable_folder_there_is_an_abstract_socket(start: Opener) -> None:
    made = start("test-abstract", folder=None)
    assert made.path is None
    assert made.address == f"\0mooring-{os.geteuid()}-test-abstract"
    found = [instance for instance in list_instances(Settings(), {}) if instance.name == "test-abstract"]
    assert [instance.alive for instance in found] == [True]
    connect(found[0]).close()
    assert refusal(start, "test-abstract", folder=None).startswith(
        "an instance named test-abstract is running already"
    )
    made.close()
    assert "test-abstract" not in [instance.name for instance in list_instances(Settings(), {})]


@needs_root
@pytest.mark.usefixtures("no_folder")
def test_another_users_process_behind_our_abstract_name_is_not_talked_to() -> None:
    address = f"\0mooring-{os.geteuid()}-test-squatted"
    report, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        squatter = socket.socket(socket.AF_UNIX)
        squatter.bind(address)
        squatter.listen()
        os.write(told, b"x")
        signal.pause()
        os._exit(0)
    try:
        os.read(report, 1)
        (found,) = [one for one in list_instances(Settings(), {}) if one.name == "test-squatted"]
        with pytest.raises(ConfigurationError) as caught:
            connect(found)
        assert str(caught.value) == (
            "instance test-squatted cannot be reached: another user's process answers in its place"
        )
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(report)
        os.close(told)


@needs_root
@pytest.mark.usefixtures("no_folder")
@pytest.mark.parametrize(("uid", "allowed"), [(0, True), (NOBODY, True), (12345, False)])
def test_only_the_user_and_root_are_allowed(start: Opener, uid: int, allowed: bool) -> None:
    made = start(f"test-peer-{uid}", folder=None)
    made.socket.settimeout(10)
    pid = os.fork()
    if pid == 0:
        os.setgid(uid)
        os.setuid(uid)
        client = socket.socket(socket.AF_UNIX)
        client.connect(made.address)
        client.recv(1)
        os._exit(0)
    connection, _ = made.socket.accept()
    with connection:
        assert peer_allowed(connection, NOBODY) is allowed
    os.waitpid(pid, 0)
