"""MOORING_USER: root binds, an unprivileged user imports and serves (architecture.md, "Dropping root")."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from harness import ASGI_APP, COMMAND, eventually, pids_marked
from processes import descriptors, field, mapped, resident_mib, state
from variants import APPS

import mooring as mooring_package

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv(1)"
)
NOBODY = pwd.getpwnam("nobody")
AS_NOBODY = ["setpriv", "--reuid", str(NOBODY.pw_uid), "--regid", str(NOBODY.pw_gid), "--clear-groups"]
IDS = "import os, sys\nprint('as', os.getuid(), os.geteuid(), os.getgid(), file=sys.stderr, flush=True)\n"


def _only_roots() -> bool:
    folders = [Path(sys.base_prefix), *Path(sys.base_prefix).parents]
    return not all(folder.stat().st_mode & 0o001 for folder in folders)


def _starts(python: Path, environ: dict[str, str]) -> bool:
    look = [*AS_NOBODY, str(python), "-c", "import os, uvicorn; os.listdir(os.path.dirname(os.__file__))"]
    if not python.exists():
        return False
    return subprocess.run(look, env=environ, capture_output=True, check=False).returncode == 0


@pytest.fixture(autouse=True)
def readable_python(mooring):
    """Start mooring by a Python that every user may read; one below /root is not."""
    if not _only_roots():
        return
    system = Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
    path = os.pathsep.join([str(Path(mooring_package.__file__).parent.parent), sysconfig.get_path("purelib")])
    if not _starts(system, {"PYTHONPATH": path}):
        pytest.skip("no Python that every user may read")
    mooring.command = ["env", f"PYTHONPATH={path}", str(system), "-m", "mooring"]


def privileged_port() -> int:
    """A port below 1024 nobody has."""
    for port in range(1023, 600, -1):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    pytest.skip("no free port below 1024")


def test_a_python_that_the_user_may_not_read_is_named(mooring):
    if not _only_roots():
        pytest.skip("this Python is for every user")
    mooring.command = COMMAND
    app = mooring.start("run", files={"main.py": ASGI_APP}, MOORING_USER="nobody")
    assert app.wait_exit() == 2
    assert "MOORING_USER: nobody may not read" in app.last_line


def test_the_application_is_imported_and_run_as_the_user(mooring):
    port = privileged_port()
    app = mooring.run(files={"main.py": IDS + ASGI_APP}, workers=2, PORT=port, MOORING_USER="nobody")
    assert app.port == port
    uid, gid = NOBODY.pw_uid, NOBODY.pw_gid
    app.wait_log(f"as {uid} {uid} {gid}", count=2)
    who = app.get("/who").json()
    assert (who["uid"], who["gid"], who["groups"]) == (uid, gid, sorted(os.getgrouplist("nobody", gid)))
    assert (who["home"], who["user"]) == (NOBODY.pw_dir, "nobody")
    assert who["cwd"] == str(app.folder)
    for pid in app.ready():
        assert field(pid, "Uid").split() == [str(uid)] * 4
        assert field(pid, "Gid").split() == [str(gid)] * 4
        assert field(pid, "NoNewPrivs") == "1"
        assert int(field(pid, "CapEff"), 16) == int(field(pid, "CapPrm"), 16) == 0
    assert field(app.pid, "Uid").split() == ["0"] * 4
    assert app.status()["workers"][0]["memory_bytes"] > 2**20  # it may still measure itself
    app.signal(signal.SIGHUP)
    app.wait_log("rolled: generation 2")
    assert app.get("/who").json()["uid"] == uid
    assert app.stop() == 0
    assert app.leftovers == []


def test_a_template_is_that_user_too(mooring):
    files = {"main.py": IDS + ASGI_APP}
    app = mooring.run(files=files, workers=2, MOORING_USER="nobody", MOORING_PRELOAD="refuse")
    uid = NOBODY.pw_uid
    (template,) = app.status()["templates"]
    for pid in (template["pid"], *app.ready()):
        assert field(pid, "Uid").split() == [str(uid)] * 4
        assert field(pid, "NoNewPrivs") == "1"
    assert app.stderr.count(f"as {uid} {uid} ") == 1
    assert app.get("/who").json()["uid"] == uid
    assert app.status()["workers"][0]["memory_bytes"] > 2**20
    os.kill(app.ready()[0], signal.SIGKILL)
    app.wait_log("exited while ready")
    app.wait_ready(2)
    app.signal(signal.SIGKILL)
    app.process.wait()
    eventually(lambda: not pids_marked(app.mark), "nobody left", timeout=2)


@pytest.mark.parametrize("preload", ["off", "warn"])
def test_children_of_that_user_die_with_the_supervisor(mooring, preload):
    """A change of user clears what PR_SET_PDEATHSIG has set, and forbids to open root's descriptors."""
    kinds = ("program", "stubborn program in its own session", "process in a thread")
    files = {each.name: each.read_text() for each in (APPS / "children").glob("*.py")}
    app = mooring.run(
        "children_asgi:app", files=files, workers=1, MOORING_USER="nobody", MOORING_PRELOAD=preload
    )
    worker = app.get("/pid").json()
    pids = [app.get("/" + kind.replace(" ", "%20")).json() for kind in kinds]
    assert [field(pid, "Uid").split() for pid in pids] == [[str(NOBODY.pw_uid)] * 4] * 3

    def tied():  # to the pipe that ends with the supervisor: the worker's group, and the session of its child
        held, standard = list(descriptors(worker).values()), {descriptors(worker)[fd] for fd in (0, 1, 2)}
        pipes = {each for each in descriptors(app.pid).values() if each.startswith("pipe:")} - standard
        return any(held.count(each) == 2 for each in pipes)

    eventually(tied, "the ties")
    app.signal(signal.SIGKILL)
    app.process.wait()
    eventually(lambda: not pids_marked(app.mark), "nobody left")


def test_a_group_can_be_named_and_numbers_need_no_account(mooring):
    daemon = grp.getgrnam("daemon").gr_gid
    app = mooring.run(workers=1, MOORING_USER="nobody:daemon")
    assert app.get("/who").json()["gid"] == daemon
    app = mooring.run(workers=1, MOORING_USER="54321:54322")
    who = app.get("/who").json()
    assert (who["uid"], who["gid"], who["groups"], who["home"]) == (54321, 54322, [54322], "/")


def test_workers_of_another_user_die_with_the_supervisor_and_by_its_hand(mooring):
    app = mooring.run(workers=1, MOORING_USER="nobody", GRACEFUL_TIMEOUT=1)
    with app.connect() as held:
        held.sendall(b"GET /slow?s=600 HTTP/1.1\r\nhost: x\r\n\r\n")
        app.wait_log("in flight")
        app.signal(signal.SIGINT)
        app.signal(signal.SIGQUIT)
        assert app.wait_exit() == 0
    app = mooring.run(workers=1, MOORING_USER="nobody")
    (pid,) = app.ready()
    app.process.kill()
    app.process.wait()
    eventually(lambda: state(pid) == "", "the worker's end")


def test_the_logs_of_a_dropped_worker_reach_the_streams(mooring):
    app = mooring.run(workers=1, MOORING_USER="nobody", ERROR_LOG="/dev/stderr", ACCESS_LOG="/dev/stdout")
    app.get("/logged")
    assert app.wait_log("GET /logged") in app.stdout
    app.wait_log("Application startup complete")


def test_log_files_are_opened_as_root_and_kept(mooring):
    folder = mooring.base / "logs"
    folder.mkdir(mode=0o700)
    app = mooring.run(
        workers=1, MOORING_USER="nobody", ACCESS_LOG=folder / "access", ERROR_LOG=folder / "error"
    )
    app.get("/one")
    assert app.stop() == 0
    assert "GET /one" in (folder / "access").read_text()
    assert "Application startup complete" in (folder / "error").read_text()


REFUSED = [
    ("unknown", {"MOORING_USER": "nosuchuser"}, [], "there is no user 'nosuchuser'"),
    ("unknown group", {"MOORING_USER": "nobody:nosuchgroup"}, [], "there is no group 'nosuchgroup'"),
    ("no id", {"MOORING_USER": "99999999999"}, [], "is no user or group id"),
    ("not root", {"MOORING_USER": "daemon"}, AS_NOBODY, "only root can change user"),
    (
        "no capability",
        {"MOORING_USER": "nobody"},
        ["setpriv", "--bounding-set", "-setuid,-kill", "--inh-caps", "-all"],
        "the capability CAP_SETUID, CAP_KILL is missing",
    ),
]


@pytest.mark.parametrize(
    ("environ", "prefix", "text"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_what_cannot_be_is_refused_with_2_and_one_line(mooring, environ, prefix, text):
    runtime = {} if not prefix or prefix != AS_NOBODY else {"MOORING_RUNTIME_DIR": None}
    app = mooring.start("run", files={"main.py": ASGI_APP}, prefix=prefix, **environ, **runtime)
    assert app.wait_exit() == 2
    assert app.last_line.startswith("mooring: MOORING_USER=")
    assert text in app.last_line
    assert len(app.stderr.splitlines()) == 1
    assert app.leftovers == []


def test_the_user_that_it_is_already_is_no_change(mooring):
    app = mooring.start(
        "run", files={"main.py": ASGI_APP}, prefix=AS_NOBODY, MOORING_USER="nobody", MOORING_RUNTIME_DIR=None,
        MOORING_NAME="test-user",
    )  # fmt: skip
    app.wait_log("] serving")
    assert app.get("/who").json()["uid"] == NOBODY.pw_uid
    assert app.stop() == 0


def test_a_folder_that_the_user_may_not_enter_is_named(mooring):
    app = mooring.start("run", files={"main.py": ASGI_APP}, MOORING_USER="nobody")
    app.wait_log("] serving")
    app.stop()
    mooring.folder.chmod(0o700)
    app = mooring.start("run", MOORING_USER="nobody")
    assert app.wait_exit() in {2, 3}
    assert str(mooring.folder) in app.last_line
    assert "Permission denied" in app.last_line


def test_a_key_that_only_root_may_read_serves(mooring, tmp_path):
    certificate, key = _self_signed(tmp_path)
    app = mooring.run(
        workers=1, MOORING_USER="nobody", MOORING_TLS_CERTIFICATE=certificate, MOORING_TLS_KEY=key
    )
    context = ssl.create_default_context(cafile=certificate)
    for generation in (1, 2):
        with context.wrap_socket(app.connect(), server_hostname="localhost") as sock:
            sock.sendall(b"GET /who HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert f'"uid": {NOBODY.pw_uid}'.encode() in sock.recv(65536) + sock.recv(65536)
        if generation == 1:
            app.signal(signal.SIGHUP)
            app.wait_log("rolled: generation 2")
    assert not any("_ssl" in name for name in mapped(app.pid))
    assert resident_mib(app.pid) < 25
    Path(key).write_text("no key")
    app.signal(signal.SIGHUP)
    assert key in app.wait_log("roll refused")


def _self_signed(folder):
    """Paths of a certificate for localhost and its key, mode 0600."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(secret)
    (folder / "key.pem").chmod(0o600)
    folder.chmod(0o700)
    return str(folder / "cert.pem"), str(folder / "key.pem")


def test_an_access_log_that_only_root_may_write_is_written_and_reopened(mooring):
    """By the log writer, which stays root; the worker has a ring only."""
    folder = mooring.base / "logs"
    folder.mkdir(mode=0o700)
    path = folder / "access"
    app = mooring.run(workers=1, ACCESS_LOG=path, MOORING_USER="nobody")
    app.get("/first")
    eventually(lambda: "GET /first" in path.read_text(), "the line")
    path.rename(folder / "access.1")
    app.signal(signal.SIGUSR1)
    app.wait_log("log files are open anew")
    app.get("/second")
    eventually(lambda: path.exists() and "GET /second" in path.read_text(), "the line")
    assert field(app.ready()[0], "Uid").split()[0] == str(NOBODY.pw_uid)
    assert app.stop() == 0
