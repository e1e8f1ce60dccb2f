"""The README's first command on a bare Debian with python3 and make: it sets everything up, and serves."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from engine import ROOT, run

pytestmark = pytest.mark.docker

SCRIPT = """
set -e
apt-get update -qq >/dev/null
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 make >/dev/null 2>&1
mkdir /work && tar -xf /src.tar -C /work && cd /work
make run >/tmp/log 2>&1 &
until grep -q "workers: \\|serving$" /tmp/log; do
  kill -0 $! || { cat /tmp/log; exit 1; }
  sleep 0.2
done
python3 -c "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/').read().decode())"
python3 -c "
import os, signal
pids = [int(p) for p in os.listdir('/proc') if p.isdigit()]
ours = sorted(p for p in pids if b'bin/mooring\\0run' in open(f'/proc/{p}/cmdline', 'rb').read())
os.kill(ours[0], signal.SIGINT)"
wait $! && echo "make ended with 0"
tail -n 3 /tmp/log
"""


def test_make_run_on_a_bare_debian(docker: str, tmp_path: Path) -> None:
    archive = tmp_path / "src.tar"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    pack = ["tar", "-c", "--null", "--files-from=-", f"--file={archive}"]
    subprocess.run(pack, cwd=ROOT, input=listed, check=True)
    # What this machine's own pip is told (an index, an authority) the container's is told too.
    told = [f"--env={name}={value}" for name, value in os.environ.items() if name.startswith("PIP_")]
    done = run(
        docker,
        *("run", "--rm", "--network", "host", f"--volume={archive}:/src.tar:ro", *told),
        *("debian:bookworm-slim", "bash", "-c", SCRIPT),
    )
    assert '"message": "Hello from mooring"' in done.stdout, done.stdout + done.stderr
    assert "make ended with 0" in done.stdout, done.stdout + done.stderr
    assert "stopped (asked to stop)" in done.stdout
