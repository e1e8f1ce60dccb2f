"""Time from exec to the first response: `mooring run` against the engine's own command, same application.

Alternating runs, medians and spread, as ratios. Usage: python benchmarks/start_time.py [--runs 21]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

APPS = Path(__file__).parent / "apps"
BIN = Path(sys.executable).parent

COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "uvicorn, Starlette": (
        ["uvicorn", "hello_starlette:app", "--port", "{port}"],
        ["mooring", "run", "hello_starlette:app", "--port", "{port}", "--workers", "1"],
    ),
    "granian, Flask": (
        ["granian", "--interface", "wsgi", "hello_flask:app", "--port", "{port}"],
        ["mooring", "run", "hello_flask:app", "--port", "{port}", "--workers", "1"],
    ),
    "hypercorn, Starlette": (
        ["hypercorn", "hello_starlette:app", "--bind", "127.0.0.1:{port}"],
        [
            "mooring",
            "run",
            "hello_starlette:app",
            "--engine",
            "hypercorn",
            "--port",
            "{port}",
            "--workers",
            "1",
        ],
    ),
    "gunicorn, Flask": (
        ["gunicorn", "hello_flask:app", "--bind", "127.0.0.1:{port}", "--worker-class", "gthread"],
        [
            "mooring",
            "run",
            "hello_flask:app",
            "--worker-class",
            "gthread",
            "--port",
            "{port}",
            "--workers",
            "1",
        ],
    ),
}


def free_port() -> int:
    """A port that is free now; another process may still take it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def first_answer(command: list[str]) -> float:
    """Seconds from exec to the first complete response with status 200."""
    port = free_port()
    words = [word.format(port=port) for word in command]
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "MOORING_ACCESS_LOG": ""}
    start = time.perf_counter()
    process = subprocess.Popen(
        [BIN / words[0], *words[1:]],
        cwd=APPS,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            if process.poll() is not None or time.perf_counter() - start > 30:
                raise SystemExit(f"{' '.join(words)}: did not answer")
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/")
                if connection.getresponse().status == 200:
                    return time.perf_counter() - start
            except OSError:
                time.sleep(0.001)
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Measure every pair, print a table, and with --json the raw seconds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=21)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    versions = {name: metadata.version(name) for name in ("uvicorn", "granian", "hypercorn", "gunicorn")}
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {versions}")
    raw = {}
    for name, (bare, ours) in COMMANDS.items():
        if options.only not in name:
            continue
        first_answer(bare), first_answer(ours)
        pairs = [(first_answer(bare), first_answer(ours)) for _ in range(options.runs)]
        ratios = sorted(mine / theirs for theirs, mine in pairs)
        theirs, mine = (statistics.median(column) for column in zip(*pairs, strict=True))
        middle = statistics.median(ratios)
        low, high = ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]
        print(
            f"{name:<22} bare {theirs * 1000:5.0f} ms  mooring {mine * 1000:5.0f} ms  "
            f"ratio {middle:.2f} (quartiles {low:.2f}, {high:.2f})"
        )
        raw[name] = pairs
    if options.json:
        print(json.dumps(raw))


if __name__ == "__main__":
    main()
