"""What a scrape costs: 64 workers' rows read and rendered, and throughput with a scrape each second.

    python benchmarks/scrape.py [--runs 201]               # milliseconds; the goal is below 5
    python benchmarks/scrape.py --cost [--runs 201]        # CPU time of each process; the goal is below 1 %
    python benchmarks/scrape.py --load [--rounds 15]       # needs wrk; the goal is a ratio above 0.99

The first fills 64 rows as busy workers would, and makes each page as the supervisor does. The second measures
what depends least on the machine's changing speed: the nanoseconds for which each of an instance's processes
was on a core (/proc/PID/schedstat) during many scrapes, less those during the same time without scrapes. The
share of two cores that a scrape each second takes is the most that it can take of their throughput. The third
alternates rounds of full load on one instance, with and without scrapes: a machine that changes its speed
changes both.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mooring import resources
from mooring.admin import stats
from mooring.admin.answers import Answer
from mooring.metrics import prometheus
from mooring.scoreboard import row as scoreboard
from mooring.scoreboard.row import BUCKETS, COUNTS, DURATIONS, HISTOGRAM, METHOD_BASE, PLACES, RECORD, Row
from mooring.scoreboard.totals import Totals
from mooring.supervisor import lifecycle
from mooring.supervisor.history import History

APPS = Path(__file__).parent / "apps"
WORKERS = 64


def fill(row: Row, serial: int) -> None:
    """Fill a row as after a million requests, with sixteen in flight."""
    row.claim(serial, 1, time.monotonic())
    row.cells[scoreboard.MEMORY] = 80e6 + serial
    row.cells[DURATIONS] = 12345.678 + serial
    for cell in range(COUNTS, HISTOGRAM + BUCKETS):
        row.cells[cell] = 1000.0 + 7 * serial + cell
    for place in PLACES[:16]:
        path = f"/api/v1/items/{serial}/{place}".encode()
        RECORD.pack_into(row.data, place * 8, time.monotonic(), METHOD_BASE["GET"], path)
    row.cells[scoreboard.STATE] = scoreboard.READY


def supervisor(scoreboard: Totals) -> Any:
    """A stand-in for the supervisor of 64 workers, with all that the pages read."""
    fleet = lifecycle.new_fleet(lifecycle.Policy(), WORKERS)
    fleet, _ = lifecycle.step(fleet, lifecycle.Tick(), time.monotonic())
    for serial in fleet.workers:
        for index in scoreboard.give(serial):
            row = Row(scoreboard.fd, index)
            fill(row, serial)
            row.close()
    plan = SimpleNamespace(engine="uvicorn", interface="asgi", resources=resources.read(environ=os.environ))
    handles = {
        serial: SimpleNamespace(pid=10_000 + serial, report=None, plan=plan) for serial in fleet.workers
    }
    workers = SimpleNamespace(scoreboard=scoreboard, handles=handles, totals=scoreboard.totals)
    own_log = SimpleNamespace(lost=0)
    return SimpleNamespace(fleet=fleet, workers=workers, plan=plan, history=History(), log=own_log)


def milliseconds(make: Callable[[], bytes], runs: int) -> tuple[float, float, int]:
    """Median and maximum CPU time of the runs in ms, and the length of the page."""
    times = []
    for _ in range(runs):
        began = time.thread_time()
        made = make()
        times.append((time.thread_time() - began) * 1000)
    return statistics.median(times), max(times), len(made)


def measure_pages(runs: int) -> None:
    scoreboard = Totals()
    subject = supervisor(scoreboard)
    assert len(list(scoreboard.in_use())) == WORKERS
    assert prometheus.render(stats.collect(subject)).count("mooring_worker_memory_bytes{") == WORKERS
    pages: dict[str, Callable[[], bytes]] = {
        "/metrics": lambda: prometheus.render(stats.collect(subject)).encode(),
        "/stats": lambda: Answer(200, stats.feed(subject, {})).encode(),
    }
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {WORKERS} rows, {runs} runs")
    for name, make in pages.items():
        median, worst, length = milliseconds(make, runs)
        print(f"{name:10} median {median:.2f} ms, worst {worst:.2f} ms, {length} bytes")


# -- under load --------------------------------------------------------------------------------------------


def get(url: str, path: str) -> bytes:
    host, _, port = url.removeprefix("http://").rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def throughput(url: str, seconds: int) -> float:
    command = ["wrk", "-t1", "-c64", f"-d{seconds}s", url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert found, done.stdout
    return float(found[1])


def scraped(admin: str, stop: threading.Event) -> None:
    while not stop.wait(1.0):
        get(admin, "/metrics")


@contextmanager
def serving(application: str, workers: int) -> Iterator[tuple[int, str, str]]:
    """Run an instance; yields its pid, its URL and its admin endpoint's URL."""
    port, admin_port = free_port(), free_port()
    admin = f"http://127.0.0.1:{admin_port}"
    with tempfile.TemporaryDirectory() as folder:
        environ = {
            **os.environ,
            "MOORING_RUNTIME_DIR": folder,
            "MOORING_ADMIN_BIND": f"127.0.0.1:{admin_port}",
        }
        command = [sys.executable, "-m", "mooring", "run", application, "--port", str(port)]
        command += ["--workers", str(workers), "--access-log", ""]
        with subprocess.Popen(command, cwd=APPS, env=environ, stderr=subprocess.DEVNULL) as server:
            try:
                wait_until_ready(admin)
                yield server.pid, f"http://127.0.0.1:{port}", admin
            finally:
                server.terminate()


def measure_load(rounds: int, seconds: int) -> None:
    with serving("hello_starlette:app", 1) as (_, url, admin):
        throughput(url, 2)
        compare(url, admin, rounds, seconds)


def on_core(pid: int) -> int:
    """Nanoseconds for which a process's threads were on a core."""
    found = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[0]) for each in found)


def measure_cost(runs: int) -> None:
    """Print the cost of a scrape: spells with one and without one alternate.

    A spell takes 0.15 s, since the supervisor keeps a page for 0.1 s.
    """
    for application in ("hello_starlette:app", "hello_counted:app"):
        with serving(application, 2) as (supervisor, url, admin):
            workers = {int(each["pid"]) for each in json.loads(get(admin, "/status"))["workers"]}
            for _ in range(200):
                get(url, "/")
            get(admin, "/metrics")
            children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
            pids = [supervisor, *map(int, children)]
            spells: dict[bool, list[dict[int, int]]] = {False: [], True: []}
            for number in range(2 * runs):
                before = {pid: on_core(pid) for pid in pids}
                if number % 2:
                    get(admin, "/metrics")
                time.sleep(0.15)
                spells[bool(number % 2)].append({pid: on_core(pid) - before[pid] for pid in pids})
        report_cost(application, spells, supervisor, workers)


def report_cost(
    application: str, spells: dict[bool, list[dict[int, int]]], supervisor: int, workers: set[int]
) -> None:
    def milliseconds(pids: set[int]) -> float:
        taken = {kind: [sum(each[pid] for pid in pids) for each in found] for kind, found in spells.items()}
        return (statistics.median(taken[True]) - statistics.median(taken[False])) / 1e6

    own, others = milliseconds({supervisor}), milliseconds(workers)
    total = milliseconds(set(spells[True][0]))
    print(f"{application}, {len(workers)} workers, {len(spells[True])} scrapes; on a core for each, median:")
    print(f"  supervisor {own:.3f} ms, workers together {others:.3f} ms, all processes {total:.3f} ms")
    print(f"  one each second takes {total / 20:.3f} % of two cores")


def wait_until_ready(admin: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if json.loads(get(admin, "/status"))["ready"]:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit("it is not ready")


def compare(url: str, admin: str, rounds: int, seconds: int) -> None:
    without, with_scrapes = [], []
    for _ in range(rounds):
        without.append(throughput(url, seconds))
        stop = threading.Event()
        thread = threading.Thread(target=scraped, args=(admin, stop))
        thread.start()
        with_scrapes.append(throughput(url, seconds))
        stop.set()
        thread.join()
    ratios = [scrapes / bare for scrapes, bare in zip(with_scrapes, without, strict=True)]
    medians = statistics.median(without), statistics.median(with_scrapes)
    print("requests per second: {:.0f} without, {:.0f} with a scrape each second".format(*medians))
    ratio, spread = statistics.median(ratios), sorted(ratios)
    print(f"ratio of {rounds} pairs of {seconds} s: median {ratio:.4f}, {spread[0]:.4f} to {spread[-1]:.4f}")


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--runs", type=int, default=201)
    options.add_argument("--cost", action="store_true")
    options.add_argument("--load", action="store_true")
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--seconds", type=int, default=5)
    given = options.parse_args()
    if given.cost:
        measure_cost(given.runs)
    elif given.load:
        measure_load(given.rounds, given.seconds)
    else:
        measure_pages(given.runs)


if __name__ == "__main__":
    main()
