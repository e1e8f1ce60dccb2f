"""What preloading saves: memory (Pss) of all processes, and the time until each worker is ready.

    python benchmarks/preload.py [--workers 2] [--mib 50]

The application makes small objects of `--mib` MiB when it is imported, which sets its memory and import time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

APP = """
DATA = {}
size = 0
while size < MIB * 2**20:
    key = f"key {len(DATA):09d}"
    DATA[key] = [key, float(len(DATA)), {"n": len(DATA)}]
    size += 470  # bytes, with the dictionary's own

async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = DATA["key 000000007"][0].encode()
    head = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})
"""


def pss(pid: int) -> float:
    """A process's proportional set size in MiB."""
    found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def status(folder: Path) -> dict[str, Any]:
    """The instance's /status; empty while it does not respond."""
    done = subprocess.run(
        [sys.executable, "-m", "mooring", "status", "--json"],
        env={**os.environ, "MOORING_RUNTIME_DIR": str(folder / "run")},
        capture_output=True,
        text=True,
        check=False,
    )
    return dict(json.loads(done.stdout)) if done.returncode == 0 and done.stdout else {}


def request(port: int) -> None:
    """Send one request; any worker responds."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        while sock.recv(65536):
            pass


def measure(mode: str, workers: int, mib: int) -> None:
    """Start an instance, wait until all workers serve, send some requests, and measure."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "main.py").write_text(APP.replace("MIB", str(mib)))
        variables = {"PORT": "0", "MOORING_RUNTIME_DIR": str(folder / "run"), "MOORING_ACCESS_LOG": ""}
        variables |= {"WEB_CONCURRENCY": str(workers), "MOORING_PRELOAD": mode}
        with (folder / "log").open("w") as log:
            running = subprocess.Popen(
                [sys.executable, "-m", "mooring", "run"],
                cwd=folder,
                env={**os.environ, **variables},
                stderr=log,
            )
        try:
            found: dict[str, Any] = {}
            while sum(each["state"] == "ready" for each in found.get("workers", ())) < workers:
                time.sleep(0.5)
                found = status(folder)
            port = int(found["listeners"][0].rpartition(":")[2])
            for _ in range(1000):
                request(port)
            pids = [each["pid"] for each in found["workers"]]
            others = [each["pid"] for each in found["templates"]] + [running.pid]
            sizes = [pss(pid) for pid in pids]
            shown = ", ".join(f"{size:.0f}" for size in sizes)
            total = sum(sizes) + sum(map(pss, others))
            boots = re.findall(r"worker (\d+) is ready after ([\d.]+) s", (folder / "log").read_text())
            print(f"preload={mode}: workers {shown} MiB; all processes {total:.0f} MiB; ready after ", end="")
            print(", ".join(f"{seconds} s" for _, seconds in boots), flush=True)
        finally:
            running.terminate()
            running.wait()


def main() -> None:
    """Measure without preloading and with it, and print both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--mib", type=int, default=50)
    options = parser.parse_args()
    for mode in ("off", "refuse"):
        measure(mode, options.workers, options.mib)


if __name__ == "__main__":
    main()
