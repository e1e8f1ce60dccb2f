"""The access log in real processes: every answered request has its line, and nobody waits for its reader."""

from __future__ import annotations

import os
import re
import resource
import select
import signal
import subprocess
import threading
import time
from time import monotonic

import pytest
from counters import closing, metric, numbered, requests
from harness import ASGI_APP, WSGI_APP, eventually, pids_marked
from processes import children, log_writers, resident_mib, state

ROOT = os.geteuid() == 0
FORM = "uvicorn"
LINE = re.compile(r'127\.0\.0\.1(?::\d+)? - "GET (/\S*) HTTP/1\.1" (?:200|404)')
LOST = "access_log_dropped_lines_total"
STARTS_ANOTHER = "the access log's writer has ended"


def lines(text: str) -> list[str]:
    """The paths of a log's lines; each of them is whole."""
    found = [LINE.fullmatch(line) for line in text.splitlines()]
    assert all(found), [line for line in text.splitlines() if not LINE.fullmatch(line)][:3]
    return [match[1] for match in found if match]


@pytest.fixture
def logged(mooring):
    """mooring with an access log in a file; returns it and the file."""

    def start(**more):
        path = mooring.base / "access"
        settings = {"workers": 1, "ACCESS_LOG": path, "MOORING_ACCESS_LOG_FORMAT": FORM, **more}
        return mooring.run(**settings), path

    return start


@pytest.fixture
def piped(mooring):
    """mooring whose standard output is a pipe that nobody reads yet; returns it and the pipe's end."""

    def start(**more):
        read, write = os.pipe()
        settings = {"workers": 1, "MOORING_ACCESS_LOG_FORMAT": FORM, **more}
        app = mooring.run(options={"stdout": write}, **settings)
        os.close(write)
        return app, read

    return start


def has(path, wanted):
    """Whether the log has all of these paths."""
    return set(wanted) <= set(lines(path.read_text())) if path.exists() else False


# -- who writes it -----------------------------------------------------------------------------------------


def test_one_small_process_writes_it(logged):
    app, path = logged(workers=3)
    (writer,) = log_writers(app.pid)
    requests(app, numbered("a", 300))
    eventually(lambda: has(path, numbered("a", 300)), "all lines")
    assert resident_mib(writer) < 25
    assert app.stop() == 0
    assert app.leftovers == []
    assert lines(path.read_text()) == numbered("a", 300)


def test_without_an_access_log_there_is_none_and_counting_goes_on(mooring):
    app = mooring.run(workers=2, ACCESS_LOG="")
    assert sorted(children(app.pid)) == sorted(app.ready())
    requests(app, ["/"] * 5)
    assert metric(app, "http_requests_total", method="GET", status="2xx") == 5
    assert metric(app, LOST) == 0
    assert app.stop() == 0
    assert "GET /" not in app.stdout + app.stderr


def test_an_idle_log_writer_sleeps(logged):
    app, path = logged()
    requests(app, ["/a"])
    eventually(lambda: has(path, ["/a"]), "the line")
    (writer,) = log_writers(app.pid)

    def switches():
        with open(f"/proc/{writer}/status") as file:
            return int(next(line for line in file if line.startswith("voluntary")).split()[1])

    def rests():
        before = switches()
        time.sleep(1)  # what is measured is that nothing happens
        return switches() == before

    eventually(rests, "rest: it looks once more after the last line")


@pytest.mark.parametrize("engine", ["uvicorn", "granian", "hypercorn", "gunicorn"])
@pytest.mark.parametrize("source", [ASGI_APP, WSGI_APP], ids=["asgi", "wsgi"])
def test_every_engine_has_every_line(logged, mooring, engine, source):
    if engine == "uvicorn" and source is WSGI_APP:
        pytest.skip("uvicorn serves no WSGI")
    (mooring.folder / "main.py").write_text(source)
    app, path = logged(workers=2, MOORING_ENGINE=engine)
    wanted = [numbered(name, 100) for name in "abcd"]
    clients = [threading.Thread(target=requests, args=(app, paths)) for paths in wanted]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert app.stop() == 0
    assert sorted(lines(path.read_text())) == sorted(path for paths in wanted for path in paths)


def test_a_unix_peer_is_called_so(mooring):
    bind = f"unix:{mooring.base}/app.sock"
    app = mooring.run(workers=1, BIND=bind, MOORING_ACCESS_LOG_FORMAT=FORM)
    app.get("/a")
    assert app.wait_log("GET /a") == 'unix - "GET /a HTTP/1.1" 404'


# -- how late ----------------------------------------------------------------------------------------------


def test_a_line_is_there_soon_after_its_answer(logged):
    app, path = logged()
    late = []
    for number in range(40):
        requests(app, [f"/{number}"])
        began = monotonic()
        while f"GET /{number} " not in path.read_text():
            assert monotonic() - began < 5  # on a quiet machine it is milliseconds
        late.append(monotonic() - began)
        time.sleep(number % 5 * 0.03)
    print(f"lines were late by {max(late) * 1000:.1f} ms, median {sorted(late)[20] * 1000:.1f} ms")


def test_a_stop_writes_all(logged):
    app, path = logged(workers=2)
    wanted = numbered("a", 500)
    assert len(requests(app, wanted)) == 500
    app.process.send_signal(signal.SIGTERM)
    assert app.wait_exit() == 0
    assert lines(path.read_text()) == wanted


def test_a_roll_loses_no_line(logged):
    app, path = logged(workers=2)
    answered = []
    for generation in (2, 3, 4):
        paths = numbered(f"g{generation}", 100)
        # A worker that has begun to drain may take the connection: then its first answer is the last.
        answered += paths[: len(requests(app, paths))]
        if generation < 4:
            app.signal(signal.SIGHUP)
            app.wait_log(f"rolled: generation {generation} serves")
    app.stop()
    assert len(answered) > 100
    assert sorted(lines(path.read_text())) == sorted(answered)


# -- kills -------------------------------------------------------------------------------------------------


class Load:
    """Requests in a thread until `end`; `answered` are the paths that had a whole answer."""

    def __init__(self, app):
        self.app, self.answered, self.ended, self.number = app, [], False, 0
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.ended:
            try:
                requests(self.app, self._paths())
            except OSError:
                time.sleep(0.01)  # nobody listens at the moment

    def _paths(self):
        """The next path is asked for when the last one was answered."""
        last = None
        while not self.ended:
            if last is not None:
                self.answered.append(last)
            self.number += 1
            last = f"/load/{self.number}"
            yield last

    def reach(self, count):
        eventually(lambda: len(self.answered) >= count, f"{count} answers")

    def end(self):
        self.ended = True
        self.thread.join()


def test_killed_workers_have_lost_no_line(logged):
    app, path = logged(workers=1)
    load = Load(app)
    for number in range(1, 4):
        load.reach(len(load.answered) + 300)
        os.kill(app.ready()[0], signal.SIGKILL)
        app.wait_log("exited while ready", count=number)
        app.wait_ready(1)
    load.end()
    assert app.stop() == 0
    found = lines(path.read_text())
    assert set(load.answered) <= set(found)
    assert len(found) == len(set(found))
    assert len(found) - len(load.answered) <= 5  # written, and not answered any more


def test_killed_log_writers_have_lost_no_line_and_repeat_little(logged):
    app, path = logged(workers=2)
    load = Load(app)
    for number in range(1, 5):
        load.reach(len(load.answered) + 200)
        (writer,) = log_writers(app.pid)
        os.kill(writer, signal.SIGKILL)
        app.wait_log(f"{STARTS_ANOTHER} (killed by SIGKILL); starting another", count=number)
        eventually(lambda writer=writer: [pid for pid in log_writers(app.pid) if pid != writer], "another")
    load.end()
    eventually(lambda: has(path, load.answered), "the last lines")  # without another request to wake it
    found = lines(path.read_text())
    again = sum(map(len, path.read_text().splitlines(True))) - sum(
        len(line) for line in set(path.read_text().splitlines(True))
    )
    assert again <= 4 * 65536
    assert set(found) == {*load.answered, *found}
    assert app.stop() == 0


def test_what_stays_in_a_ring_when_its_log_writer_dies_is_written_by_the_next(logged):
    app, path = logged()
    (writer,) = log_writers(app.pid)
    os.kill(writer, signal.SIGSTOP)
    requests(app, numbered("a", 50))
    assert path.read_text() == ""
    os.kill(writer, signal.SIGKILL)
    eventually(lambda: has(path, numbered("a", 50)), "the lines")
    assert lines(path.read_text()) == numbered("a", 50)
    assert app.stop() == 0


def test_a_log_writer_that_is_killed_while_it_waits_for_its_reader_leaves_all_to_the_next(piped):
    """Which nobody wakes: there is no other request."""
    app, read = piped()
    with closing(read):
        wanted = numbered("a", 200, size=1500)
        requests(app, wanted)
        (writer,) = log_writers(app.pid)
        eventually(lambda: state(writer) == "S", "its waiting")
        os.kill(writer, signal.SIGKILL)
        app.wait_log(STARTS_ANOTHER)
        text = b""
        while b"/a/199/" not in text:
            assert select.select([read], [], [], 5)[0], "nothing more"
            text += os.read(read, 65536)
        assert list(dict.fromkeys(lines(text.decode()))) == wanted
        assert metric(app, LOST) == 0


def test_a_killed_supervisor_costs_no_line(logged):
    for number in range(3):
        app, path = logged(workers=2)
        before = path.read_text()
        load = Load(app)
        load.reach(300 + number)
        app.process.kill()
        app.process.wait()
        load.end()
        eventually(lambda app=app: not pids_marked(app.mark), "the end of all")
        found = lines(path.read_text()[len(before) :])
        assert set(load.answered) <= set(found)
        assert len(found) == len(set(found))


def test_a_log_writer_that_ends_at_once_again_and_again_is_put_off_and_loses_nothing(logged):
    app, file = logged()
    sent = numbered("a", 200)
    requests(app, sent)

    def kill():
        for pid in log_writers(app.pid):
            os.kill(pid, signal.SIGKILL)
        return "ends again and again" in app.stderr

    eventually(kill, "the putting off")
    assert app.stderr.count(STARTS_ANOTHER) <= 10
    more = numbered("b", 200)
    requests(app, more)
    eventually(lambda: log_writers(app.pid), "another try")
    assert app.stop() == 0
    logged_paths = file.read_text()
    assert all(f"GET {path} " in logged_paths for path in [*sent, *more])


# -- readers that don't read -------------------------------------------------------------------------------


def test_a_reader_that_stops_holds_no_request_and_costs_whole_lines(piped):
    app, read = piped()
    with closing(read):
        paths = numbered("a", 800, size=1500)
        requests(app, paths)  # more than pipe and ring hold
        took = requests(app, numbered("b", 200, size=1500))
        assert len(took) == 200
        print(f"requests took up to {max(took) * 1000:.1f} ms, median {sorted(took)[100] * 1000:.2f} ms")
        assert sorted(took)[100] < 0.5  # on a quiet machine it is milliseconds
        assert max(took) < 5
        lost = metric(app, LOST)
        assert lost >= 200
        app.wait_log(
            f"the access log has a reader that is too slow: lines are dropped, and counted in mooring_{LOST}"
        )
        text = []
        reader = threading.Thread(target=lambda: text.extend(iter(lambda: os.read(read, 65536), b"")))
        reader.start()
        eventually(lambda: b"/a/0/" in b"".join(text), "the first lines")
        app.stop()
        reader.join()
        found = lines(b"".join(text).decode())
        assert len(found) + lost == 1000
        assert found == paths[: len(found)]
        assert app.stderr.count("lines are dropped") == 1


def test_a_stop_does_not_wait_long_for_a_reader_that_has_stopped(piped):
    app, read = piped()
    with closing(read):
        requests(app, numbered("a", 800, size=1500))
        began = monotonic()
        assert app.stop() == 0
        assert monotonic() - began < 5
        assert app.leftovers == []


def test_a_reader_that_has_gone_disturbs_nobody_and_lines_are_counted(piped):
    app, read = piped()
    os.close(read)
    assert len(requests(app, numbered("a", 300))) == 300
    eventually(lambda: metric(app, LOST) == 300, "the count")
    requests(app, ["/b"])
    eventually(lambda: metric(app, LOST) == 301, "the count")
    assert app.stderr.count("the access log cannot be written: lines are dropped") == 1
    assert STARTS_ANOTHER not in app.stderr
    assert app.stop() == 0


def test_a_full_device_disturbs_nobody(logged):
    app, _ = logged(ACCESS_LOG="/dev/full")
    assert len(requests(app, numbered("a", 100))) == 100
    eventually(lambda: metric(app, LOST) == 100, "the count")
    assert app.stderr.count("the access log cannot be written") == 1
    assert app.stop() == 0


@pytest.mark.skipif(not ROOT, reason="mounts a file system")
def test_a_full_disk_costs_whole_lines_and_goes_on_when_there_is_room(mooring):
    disk = mooring.base / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount")
    try:
        path, ballast = disk / "access", disk / "ballast"
        ballast.write_bytes(b"x" * 40_000)
        app = mooring.run(workers=1, ACCESS_LOG=path, MOORING_ACCESS_LOG_FORMAT=FORM)
        requests(app, numbered("a", 1000))
        lost = eventually(lambda: metric(app, LOST), "lost lines")
        # the one that was cut off is neither lost nor there yet
        eventually(lambda: metric(app, LOST) + path.read_text().count("\n") >= 999, "the last one's loss")
        ballast.unlink()
        requests(app, numbered("b", 20))
        eventually(lambda: "/b/19/" in path.read_text(), "lines again")
        assert app.stop() == 0
        shown = path.read_text().splitlines()
        assert all(LINE.fullmatch(line) for line in shown)
        assert ["/b/" in line for line in shown] == [False] * (len(shown) - 20) + [True] * 20
        assert lost > 0
    finally:
        eventually(
            lambda: not subprocess.run(["umount", str(disk)], capture_output=True, check=False).returncode
        )


# -- files and rights --------------------------------------------------------------------------------------


def test_a_rotation_under_load_loses_no_line(logged, mooring):
    app, path = logged(workers=2)
    load = Load(app)
    for number in range(1, 6):
        load.reach(len(load.answered) + 100)
        path.rename(mooring.base / f"access.{number}")
        app.signal(signal.SIGUSR1)
        app.wait_log("log files are open anew", count=number)
        eventually(lambda: path.exists() and path.read_text(), "lines in the new file")
    load.end()
    (writer,) = log_writers(app.pid)
    assert app.stop() == 0
    assert state(writer) == ""
    files = [*(mooring.base / f"access.{number}" for number in range(1, 6)), path]
    found = [path for file in files for path in lines(file.read_text())]
    assert set(load.answered) <= set(found)
    assert len(found) == len(set(found))
    assert found == sorted(found, key=lambda path: int(path.split("/")[2]))


def test_a_supervisor_that_is_told_to_stop_with_its_whole_group_loses_no_line(logged):
    """As a service manager does: TERM to everybody."""
    app, path = logged(workers=2)
    wanted = numbered("a", 200)
    requests(app, wanted)
    for pid in [*log_writers(app.pid), app.pid]:
        os.kill(pid, signal.SIGTERM)
    assert app.wait_exit() == 0
    assert lines(path.read_text()) == wanted
    assert STARTS_ANOTHER not in app.stderr


def test_the_address_space_may_be_limited(logged):
    """Rings and rows are mapped in pieces, not whole."""
    limit = 2 << 30
    app, path = logged(options={"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))})
    requests(app, ["/a"])
    eventually(lambda: has(path, ["/a"]), "the line")
    assert app.stop() == 0
