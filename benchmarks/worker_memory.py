"""What a worker's memory grows by for counting, metrics and the access log: proportional set size, MiB.

`mooring run` with two workers, as it is and without wrapper, row and ring, serves requests for ten
seconds; alternating runs, medians. Needs wrk. Usage: python benchmarks/worker_memory.py [RUNS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from typing import Any

from start_time import APPS, free_port
from throughput import wait

from mooring.system import process
from mooring.worker import run
from mooring.worker.seat import Seat


def serve(kind: str) -> None:
    """Run `mooring run` in this process; with the kind `without`, without its wrapper, row and ring."""
    from mooring import __main__
    from mooring.instrument import wrap
    from mooring.supervisor import workers

    def unwrapped(application: Any, *_: Any) -> Any:
        return application.call

    def no_seat(self: workers.Workers, serial: int, slot: int, generation: int, plan: Any) -> Seat:
        return Seat(slot, generation, self.scoreboard.fd, (), None, None)

    if kind == "without":
        wrap.wrap = unwrapped  # type: ignore[assignment]
        workers.Workers._seat = no_seat  # type: ignore[method-assign]
        run.memory.watch = lambda *_: None  # type: ignore[attr-defined]
    sys.argv = ["mooring", *sys.argv[3:]]
    __main__.main()


def measured(kind: str) -> float:
    """The mean size of the two workers after some seconds of load, in MiB."""
    port = free_port()
    words = [__file__, "serve", kind, "run", "hello_starlette:app", "--workers", "2", "--port", str(port)]
    url = f"http://127.0.0.1:{port}/"
    server = subprocess.Popen(
        [sys.executable, *words], cwd=APPS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait(url, server)
        for number in range(5):
            command = ["wrk", "-t1", "-c32", "-d2s", "-H", f"user-agent: agent {number}", f"{url}?n={number}"]
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        said = subprocess.run(["pgrep", "-P", str(server.pid)], capture_output=True, text=True, check=True)
        sizes = sorted(process.proportional_set_size(pid) or 0 for pid in said.stdout.split())
        return sum(sizes[-2:]) / 2 / 2**20  # the two largest are the workers; the smallest is the log writer
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Measure both kinds in alternating runs, and print the medians."""
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2])
        return
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    pairs = [(measured("without"), measured("with")) for _ in range(runs)]
    without, complete = (statistics.median(column) for column in zip(*pairs, strict=True))
    grown = sorted(mine - bare for bare, mine in pairs)
    print(
        f"without {without:.2f} MiB, with {complete:.2f} MiB: {statistics.median(grown):.2f} MiB more "
        f"({grown[0]:.2f} to {grown[-1]:.2f}, {runs} runs)"
    )


if __name__ == "__main__":
    main()
