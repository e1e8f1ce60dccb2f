"""What benchmarks/hostile.py attacks: servers bare and with their defaults, and mooring on each engine.

One worker each. What is set besides the application and the address is what serving it takes: an interface, a
worker class (and 8 threads where gunicorn has threads at all, which are mooring's own number for one core).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

APPS = Path(__file__).parent / "apps"
BIN = Path(sys.executable).parent
PATIENCE = 60.0  # seconds, for a start on a busy machine


class Server(NamedTuple):
    """`command` and `tls` have places such as {port} and {key}; `speaks` names http, ws, h2, tls."""

    command: str
    speaks: str
    tls: str = ""
    environ: str = ""


class Target(NamedTuple):
    """A server that runs: where it is attacked, and where it is asked meanwhile."""

    pid: int
    attacked: int
    asked: int
    tls: bool


_TLS = " --certfile {certificate} --keyfile {key}"
_GRANIAN = "granian --port {port} --interface "
_GRANIAN_TLS = " --ssl-certificate {certificate} --ssl-keyfile {key}"
_MOORING = "mooring run hostile_app:{interface} --port {{port}}"
_MOORING_TLS = " --tls-certificate {certificate} --tls-key {key}"


def _mooring(interface: str, speaks: str, environ: str) -> Server:
    command = _MOORING.format(interface=interface)
    return Server(command, speaks, _MOORING_TLS, f"WEB_CONCURRENCY=1 {environ}")


SERVERS = {
    "nginx": Server("nginx -c {folder}/nginx.conf -p {folder}", "http h2 tls"),
    "Puma": Server("puma -b tcp://127.0.0.1:{port} hostile.ru", "http tls", "puma hostile.ru -b {ssl}"),
    "uvicorn": Server(
        "uvicorn hostile_app:asgi --port {port}",
        "http ws tls",
        " --ssl-certfile {certificate} --ssl-keyfile {key}",
    ),
    "granian, ASGI": Server(f"{_GRANIAN}asgi hostile_app:asgi", "http ws h2 tls", _GRANIAN_TLS),
    "granian, WSGI": Server(f"{_GRANIAN}wsgi hostile_app:wsgi", "http h2 tls", _GRANIAN_TLS),
    "hypercorn": Server("hypercorn hostile_app:asgi --bind 127.0.0.1:{port}", "http ws h2 tls", _TLS),
    "gunicorn, gthread": Server(
        "gunicorn hostile_app:wsgi --bind 127.0.0.1:{port} --threads 8", "http tls", _TLS
    ),
    "gunicorn, UvicornWorker": Server(
        "gunicorn hostile_app:asgi --bind 127.0.0.1:{port} -k uvicorn_worker.UvicornWorker",
        "http ws tls",
        _TLS,
    ),
    "mooring, uvicorn": _mooring("asgi", "http ws tls", "MOORING_ENGINE=uvicorn"),
    "mooring, granian ASGI": _mooring("asgi", "http ws h2 tls", "MOORING_ENGINE=granian"),
    "mooring, granian WSGI": _mooring("wsgi", "http h2 tls", "MOORING_ENGINE=granian"),
    "mooring, hypercorn": _mooring("asgi", "http ws h2 tls", "MOORING_ENGINE=hypercorn"),
    "mooring, gunicorn gthread": _mooring(
        "wsgi", "http tls", "MOORING_ENGINE=gunicorn WORKER_CLASS=gthread MOORING_THREADS=8"
    ),
    "mooring, gunicorn UvicornWorker": _mooring(
        "asgi", "http ws tls", "MOORING_ENGINE=gunicorn WORKER_CLASS=uvicorn_worker.UvicornWorker"
    ),
}

# What nginx needs to be told; a body goes to an upstream, so that nginx reads it. By default it has 512
# connections a worker.
_NGINX = """
daemon off; master_process on; worker_processes 1; error_log {folder}/error.log; pid {folder}/pid;
events {{ }}
http {{
  access_log {folder}/access.log; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/1; uwsgi_temp_path {folder}/2; scgi_temp_path {folder}/3;
  server {{
    listen 127.0.0.1:{port}; listen 127.0.0.1:{h2} http2; listen 127.0.0.1:{secure} ssl http2;
    ssl_certificate {certificate}; ssl_certificate_key {key};
    location = /large {{ root {folder}; }}
    location = /body {{ proxy_pass http://unix:{folder}/up; }}
    location / {{ return 200 "ok"; }}
  }}
  server {{ listen unix:{folder}/up; location / {{ return 200 "ok"; }} }}
}}
"""


def free_ports(number: int) -> list[int]:
    """Ports that the kernel says are free."""
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports


def make_certificate(certificate: Path, key: Path) -> None:
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    files = ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)


def _executable(name: str) -> str | None:
    found = BIN / name
    return str(found) if found.exists() else shutil.which(name)


def is_here(name: str) -> bool:
    """Whether the server is installed."""
    return _executable(SERVERS[name].command.split()[0]) is not None


@contextmanager
def running(name: str, kind: str, folder: Path) -> Iterator[Target]:
    """Run a server for an attack of a kind: http, ws, h2 or tls. Raises SystemExit if it does not answer."""
    server, (port, h2, secure) = SERVERS[name], free_ports(3)
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    if kind == "tls" or name == "nginx":
        make_certificate(certificate, key)
    places = {"port": port, "folder": folder, "certificate": certificate, "key": key}
    command = server.command
    if name == "nginx":
        (folder / "large").write_bytes(b"x" * 2**26)
        (folder / "nginx.conf").write_text(_NGINX.format(h2=h2, secure=secure, **places))
        folder.chmod(0o755)
    elif kind == "tls":
        places["ssl"] = f"ssl://127.0.0.1:{port}?cert={certificate}&key={key}"
        command = server.tls if "{ssl}" in server.tls else command + server.tls
    words = [word.format(**places) for word in command.split()]
    environ = {**os.environ, **dict(each.split("=", 1) for each in server.environ.split())}
    environ["MOORING_RUNTIME_DIR"] = str(folder)
    attacked = {"h2": h2, "tls": secure}.get(kind, port) if name == "nginx" else port
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [_executable(words[0]) or words[0], *words[1:]],
            cwd=APPS,
            env=environ,
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as process,
    ):
        try:
            target = Target(process.pid, attacked, port, kind == "tls" and name != "nginx")
            _wait(process, port)
            yield target
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)  # its own session: see above


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 5).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{process.args!r} does not answer") from None
            time.sleep(0.05)


def versions() -> dict[str, str]:
    """What is attacked."""
    python = ("uvicorn", "uvloop", "httptools", "websockets", "granian", "hypercorn", "h2", "gunicorn")
    found = {name: metadata.version(name) for name in (*python, "uvicorn-worker", "mooring")}
    for name, option in (("nginx", "-v"), ("puma", "--version"), ("ruby", "--version")):
        if path := _executable(name):
            said = subprocess.run([path, option], capture_output=True, text=True, check=False)
            words = (said.stdout + said.stderr).replace("/", " ").split()
            found[name] = next((word for word in words if word[0].isdigit()), "?")
    return found
