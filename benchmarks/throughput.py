"""Requests per second: `mooring run` with log and metrics, the bare engine, and the engine with its own log.

The server and the processes beside it (mooring's supervisor and log writer) have one core; wrk and the reader
of the log have the other: so all work of mooring is measured. Runs alternate; each ratio is of two runs of
the same round, and the median of the ratios is printed with the quartiles. Needs wrk and two cores.
Usage: python benchmarks/throughput.py [--runs 7] [--seconds 3] [--only NAME]
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from start_time import APPS, BIN, free_port

SERVER, CLIENT = sorted(os.sched_getaffinity(0))[:2]
MOORING = ["mooring", "run", "--workers", "1", "--threads", "8", "--error-log", "", "--port", "{port}"]
UVICORN = ["uvicorn", "hello_starlette:app", "--loop", "uvloop", "--http", "httptools", "--port", "{port}"]
GRANIAN = ["granian", "--interface", "wsgi", "--blocking-threads", "8", "hello_flask:app", "--port", "{port}"]

# The first command of each group is the one that the others are compared with.
GROUPS: dict[str, dict[str, list[str]]] = {
    "Starlette JSON on uvicorn": {
        "bare: no log, no metrics": [*UVICORN, "--no-access-log", "--log-level", "warning"],
        "mooring: log and metrics": [*MOORING, "hello_starlette:app"],
        "mooring: JSON log with request ids": [
            *MOORING,
            "hello_starlette:app",
            "--access-log-format",
            "json",
        ],
        "mooring: metrics alone": [*MOORING, "hello_starlette:app", "--access-log", ""],
        "uvicorn's own log, no metrics": UVICORN,
    },
    "Flask on granian": {
        "bare: no log, no metrics": [*GRANIAN, "--no-access-log", "--log-level", "warning"],
        "mooring: log and metrics": [*MOORING, "hello_flask:app"],
        "granian's own log, no metrics": [*GRANIAN, "--access-log"],
    },
}


@contextmanager
def served(command: list[str]) -> Iterator[str]:
    """Run a server whose stdout is read through a pipe, as a container engine does; yields its URL."""
    port = free_port()
    words = [word.format(port=port) for word in command]
    reader = subprocess.Popen(
        ["taskset", "-c", str(CLIENT), "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    server = subprocess.Popen(
        ["taskset", "-c", str(SERVER), str(BIN / words[0]), *words[1:]],
        cwd=APPS,
        stdout=reader.stdin,
        stderr=subprocess.DEVNULL,
    )
    assert reader.stdin is not None
    reader.stdin.close()
    try:
        url = f"http://127.0.0.1:{port}/"
        wait(url, server)
        yield url
    finally:
        server.terminate()
        server.wait()
        reader.wait()


def wait(url: str, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server responds. Raises SystemExit where it ends, or after 30 s."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                answer.read()
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{server.args!r} does not answer") from None
            time.sleep(0.02)


def load(url: str, seconds: float) -> float:
    """Requests per second over 64 kept-alive connections."""
    command = ["taskset", "-c", str(CLIENT), "wrk", "-t1", "-c64", f"-d{seconds:g}s", url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(said)
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert found is not None
    return float(found[1])


def compare(commands: dict[str, list[str]], runs: int, seconds: float) -> None:
    """Measure the commands in alternating runs, and print a row for each."""
    figures: dict[str, list[float]] = {name: [] for name in commands}
    for run in range(runs + 1):
        for name, command in commands.items():
            with served(command) as url:
                load(url, 1)
                figure = load(url, seconds)
            if run:  # the first round warms the page cache
                figures[name].append(figure)
    base = next(iter(figures.values()))
    for name, found in figures.items():
        ratios = sorted(one / other for one, other in zip(found, base, strict=True))
        low, high = ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]
        print(
            f"  {name:<36}{statistics.median(found):9.0f}/s  ratio {statistics.median(ratios):.3f} "
            f"(quartiles {low:.3f}, {high:.3f})"
        )


def main() -> None:
    """Measure every group and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("uvicorn", "granian", "starlette", "flask")
    )
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {versions}; {options.runs} runs")
    for name, commands in GROUPS.items():
        if options.only in name:
            print(name)
            compare(commands, options.runs, options.seconds)


if __name__ == "__main__":
    main()
