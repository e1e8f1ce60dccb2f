"""What the fastapi image costs: its size, a rebuild after a code change, `docker run` to the first response.

    python benchmarks/images.py [--runs 11]        (needs a Docker engine; builds what is missing)

The bare engine is uvicorn, installed by pip in the same base image, with the same application: one route of
FastAPI. Runs of the two alternate.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCKER = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else shutil.which("docker") or "docker"
BASE = "python:3.13-slim-bookworm"
APPLICATION = """from fastapi import FastAPI
app = FastAPI()

@app.get("/")
def home():
    return {"version": 1}
"""
BARE = f"""FROM {BASE}
RUN pip install --no-cache-dir --quiet fastapi==VERSION "uvicorn==UVICORN" uvloop httptools
WORKDIR /app
COPY main.py ./
CMD ["uvicorn", "main:app", "--host", "0.0.0.0", "--port", "80"]
"""
OURS = "FROM mooring-bench:fastapi\nENV WEB_CONCURRENCY=1\nCOPY main.py /app/\n"


def docker(*words: str | Path) -> str:
    """Run a docker command; return its stdout."""
    environ = {**os.environ, "DOCKER_BUILDKIT": "1"}
    done = subprocess.run([DOCKER, *words], capture_output=True, text=True, check=False, env=environ)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout.strip()


def build(folder: Path, tag: str, dockerfile: str) -> float:
    """Build a user's image; return the seconds that it took."""
    (folder / "Dockerfile").write_text(dockerfile)
    began = time.monotonic()
    docker("build", "--network", "host", "--quiet", "--tag", tag, folder)
    return time.monotonic() - began


def first_answer(tag: str) -> float:
    """Seconds from `docker run` to the application's first response."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    began = time.monotonic()
    name = docker("run", "--detach", "--publish", f"127.0.0.1:{port}:80", tag)
    try:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                    answer.read()
                    return time.monotonic() - began
            except OSError:
                time.sleep(0.005)
    finally:
        docker("rm", "--force", name)


def main() -> None:
    """Print the three figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=11)
    runs = parser.parse_args().runs
    file = ROOT / "images/Dockerfile"
    docker(
        "build",
        "--network",
        "host",
        "--file",
        file,
        "--target",
        "fastapi",
        "--tag",
        "mooring-bench:fastapi",
        ROOT,
    )
    pins = dict(
        line.rstrip(" \\").partition(" ;")[0].split("==")
        for name in ("server", "fastapi")
        for line in (ROOT / f"images/lock/{name}.txt").read_text().splitlines()
        if "==" in line and line[0] not in "# "
    )
    sizes = [
        int(json.loads(docker("image", "inspect", tag))[0]["Size"]) for tag in ("mooring-bench:fastapi", BASE)
    ]
    print(f"size: {(sizes[0] - sizes[1]) / 2**20:.1f} MiB more than {BASE}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "main.py").write_text(APPLICATION)
        bare = BARE.replace("VERSION", pins["fastapi"], 1).replace("UVICORN", pins["uvicorn"])
        build(folder, "mooring-bench:bare", bare)
        build(folder, "mooring-bench:ours", OURS)
        took = []
        for number in range(5):
            (folder / "main.py").write_text(APPLICATION.replace("1", str(time.time_ns() + number)))
            took.append(build(folder, "mooring-bench:ours", OURS))
        print(f"rebuild after a code change: {statistics.median(took):.2f} s, at most {max(took):.2f} s")
    rows = [(first_answer("mooring-bench:bare"), first_answer("mooring-bench:ours")) for _ in range(runs)]
    ratios = [ours / bare for bare, ours in rows]
    quartiles = statistics.quantiles(ratios, n=4)
    bare_median, ours_median = (statistics.median(column) for column in zip(*rows, strict=True))
    print(
        f"docker run to the first answer: bare {bare_median:.2f} s, mooring {ours_median:.2f} s; "
        f"ratio {statistics.median(ratios):.2f}, quartiles {quartiles[0]:.2f} and {quartiles[2]:.2f}"
    )


if __name__ == "__main__":
    main()
