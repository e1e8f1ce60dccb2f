"""Listeners on real sockets: each form is bound as it says, each refusal is one line that says what to do."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from harness import free_port

from mooring.errors import BindError
from mooring.system.address import parse_bind
from mooring.system.listeners import Listener, close_listeners, open_listeners

Opener = Callable[..., list[Listener]]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 here")


@pytest.fixture
def listen() -> Iterator[Opener]:
    opened: list[Listener] = []

    def start(bind: str, *, mode: int = 0o666, environ: Mapping[str, str] = os.environ) -> list[Listener]:
        found = open_listeners(parse_bind(bind), backlog=16, unix_mode=mode, environ=environ)
        opened.extend(found)
        return found

    yield start
    close_listeners(opened)


def refusal(bind: str) -> str:
    with pytest.raises(BindError) as caught:
        open_listeners(parse_bind(bind), backlog=16, unix_mode=0o666, environ=os.environ)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    return str(caught.value)


def port_of(listener: Listener) -> int:
    assert listener.address.port > 0
    return listener.address.port


def accepted(listener: Listener, *address: object) -> socket.socket:
    """Connect to a listener and return its end of the connection."""
    family = {2: socket.AF_INET, 4: socket.AF_INET6, 1: socket.AF_UNIX}[len(address)]
    with socket.socket(family) as client:
        client.settimeout(10)
        client.connect(address[0] if family == socket.AF_UNIX else address)
        assert select.select([listener.socket], [], [], 10)[0]
        return listener.socket.accept()[0]


# -- TCP --------------------------------------------------------------------------------------------------


def test_port_zero_is_filled_in_and_shown(listen: Opener) -> None:
    (listener,) = listen("127.0.0.1:0")
    port = port_of(listener)
    assert listener.url(tls=False) == f"http://127.0.0.1:{port}"
    assert listener.url(tls=True) == f"https://127.0.0.1:{port}"
    accepted(listener, "127.0.0.1", port).close()


def test_sockets_are_close_on_exec_non_blocking_and_without_delay(listen: Opener) -> None:
    (listener,) = listen("127.0.0.1:0")
    assert not listener.socket.get_inheritable()
    assert not listener.socket.getblocking()
    with pytest.raises(BlockingIOError):
        listener.socket.accept()
    with accepted(listener, "127.0.0.1", port_of(listener)) as connection:
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_an_empty_host_is_every_ipv4_address(listen: Opener) -> None:
    (listener,) = listen(":0")
    assert listener.address.host == "0.0.0.0"
    accepted(listener, "127.0.0.2", port_of(listener)).close()


@needs_ipv6
def test_ipv6(listen: Opener) -> None:
    (listener,) = listen("[::1]:0")
    port = port_of(listener)
    assert listener.url(tls=False) == f"http://[::1]:{port}"
    accepted(listener, "::1", port, 0, 0).close()


@needs_ipv6
def test_the_ipv6_wildcard_takes_ipv4_too(listen: Opener) -> None:
    (listener,) = listen("[::]:0")
    accepted(listener, "127.0.0.1", port_of(listener)).close()
    accepted(listener, "::1", port_of(listener), 0, 0).close()


@needs_ipv6
@pytest.mark.parametrize("ipv4", ["0.0.0.0", "127.0.0.1", ""])
@pytest.mark.parametrize("ipv6_first", [False, True])
def test_both_wildcards_can_have_one_port(listen: Opener, ipv4: str, ipv6_first: bool) -> None:
    port = free_port()
    both = [f"{ipv4}:{port}", f"[::]:{port}"]
    found = listen(",".join(reversed(both) if ipv6_first else both))
    by_family = {listener.socket.family: listener for listener in found}
    accepted(by_family[socket.AF_INET], "127.0.0.1", port).close()
    accepted(by_family[socket.AF_INET6], "::1", port, 0, 0).close()


def _resolves_to(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    def getaddrinfo(_host: str, port: int, **_more: object) -> list[object]:
        found: list[object] = []
        for host in hosts:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            sockaddr = (host, port, 0, 0) if ":" in host else (host, port)
            found.append((family, socket.SOCK_STREAM, 6, "", sockaddr))
        return found

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_a_name_with_several_addresses_gets_all_on_one_port(
    listen: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    _resolves_to(monkeypatch, "127.0.0.1", "127.0.0.2", "127.0.0.1")
    found = listen("localhost:0")
    assert [listener.address.host for listener in found] == ["127.0.0.1", "127.0.0.2"]
    assert len({port_of(listener) for listener in found}) == 1


def test_port_zero_is_chosen_again_where_another_address_has_it_taken(
    listen: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    _resolves_to(monkeypatch, "127.0.0.1", "127.0.0.2")
    bind = socket.socket.bind
    squatters = []

    def racing(sock: socket.socket, address: tuple[str, int]) -> None:
        if address[0] == "127.0.0.2" and not squatters:
            squatter = socket.socket()
            bind(squatter, address)
            squatter.listen()
            squatters.append(squatter)
        bind(sock, address)

    monkeypatch.setattr(socket.socket, "bind", racing)
    found = listen("localhost:0")
    assert len(found) == 2
    assert len({port_of(listener) for listener in found}) == 1
    assert port_of(found[0]) != squatters[0].getsockname()[1]
    squatters[0].close()


def test_an_address_of_a_name_that_this_machine_lacks_is_left_out(
    listen: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    _resolves_to(monkeypatch, "192.0.2.1", "127.0.0.1")
    assert [listener.address.host for listener in listen("localhost:0")] == ["127.0.0.1"]


def test_several_at_once(listen: Opener, tmp_path: Path) -> None:
    found = listen(f"127.0.0.1:0,127.0.0.1:0,unix:{tmp_path}/a.sock")
    assert [listener.address.kind for listener in found] == ["tcp", "unix"]  # the same text is one address
    found = listen(f"127.0.0.1:0,127.0.0.2:0,unix:{tmp_path}/b.sock")
    assert [listener.address.kind for listener in found] == ["tcp", "tcp", "unix"]


def test_a_stopped_server_leaves_the_port_usable(listen: Opener) -> None:
    (first,) = listen("127.0.0.1:0")
    with socket.create_connection(("127.0.0.1", port_of(first))) as client:
        assert select.select([first.socket], [], [], 10)[0]
        first.socket.accept()[0].close()  # the side that closes first waits in TIME_WAIT
        assert client.recv(1) == b""
    first.socket.close()
    listen(f"127.0.0.1:{port_of(first)}")


@pytest.fixture
def holder() -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Another process that runs some code, says one line, and waits."""
    started: list[subprocess.Popen[bytes]] = []

    def start(code: str) -> subprocess.Popen[bytes]:
        code = f"import socket, sys\n{code}\nprint(flush=True); sys.stdin.read()"
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_port_in_use_names_the_address_and_who_has_it(
    holder: Callable[[str], subprocess.Popen[bytes]],
) -> None:
    port = free_port()
    process = holder(f"s = socket.create_server(('127.0.0.1', {port}))")
    name = Path(f"/proc/{process.pid}/comm").read_text().strip()
    assert refusal(f"127.0.0.1:{port}") == (
        f"cannot listen on 127.0.0.1:{port}: the port is in use by {name} (pid {process.pid}); "
        "stop it, or choose another port"
    )


@needs_root
def test_a_port_in_use_by_someone_hidden_is_still_one_line(
    holder: Callable[[str], subprocess.Popen[bytes]],
) -> None:
    port = free_port()
    holder(f"s = socket.create_server(('127.0.0.1', {port}))")
    text = as_nobody(lambda: refusal(f"127.0.0.1:{port}"))
    assert text == f"cannot listen on 127.0.0.1:{port}: the port is in use; stop it, or choose another port"


def test_an_address_named_twice_says_so() -> None:
    port = free_port()
    assert refusal(f"127.0.0.1:{port},:{port}") == (
        f"cannot listen on :{port}: the port is in use, by mooring itself: it is named twice; "
        "stop it, or choose another port"
    )


def as_nobody(work: Callable[[], str]) -> str:
    """What `work` returns in a process of uid 65534."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(write, work().encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        result = pipe.read().decode()
    os.waitpid(pid, 0)
    return result


def test_a_port_below_1024_without_the_right() -> None:
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 81:
        pytest.skip("every user may bind every port here")
    work = lambda: refusal("127.0.0.1:81")  # noqa: E731
    assert (as_nobody(work) if os.geteuid() == 0 else work()) == (
        "cannot listen on 127.0.0.1:81: this user may not bind port 81; use a port from 1024 up, "
        "or give the capability NET_BIND_SERVICE"
    )


def test_an_address_of_another_machine() -> None:
    assert refusal("192.0.2.1:8000") == (
        "cannot listen on 192.0.2.1:8000: no interface of this machine has that address"
    )


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 70, "a..b"])
def test_a_host_name_that_does_not_resolve(host: str) -> None:
    assert refusal(f"{host}:8000") == (
        f"cannot listen on {host}:8000: the host name {host!r} cannot be resolved; "
        "give an address of this machine"
    )


def test_no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    assert refusal("[::1]:8000") == "cannot listen on [::1]:8000: this machine has no IPv6"


def test_a_failure_closes_what_was_opened(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "app.sock"
    before = set(os.listdir("/proc/self/fd"))
    refusal(f"127.0.0.1:{port},unix:{path},192.0.2.1:80")
    assert not path.exists()
    assert set(os.listdir("/proc/self/fd")) == before
    with socket.create_server(("127.0.0.1", port)):
        pass


# -- unix -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o666, 0o600, 0o660, 0o777])
def test_a_unix_socket_has_its_mode_whatever_the_umask(listen: Opener, tmp_path: Path, mode: int) -> None:
    path = tmp_path / "app.sock"
    before = os.umask(0o077)
    try:
        (listener,) = listen(f"unix:{path}", mode=mode)
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert listener.url(tls=False) == f"unix:{path}"
    assert listener.owned_path == str(path)
    accepted(listener, str(path)).close()


def test_a_relative_path_is_still_known_after_a_cd(
    listen: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = listen("./app.sock")
    monkeypatch.chdir("/")
    assert found[0].address.path == f"{tmp_path}/app.sock"
    close_listeners(found)
    assert not (tmp_path / "app.sock").exists()


def test_a_stale_unix_socket_is_replaced(listen: Opener, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    (listener,) = listen(f"unix:{path}")
    accepted(listener, str(path)).close()


@pytest.mark.parametrize("full", [False, True], ids=["idle", "queue full"])
def test_a_live_unix_socket_is_refused_and_stays(
    holder: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path, full: bool
) -> None:
    path = str(tmp_path / "app.sock")
    process = holder(f"s = socket.socket(socket.AF_UNIX); s.bind({path!r}); s.listen(0)")
    clients = []
    if full:
        for _ in range(2):
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            clients.append(client)
            client.connect_ex(path)
    name = Path(f"/proc/{process.pid}/comm").read_text().strip()
    who = "" if full else f" by {name} (pid {process.pid})"
    assert refusal(f"unix:{path}") == (
        f"cannot listen on unix:{path}: it is in use{who}; stop it, or choose another path"
    )
    assert os.path.exists(path)
    for client in clients:
        client.close()


def test_a_file_in_the_way_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    path.write_text("precious")
    assert refusal(f"unix:{path}") == f"cannot listen on unix:{path}: a file that is no socket is in the way"
    assert path.read_text() == "precious"


def test_a_link_in_the_way_is_refused(listen: Opener, tmp_path: Path) -> None:
    path, link = tmp_path / "dead.sock", tmp_path / "link.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    link.symlink_to(path)
    assert refusal(f"unix:{link}") == f"cannot listen on unix:{link}: a file that is no socket is in the way"


def test_a_path_that_is_too_long(listen: Opener, tmp_path: Path) -> None:
    room = 107 - len(os.fsencode(tmp_path)) - 1
    path = tmp_path / ("é" * (room // 2) + "x" * (room % 2 + 1))
    assert refusal(f"unix:{path}") == (
        f"cannot listen on unix:{path}: the path has 108 bytes, and a unix socket's may have 107"
    )
    listen(f"unix:{tmp_path / ('x' * room)}")


def test_a_path_that_is_none() -> None:
    assert refusal("unix:a\0b") == "cannot listen on unix:a\0b: the path has a NUL character"


def test_a_missing_folder(tmp_path: Path) -> None:
    assert refusal(f"unix:{tmp_path}/no/app.sock") == (
        f"cannot listen on unix:{tmp_path}/no/app.sock: the folder {tmp_path}/no does not exist"
    )


@needs_root
def test_a_folder_without_the_right(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert as_nobody(lambda: refusal("unix:/proc/1/../../root-owned.sock")) == (
        "cannot listen on unix:/proc/1/../../root-owned.sock: "
        "this user may not make or open a socket in /proc/1/../.."
    )


def test_closing_removes_only_its_own_file(listen: Opener, tmp_path: Path) -> None:
    mine, theirs, gone = tmp_path / "mine", tmp_path / "theirs", tmp_path / "gone"
    found = listen(f"unix:{mine},unix:{theirs},unix:{gone}")
    theirs.rename(tmp_path / "kept: its inode may not be used again")
    theirs.write_text("another file by now")
    gone.unlink()
    close_listeners(found)
    assert not mine.exists()
    assert theirs.read_text() == "another file by now"


# -- inherited --------------------------------------------------------------------------------------------


def test_an_inherited_listening_socket_is_used(listen: Opener) -> None:
    given = socket.create_server(("127.0.0.1", 0))
    port = given.getsockname()[1]
    given.set_inheritable(True)
    (listener,) = listen(f"fd://{given.detach()}")
    assert listener.url(tls=False) == f"http://127.0.0.1:{port}"
    assert not listener.socket.get_inheritable()
    assert not listener.socket.getblocking()
    accepted(listener, "127.0.0.1", port).close()


def test_an_inherited_bound_socket_is_made_to_listen_and_its_path_is_not_ours(
    listen: Opener, tmp_path: Path
) -> None:
    given = socket.socket(socket.AF_UNIX)
    given.bind(str(tmp_path / "given.sock"))
    found = listen(f"fd://{given.detach()}")
    assert found[0].url(tls=False) == f"unix:{tmp_path}/given.sock"
    accepted(found[0], str(tmp_path / "given.sock")).close()
    close_listeners(found)
    assert (tmp_path / "given.sock").exists()


def test_an_inherited_descriptor_that_cannot_listen_is_refused_and_left_open(tmp_path: Path) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    left, right = socket.socketpair()
    datagram, unbound, unnamed = (
        socket.socket(type=socket.SOCK_DGRAM),
        socket.socket(),
        socket.socket(socket.AF_UNIX),
    )
    packet = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
    with open(tmp_path / "file", "w") as file:
        for given, reason in (
            (file, "the descriptor is no socket"),
            (datagram, "it is no stream socket"),
            (unbound, "it is not bound to an address"),
            (unnamed, "it is not bound to an address"),
            (client, "it is a connection, not a listening socket"),
            (left, "it is a connection, not a listening socket"),
            (packet, "it is neither a TCP nor a unix socket"),
        ):
            fd = given.fileno()
            assert refusal(f"fd://{fd}") == f"cannot listen on fd://{fd}: {reason}"
            os.fstat(fd)
    for sock in (server, client, left, right, datagram, unbound, unnamed, packet):
        sock.close()


def test_a_descriptor_that_is_not_open() -> None:
    assert refusal("fd://987") == "cannot listen on fd://987: the descriptor is not open in this process"


ACTIVATED = """
import os, sys
from mooring.system.address import parse_bind
from mooring.errors import BindError
from mooring.system.listeners import open_listeners
environ = dict(zip(("LISTEN_FDS", "LISTEN_FDNAMES"), sys.argv[1:]), LISTEN_PID=str(os.getpid()))
try:
    found = open_listeners(parse_bind("systemd"), backlog=5, unix_mode=0o666, environ=environ)
    print([listener.url(False) for listener in found], [listener.owned_path for listener in found])
except BindError as error:
    print(error)
"""


def activated(*given: socket.socket, count: str, names: str = "") -> str:
    """What a process says that systemd would have started with these sockets, from descriptor 3 on."""
    lifted = [fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD, 100) for sock in given]
    script = " ".join(["exec", '"$@"', *(f"{3 + i}>&{fd}" for i, fd in enumerate(lifted))])
    command = ["bash", "-c", script, "x", sys.executable, "-c", ACTIVATED, count, names]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, pass_fds=lifted, timeout=30, check=False
    )
    for fd in lifted:
        os.close(fd)
    return done.stdout.strip()


def test_every_socket_that_systemd_hands_over(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.socket(socket.AF_UNIX) as second:
        second.bind(str(tmp_path / "s"))
        second.listen()
        port = first.getsockname()[1]
        said = activated(first, second, count="2", names="http")
    assert said == f"['http://127.0.0.1:{port}', 'unix:{tmp_path}/s'] [None, None]"


def test_a_socket_from_systemd_that_cannot_listen_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.socket(type=socket.SOCK_DGRAM) as second:
        said = activated(first, second, count="2", names="http:log")
    assert said == "cannot listen on systemd socket log (descriptor 4): it is no stream socket"


@pytest.mark.parametrize("environ", [{}, {"LISTEN_FDS": "0"}, {"LISTEN_FDS": "x"}, {"LISTEN_FDS": "-1"}])
def test_nothing_handed_over(environ: dict[str, str], listen: Opener) -> None:
    with pytest.raises(BindError) as caught:
        listen("systemd", environ=environ)
    assert str(caught.value) == (
        "cannot listen on systemd: it handed over no socket (LISTEN_FDS); start mooring by a .socket unit"
    )


@pytest.mark.parametrize(("pid", "shown"), [("1", "1"), ("", "(LISTEN_PID is not set)")])
def test_sockets_for_another_process(pid: str, shown: str, listen: Opener) -> None:
    with pytest.raises(BindError) as caught:
        listen("systemd", environ={"LISTEN_FDS": "1", "LISTEN_PID": pid})
    assert str(caught.value) == (
        f"cannot listen on systemd: the sockets are for process {shown}, and this is {os.getpid()}; "
        "let the unit start mooring itself, without a shell in between"
    )
