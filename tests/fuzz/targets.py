"""What parses foreign bytes, each as a function of bytes, which raises where a promise does not hold.

An input has several texts, with NUL bytes between them. `TARGETS` has them by name; corpus/NAME are inputs to
start from, and those that have found something. Not for making inputs: parsers.py.
"""

from __future__ import annotations

import asyncio
import errno
import math
import re

from uvicorn.config import Config
from uvicorn.server import ServerState

from mooring.admin import answers
from mooring.engines.uvicorn.httptools import LimitedHttpToolsProtocol
from mooring.errors import ConfigurationError
from mooring.instrument.proxy import asgi_proxy, wsgi_proxy
from mooring.logs.access import rules
from mooring.logs.access.line import NAMES, formatter
from mooring.logs.access.parts import LONGEST
from mooring.logs.escape import (
    AGENT_LIMIT,
    TARGET_LIMIT,
    host_field,
    kept_agent_field,
    latin_field,
    method_field,
    target_field,
)
from mooring.metrics.multiprocess import files, merge, text
from mooring.resources import usage
from mooring.resources.reader import read
from mooring.settings.trusted import parse_trusted


def _texts(data: bytes, count: int) -> list[bytes]:
    found = data.split(b"\0", count - 1)
    return found + [b""] * (count - len(found))


# -- a request's head, on uvicorn --------------------------------------------------------------------------


class _Transport:
    def __init__(self) -> None:
        self.written, self.closed = b"", False

    def get_extra_info(self, name, default=None):
        return {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)}.get(name, default)

    def write(self, data) -> None:
        assert not self.closed, "written after it was closed"
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def set_protocol(self, _protocol) -> None:
        """What comes after a refusal is dropped by another protocol."""
        self.closed = True

    def pause_reading(self) -> None:
        pass

    resume_reading = write_eof = pause_reading


class _Timer:
    def cancel(self) -> None:
        pass


class _Loop:
    def create_task(self, coroutine, **_how):
        coroutine.close()
        return self

    def add_done_callback(self, _call) -> None:
        pass

    def time(self) -> float:
        return 0.0

    def call_later(self, *_what):
        return _Timer()


async def _application(_scope, _receive, _send) -> None:
    pass


_config = Config(_application, log_config=None, access_log=False, ws="none", lifespan="off")
_config.load()


def head(data: bytes) -> None:
    """Pieces of a connection's bytes: a text `*NUMBER` repeats the piece before it."""
    loop, transport = _Loop(), _Transport()
    asyncio._set_running_loop(loop)
    protocol = LimitedHttpToolsProtocol(_config, ServerState(), {}, _loop=loop)
    protocol.connection_made(transport)
    pieces = data.split(b"\0")
    for piece, then in zip(pieces, [*pieces[1:], b""], strict=True):
        if piece.startswith(b"*"):
            continue
        times = int(then[1:4]) if then.startswith(b"*") and re.fullmatch(rb"[0-9]+", then[1:4]) else 1
        for _ in range(times):
            if transport.closed or protocol.refusal is not None:
                break
            protocol.data_received(piece)
            kept = 0 if transport.closed or protocol.refusal is not None else protocol.unfinished
            assert kept <= protocol.max_head, "a head is larger than its limit"
            protocol.mark()
    assert not transport.written or transport.written.startswith(b"HTTP/1.1 4"), transport.written
    if not transport.closed:
        protocol.connection_lost(None)
    asyncio._set_running_loop(None)


# -- a proxy's headers -------------------------------------------------------------------------------------

_TRUSTED = [
    parse_trusted(items)
    for items in (["127.0.0.1", "10.0.0.0/8", "unix"], ["*"], ["::1", "fc00::/7", "127.0.0.1"], ["unix:"])
]


def forwarded(data: bytes) -> None:
    """The peer, X-Forwarded-For, X-Forwarded-Proto: ASGI and WSGI come to the same, and to an address."""
    peer, hops, proto = _texts(data, 3)
    host = peer.decode("latin-1")
    for trusted in _TRUSTED:
        environ = {
            "wsgi.url_scheme": "http",
            **({"REMOTE_ADDR": host} if host else {}),
            "HTTP_X_FORWARDED_FOR": hops.decode("latin-1"),
            "HTTP_X_FORWARDED_PROTO": proto.decode("latin-1"),
        }
        scope = {
            "type": "http",
            "scheme": "http",
            "client": (host, 7) if host else None,
            "headers": [(b"x-forwarded-for", hops), (b"x-forwarded-proto", proto)],
        }
        before = scope["client"]
        asgi_proxy(trusted, unix=True)(scope)
        wsgi_proxy(trusted, unix=True)(environ)
        assert scope["scheme"] == environ["wsgi.url_scheme"] in ("http", "https")
        if scope["client"] == before:
            assert environ.get("REMOTE_ADDR", "") == host
            continue
        found, port = scope["client"]
        assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == (found, str(port))
        assert re.fullmatch(r"[0-9A-Za-z._:%-]{1,253}", found)
        assert 0 <= port <= 65535


def trusted(data: bytes) -> None:
    """FORWARDED_ALLOW_IPS."""
    items, host = _texts(data, 2)
    try:
        found = parse_trusted(items.decode("utf-8", "surrogateescape").split(","))
    except ValueError:
        return
    found.believes(host.decode("latin-1"))


# -- the access log ----------------------------------------------------------------------------------------


def _entry(values: list[bytes], kind: int):
    """An entry whose texts come from `values`, as ASGI's or WSGI's describer makes it."""
    first, second, third = values
    latin = second.decode("latin-1")
    headers = [(b"user-agent", second), (b"authorization", third), (b"x-y", first), (b"cookie", second)]
    scope = {
        "type": "http",
        "method": latin,
        "path": latin,
        "headers": headers,
        "client": (latin, 5),
        "scheme": latin,
    }
    environ = {"HTTP_USER_AGENT": latin, "HTTP_AUTHORIZATION": third.decode("latin-1"), "HTTP_X_Y": latin}
    extra = [
        (scope, [(b"x-y", third), (b"content-length", second)]),
        (environ, [("X-Y", latin), ("Content-Length", latin)]),
        None,
    ][kind]
    return (
        host_field(latin),
        [5, None, host_field(third.decode("latin-1"))][kind],
        [method_field(latin), "GET", None][kind],
        [target_field(first), latin_field(latin, TARGET_LIMIT), target_field(third)][kind],
        *("1.1", [200, 101, 599][kind], [5, 0, None][kind], 0.25),
        kept_agent_field(second),
        latin_field(third.decode("latin-1"), AGENT_LIMIT),
        *("id", "0" * 32, extra),
    )


def access_form(data: bytes) -> None:
    """The text of a form, and three values of a client: each line is one line, of a pipe's length."""
    form, *values = _texts(data, 4)
    try:
        made = formatter(form.decode("utf-8", "replace"))
    except ConfigurationError:
        made = formatter(NAMES[len(form) % len(NAMES)])
    for kind in range(3):
        line = made.line(_entry(values, kind))
        assert line.endswith("\n"), line
        assert line[:-1].replace("\t", "").isprintable(), line
        assert len(line.encode("utf-8", "backslashreplace")) <= LONGEST, len(line)


def access_rules(data: bytes) -> None:
    """access_log_skip, access_log_sample, a path: ASGI's bytes and WSGI's text are treated alike."""
    skip, sample, path = _texts(data, 3)
    items = [tuple(filter(None, each.decode("utf-8", "replace").split(","))) for each in (skip, sample)]
    try:
        twice = [rules.parse(*items) for _ in range(2)]
    except ConfigurationError:
        return
    for status in (200, 304, 404, 500):
        found = [
            it is None or it.wanted(way, status)
            for it, way in zip(twice, (path, path.decode("latin-1")), strict=True)
        ]
        assert found[0] == found[1], (path, status)


# -- prometheus_client's files -----------------------------------------------------------------------------

_SAMPLE = re.compile(r'[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_][a-zA-Z0-9_]*="(\\[\\"n]|[^\\"\n])*",?)+\})? \S+')
_FILES = (
    "counter_1.db",
    "histogram_2.db",
    "gauge_all_3.db",
    "gauge_mostrecent_folded.db",
    "gauge_livemin_5.db",
)


def prometheus(data: bytes) -> None:
    """A file's bytes, as two processes' of each kind: the page is in Prometheus' format, each sample once."""
    try:
        content = files.parse(data)
    except ValueError:
        return
    again = files.parse(files.encode(content.entries, content.width, content.within))
    assert repr(again.entries) == repr(content.entries)
    found = [files.identify(name) for name in _FILES]
    page = text.page(merge.gather(merge.shown(dict.fromkeys(found, content)))).decode()
    names = []
    for line in page.split("\n"):
        if line and not line.startswith("#"):
            assert _SAMPLE.fullmatch(line), line
            names.append(line.rpartition(" ")[0])
    assert len(set(names)) == len(names), "a sample twice"
    for kind in files.KINDS:
        pairs = [(value, extra) for _, value, extra in content.entries]
        if pairs:
            merge.parts(kind, pairs)


def prometheus_name(data: bytes) -> None:
    """A file's name."""
    name = data.decode("utf-8", "surrogateescape")
    found = files.identify(name)
    if found is not None:
        assert found.kind in files.KINDS
        assert found.pid


# -- the kernel's files ------------------------------------------------------------------------------------


class _Tree:
    """A folder in memory, as far as resources/cgroups.py uses one."""

    def __init__(self, content, name: str = "") -> None:
        self.content, self.name = content, name

    def __truediv__(self, name: str):
        return _Tree(self.content, "/" + name)

    def read_bytes(self) -> bytes:
        if self.name not in self.content:
            raise OSError(errno.ENOENT, "no such file", self.name)
        return self.content[self.name]

    def is_dir(self) -> bool:
        return self.name == "" or any(name.startswith(self.name.rstrip("/") + "/") for name in self.content)


_CGROUP = ("cpu.max", "memory.max", "memory.high", "cpuset.cpus.effective", "cpu.stat", "memory.events")
_OLD = (
    "cpu.cfs_quota_us",
    "memory.limit_in_bytes",
    "memory.stat",
    "cpuset.effective_cpus",
    "cpu.stat",
    "memory.oom_control",
)


def cgroups(data: bytes) -> None:
    """/proc/self/cgroup, mountinfo, meminfo, online CPUs, and six files of a cgroup: nothing raises."""
    membership, mounts, memory, online, *values = _texts(data, 10)
    content = {
        "/proc/self/cgroup": membership,
        "/proc/self/mountinfo": mounts,
        "/proc/meminfo": memory,
        "/sys/devices/system/cpu/online": online,
    }
    for folder in ("/sys/fs/cgroup", "/sys/fs/cgroup/a", "/sys/fs/cgroup/cpu"):
        for names in (_CGROUP, _OLD):
            content |= {f"{folder}/{name}": value for name, value in zip(names, values, strict=True) if value}
    root = _Tree(content)
    found = read(root, environ={}, affinity={0, 1})
    assert found.cpus.value is not None
    assert found.cpus.value > 0
    for each in (found.cpu_quota, found.cpuset, found.memory_limit, found.host_memory):
        assert each.value is None or (math.isfinite(each.value) and each.value >= 0), each
    for warning in found.warnings:
        assert len(warning) < 4000 + len(data)
    for ask in (usage.cpu_throttled_seconds, usage.memory_current, usage.oom_kills):
        value = ask(root)
        assert value is None or value >= 0


# -- the admin endpoint ------------------------------------------------------------------------------------


def admin(data: bytes) -> None:
    """A request's head: None, or texts; the path has no query, and no text has a line's end."""
    found = answers.parse(data)
    if found is None:
        return
    assert all(isinstance(each, str) for each in found)
    assert "?" not in found[1]
    assert not any("\r\n" in each for each in found)
    answers.Answer(404, f"no {found[1]}").encode(head_only=found[0] == "HEAD")


TARGETS = {
    each.__name__: each
    for each in (
        head,
        forwarded,
        trusted,
        access_form,
        access_rules,
        prometheus,
        prometheus_name,
        cgroups,
        admin,
    )
}
