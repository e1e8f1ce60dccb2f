"""`mooring top`, in a terminal of its own and without one, on real instances under load."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import sys
import termios
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
from harness import ASGI_APP, PATIENCE, eventually

# Makes the terminal the controlling one, as a terminal's emulator does, and becomes the command.
RUN = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
LEFT = b"\x1b[?25h\x1b[?1049l"  # the cursor is shown, the screen from before is back


class Terminal:
    """`mooring top` in a terminal; `frames` are the screens it has painted, `raw` is all it has written."""

    def __init__(self, mooring, *args, size=(100, 40), **environ):
        self.master, slave = pty.openpty()
        self.resize(*size)
        self.modes = termios.tcgetattr(slave)
        self.raw = b""
        streams = {"stdin": slave, "stdout": slave, "stderr": slave}
        self.slave = slave
        self.top = mooring.start(
            "top", *args, prefix=[sys.executable, "-c", RUN], options=streams, **{"TERM": "xterm", **environ}
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        with suppress(OSError):
            while data := os.read(self.master, 65536):
                self.raw += data

    @property
    def frames(self):
        """Only whole ones, as text without colours; the terminal makes CR LF of each LF."""
        whole = self.raw.decode(errors="replace").split("\x1b[H")[1:]
        found = [frame.partition("\x1b[J")[0] for frame in whole if "\x1b[J" in frame]
        return [re.sub(r"\x1b\[[\d;]*[mK]", "", frame).split("\r\r\n") for frame in found]

    @property
    def screen(self):
        return "\n".join(self.frames[-1]) if self.frames else ""

    def wait(self, wanted):
        """The screen, once it shows a text or a pattern."""

        def look():
            assert self.top.process.poll() is None, self.raw
            screen = self.screen  # one look: the next may be of another frame
            return screen if pattern.search(screen) else None

        pattern = re.compile(re.escape(wanted)) if isinstance(wanted, str) else wanted
        try:
            return eventually(look, wanted)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.screen}") from None

    def type(self, keys):
        os.write(self.master, keys)

    def resize(self, width, height):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def wait_exit(self):
        """Its exit code; the terminal is as it was before."""
        code = self.top.wait_exit()
        eventually(lambda: LEFT in self.raw, "the terminal's old screen")
        assert self.raw.count(b"\x1b[?1049h") == 1
        assert b"\x1b[H" not in self.raw.partition(LEFT)[2]
        assert termios.tcgetattr(self.slave) == self.modes
        return code

    def close(self):
        os.close(self.slave)
        os.close(self.master)


@pytest.fixture
def top(mooring):
    started = []

    def start(*args, **more):
        started.append(Terminal(mooring, "--interval", "0.5", *args, **more))
        return started[-1]

    yield start
    for each in started:
        each.close()


def send(app, count, path="/", at_once=8):
    with ThreadPoolExecutor(at_once) as pool:
        return [reply.status for reply in pool.map(lambda _: app.get(path), range(count))]


def seconds(app, path):
    """How long a request took for its client."""
    began = time.monotonic()
    app.get(path)
    return time.monotonic() - began


@contextmanager
def in_flight(app, count, path):
    """So many requests that are being answered, each announced by the application."""
    before = app.stderr.count("in flight")
    pool = ThreadPoolExecutor(count)
    waiting = [pool.submit(app.get, path) for _ in range(count)]
    eventually(lambda: app.stderr.count("in flight") >= before + count, "requests in flight")
    yield
    for each in waiting:
        each.result()
    pool.shutdown()


def rates(frames):
    """Requests per second of all workers, for each frame that has a rate."""
    texts = [re.search(r"^([\d,.]+) req/s", "\n".join(frame), re.MULTILINE) for frame in frames]
    return [float(found[1].replace(",", "")) for found in texts if found]


def cells(screen, pid):
    """A worker's line."""
    return next(line.split() for line in screen.splitlines() if line.split()[1:2] == [str(pid)])


# -- what it shows -----------------------------------------------------------------------------------------


def test_rates_are_those_of_what_was_sent(mooring, top):
    app = mooring.run(workers=2)
    screen = top("--interval", "2")
    screen.wait("0 req/s")
    sent = 400
    assert send(app, sent) == [200] * sent

    def quiet():
        seen = rates(screen.frames)
        return seen[-1] == 0 and max(seen) > 0 and seen

    seen = eventually(quiet, "quiet again")
    assert sum(seen) * 2 == pytest.approx(sent, rel=0.15)  # an interval is 2 s and a bit


def test_latencies_of_the_last_interval_within_five_percent(mooring, top):
    app = mooring.run(workers=1)
    send(app, 200)  # fast ones, before it looks: they must not count
    screen = top("--interval", "2")
    screen.wait("req/s")
    with ThreadPoolExecutor(16) as pool:
        longest = 1000 * max(pool.map(lambda _: seconds(app, "/slow?s=0.3"), range(16)))
    found = re.search(r"p50 (\d+) ms +p99 (\d+) ms", screen.wait(re.compile(r"p99 [2-9]\d\d ms")))
    assert 285 <= int(found[1]) <= int(found[2]) <= 1.05 * longest


def test_errors_are_counted_for_their_worker(mooring, top):
    files = {"main.py": ASGI_APP.replace("status, body = 404", "status, body = 503")}
    app = mooring.run(files=files, workers=1)
    screen = top(size=(120, 40))
    screen.wait("0 5xx/s")
    send(app, 20, "/broken")
    shown = screen.wait(re.compile(r"[1-9][\d.]* 5xx/s"))
    assert float(cells(shown, app.ready()[0])[5]) > 0


def test_requests_in_flight_and_the_oldest_of_them(mooring, top):
    app = mooring.run(workers=1)
    screen = top()
    with in_flight(app, 3, "/slow?s=6&secret=1"):
        shown = screen.wait("3 in flight")
        shown = screen.wait(re.compile(r"s  pid \d+  GET /slow"))
        assert f"pid {app.ready()[0]}  GET /slow" in shown
        assert "secret" not in shown
    screen.wait("0 in flight")


def test_the_header_and_the_workers_are_those_of_status(mooring, top):
    app = mooring.run(workers=3)
    status = app.status()
    shown = top(size=(120, 40)).wait("0 req/s")
    assert shown.startswith("main:app  serving, ready")
    assert "uvicorn serves ASGI, generation 1, up " in shown
    assert f"pid {app.pid}, mooring {status['version']}" in shown
    assert "3 workers: env:WEB_CONCURRENCY" in shown
    assert f"at {app.urls[0]}" in shown
    for row in status["workers"]:
        line = cells(shown, row["pid"])
        assert line[:4] == [str(row["slot"]), str(row["pid"]), "ready", "1"]
        assert line[-1] == "0"
        assert re.search(r"\d MiB", " ".join(line))


def test_a_worker_that_is_killed_is_a_restart_and_an_exit(mooring, top):
    app = mooring.run(workers=1)
    screen = top(size=(120, 40))
    screen.wait("req/s")
    before = app.ready()[0]
    os.kill(before, signal.SIGKILL)
    app.wait_status(lambda s: s["workers"] and s["workers"][0]["pid"] not in (None, before))
    shown = screen.wait(re.compile(r"\d\d:\d\d:\d\d  slot 0, ready: .*(9|KILL)"))
    screen.wait(re.compile(rf"^ +0 +{app.wait_ready(1)[0]} +ready .* 1$", re.MULTILINE))
    assert "last exits" in shown


def test_a_roll_is_seen_and_totals_go_on(mooring, top):
    app = mooring.run(workers=2)
    screen = top("--interval", "2")
    screen.wait("generation 1")
    before = len(screen.frames)
    send(app, 50)
    app.signal(signal.SIGHUP)
    app.wait_log("rolled: generation 2")
    shown = screen.wait(re.compile(r"last roll\n.*rolled: generation 2 serves"))
    assert "generation 2" in shown
    app.wait_ready(2)
    pids = app.ready()
    shown = screen.wait(re.compile(rf"{pids[0]} +ready +2 [^$]*{pids[1]} +ready +2 "))
    send(app, 50)
    eventually(lambda: sum(rates(screen.frames[before:])) * 2 > 80, "both bursts")
    assert sum(rates(screen.frames)) * 2 < 120


def test_a_supervisor_that_does_not_answer_is_told_and_waited_for(mooring, top):
    app = mooring.run(workers=1)
    screen = top()
    screen.wait("serving, ready")
    app.signal(signal.SIGSTOP)
    try:
        screen.wait(re.compile(r"no answer for \d+ s"))
    finally:
        app.signal(signal.SIGCONT)
    screen.wait("serving, ready")
    screen.type(b"q")
    assert screen.wait_exit() == 0


# -- the terminal ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"q", b"\x03", signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_every_way_out_restores_the_terminal(mooring, top, end):
    mooring.run(workers=1)
    screen = top()
    screen.wait("req/s")
    if isinstance(end, bytes):
        screen.type(end)
    else:
        screen.top.signal(end)
    assert screen.wait_exit() == 0


def test_the_end_of_the_instance_is_told(mooring, top):
    app = mooring.run(workers=1)
    screen = top()
    screen.wait("req/s")
    assert app.stop() == 0
    assert screen.wait_exit() == 1
    assert re.search(rb"mooring: instance \S+ has ended", screen.raw.partition(LEFT)[2])


def test_it_follows_the_terminals_size(mooring, top):
    mooring.run(workers=2)
    screen = top("--interval", "60", size=(120, 40))  # not only with the next answer
    assert "RESTARTS" in screen.wait("req/s")
    screen.resize(60, 14)
    eventually(lambda: "RESTARTS" not in screen.screen, "fewer columns")
    assert all(len(line) <= 60 for line in screen.frames[-1])
    assert len(screen.frames[-1]) <= 14
    screen.resize(120, 40)
    screen.wait("RESTARTS")


def test_suspended_it_gives_the_terminal_back(mooring, top):
    mooring.run(workers=1)
    screen = top()
    screen.wait("req/s")
    screen.type(b"\x1a")
    eventually(lambda: _state(screen.top.pid) == "T", "a stopped process")
    eventually(lambda: LEFT in screen.raw, "the terminal's old screen")
    assert termios.tcgetattr(screen.slave) == screen.modes
    before = len(screen.frames)
    screen.top.signal(signal.SIGCONT)
    eventually(lambda: len(screen.frames) > before + 1, "new frames")
    screen.type(b"q")
    assert screen.top.wait_exit() == 0
    assert termios.tcgetattr(screen.slave) == screen.modes


def _state(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_colours_only_where_wanted(mooring, top):
    mooring.run(workers=1)
    plain, coloured = top(NO_COLOR="1"), top()
    for screen in (plain, coloured):
        screen.wait("ready")
    assert re.search(rb"\x1b\[[\d;]*3\d", coloured.raw)
    assert not re.search(rb"\x1b\[[\d;]*[34]\dm", plain.raw)


def test_a_terminal_without_utf8_gets_none(mooring, top):
    app = mooring.run(workers=1)
    screen = top(LANG="C", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    screen.wait("req/s")
    send(app, 5)
    screen.wait(re.compile(r"p50 [\d.]+ [um]s"))
    assert screen.raw.isascii()


# -- without a terminal ------------------------------------------------------------------------------------


def test_piped_it_is_one_plain_snapshot_with_rates(mooring):
    app = mooring.run(workers=1)
    done = mooring.start("top", "--interval", "2")
    stop = threading.Event()
    sent = []

    def load():
        while not stop.is_set():
            sent.append((time.monotonic(), app.get("/").status))

    thread = threading.Thread(target=load)
    thread.start()
    code = done.wait_exit()
    stop.set()
    thread.join()
    assert code == 0
    assert "\x1b" not in done.stdout
    rate = float(re.search(r"^([\d,.]+) req/s", done.stdout, re.MULTILINE)[1].replace(",", ""))
    # the interval is the last two seconds, but for the time of an exit
    end = sent[-1][0]
    assert rate == pytest.approx(sum(at > end - 2.2 for at, _ in sent) / 2.2, rel=0.3)
    assert cells(done.stdout, app.ready()[0])[:3] == ["0", str(app.ready()[0]), "ready"]


def test_once_is_plain_in_a_terminal_too(mooring, top):
    mooring.run(workers=1)
    screen = top("--once")
    assert screen.top.wait_exit() == 0
    eventually(lambda: b"RESTARTS" in screen.raw, "the snapshot")
    assert b"\x1b" not in screen.raw


def test_without_an_instance_it_says_so(mooring):
    done = mooring.start("top")
    assert done.wait_exit() == 2
    assert "no instance is running here; start one with: mooring run" in done.last_line


def test_of_several_instances_it_shows_the_named_one(mooring):
    mooring.run("--name", "one", workers=1)
    mooring.run("--name", "two", workers=1)
    refused = mooring.start("top")
    assert refused.wait_exit() == 2
    assert "one, two" in refused.last_line
    shown = mooring.start("top", "--name", "two", "--interval", "0.2")
    assert shown.wait_exit() == 0
    assert ", two, " in shown.stdout


@pytest.mark.parametrize("value", ["0", "-1", "soon", "nan", "inf"])
def test_an_interval_that_is_none(mooring, value):
    done = mooring.start("top", "--interval", value)
    assert done.wait_exit() == 2
    assert "--interval" in done.stderr


@pytest.fixture
def strange(mooring):
    """An instance of another version: its second answer lacks what this one needs."""
    folder = mooring.runtime / "strange"
    folder.mkdir(parents=True, mode=0o700)
    answers = iter([{"version": "9", "pid": 1, "now": 1.0}] + [{"version": "9"}] * 99)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "control.sock"))
        listener.listen()

        def serve():
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        if connection.recv(4096):  # not a look whether somebody listens
                            body = json.dumps(next(answers)).encode()
                            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + body)

        threading.Thread(target=serve, daemon=True).start()
        yield
        listener.shutdown(socket.SHUT_RDWR)


def test_another_version_is_one_line_and_the_terminal_is_restored(mooring, top, strange):
    screen = top()
    code = screen.top.wait_exit(PATIENCE)
    eventually(lambda: b"runs another version of mooring" in screen.raw, "the reason")
    assert code == 2
    assert b"Traceback" not in screen.raw
    assert termios.tcgetattr(screen.slave) == screen.modes
