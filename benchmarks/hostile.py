"""Attacks on servers with their defaults, measured from outside: what ends them, memory, what others notice.

    python benchmarks/hostile.py [--servers REGEX] [--attacks REGEX] [--again]

Each cell is an instance of its own with one worker, attacked over 127.0.0.1 (hostile_attacks.py) by a process
of a lower priority, while a well-behaved client asks 20 times a second, each time over a new connection. What
waits is watched for --wait seconds; a flood goes on for --flood seconds, and begins anew where the server has
ended it. --again measures alone, one at a time, those cells where the client's p99 was above 1 s, and keeps
the better.

The figures are merged into benchmarks/results/hostile.json; docs/security.md's tables are written from it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import platform
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from hostile_attacks import ATTACKS, Attack
from hostile_client import Ending, attack_once, be_many, be_modest, read_as
from hostile_servers import SERVERS, Target, is_here, running, versions

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/hostile.json"
PACE, PATIENCE = 0.05, 15.0  # seconds between a well-behaved client's requests, and how long it waits
_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_ANYONE = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_ANYONE.check_hostname, _ANYONE.verify_mode = False, ssl.CERT_NONE


# -- others ------------------------------------------------------------------------------------------------


def ask(target: Target) -> tuple[float, bool]:
    """Ask once over a new connection: the seconds that it took, and whether a whole answer came."""
    began, answer = time.monotonic(), b""
    try:
        with socket.create_connection(("127.0.0.1", target.asked), PATIENCE) as plain:
            sock = plain
            if target.tls:
                sock = _ANYONE.wrap_socket(plain)
            sock.sendall(_REQUEST)
            while not answer.endswith(b"ok"):
                sock.settimeout(max(0.01, began + PATIENCE - time.monotonic()))
                if not (data := sock.recv(4096)):
                    break
                answer += data
    except OSError:
        pass
    return time.monotonic() - began, answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"ok")


class Others:
    """A well-behaved client, and what the server's processes take of memory, while an attack runs."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.asked: list[tuple[float, bool]] = []
        if not all(ask(target)[1] for _ in range(30)):
            raise SystemExit("it does not answer a well-behaved client before the attack")
        self.before = resident(target.pid)
        self.most = dict(self.before)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._ask, self._look)]

    def start(self) -> None:
        for each in self._threads:
            each.start()

    def stop(self) -> dict[str, Any]:
        self._stop.set()
        for each in self._threads:
            each.join()
        taken = sorted(seconds if answered else PATIENCE for seconds, answered in self.asked)
        grown = max((self.most[pid] - size for pid, size in self.before.items()), default=0)
        after = resident(self.target.pid)
        return {
            "p99": round(taken[min(len(taken) - 1, int(0.99 * len(taken)))], 4) if taken else None,
            "asked": len(taken),
            "failed": sum(not answered for _, answered in self.asked),
            "grown": round(grown / 2**20, 1),
            "lost": sum(pid not in after for pid in self.before),
        }

    def _ask(self) -> None:
        while not self._stop.is_set():
            self.asked.append(ask(self.target))
            self._stop.wait(PACE)

    def _look(self) -> None:
        while not self._stop.wait(0.2):
            for pid, size in resident(self.target.pid).items():
                self.most[pid] = max(size, self.most.get(pid, 0))


def resident(pid: int) -> dict[int, int]:
    """Resident bytes of a process and all below it."""
    found, page = {}, os.sysconf("SC_PAGE_SIZE")
    try:
        found[pid] = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found |= resident(int(child))
    except OSError:
        pass
    return found


# -- one cell ----------------------------------------------------------------------------------------------


def _watch(target: Target, go: Any, pipe: Any) -> None:
    others = Others(target)
    pipe.send(None)
    go.wait()
    others.start()
    pipe.recv()
    pipe.send(others.stop())


def _attack(attack: Attack, port: int, wait: float, flood: float) -> Ending:
    if attack.connections > 1:
        return be_many(attack, port, wait)
    if attack.alone:
        return read_as(attack, port)
    if not attack.floods:
        return attack_once(attack, port, wait)
    began = time.monotonic()
    first = attack_once(attack, port, flood)
    while (left := began + flood - time.monotonic()) > 0.5:  # it comes back, as attackers do
        attack_once(attack, port, left)
    return first


def measure(name: str, title: str, wait: float, flood: float) -> dict[str, Any]:
    """Attack a server of its own: a cell. Runs in a process of its own."""
    attack, fork = ATTACKS[title], multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder, running(name, attack.kind, Path(folder)) as target:
        go, (here, there) = fork.Event(), fork.Pipe()
        others = fork.Process(target=_watch, args=(target, go, there))
        others.start()
        there.close()  # so that its end is seen here
        here.recv()
        be_modest()
        go.set()
        ending = _attack(attack, target.attacked, wait, flood)
        here.send(None)
        seen = here.recv()
        others.join()
    cell = {"ended": ending.words, "seconds": round(ending.seconds, 2), "sent": ending.sent}
    return {**cell, "closed": ending.closed, **({} if attack.alone else seen)}


# -- all ---------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return {
        "cores": os.cpu_count(),
        "cpu": model[1] if model else platform.machine(),
        "memory GiB": round(int(memory[1]) / 2**20) if memory else None,
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "descriptors": os.sysconf("SC_OPEN_MAX"),
    }


def wanted(options: argparse.Namespace, cells: dict[str, Any]) -> list[tuple[str, str]]:
    chosen = []
    for name, server in SERVERS.items():
        for title, attack in ATTACKS.items():
            if not re.search(options.servers, name) or not re.search(options.attacks, title):
                continue
            known = cells.get(name, {}).get(title)
            slow = known is not None and (known.get("p99") or 0) >= 1
            if attack.kind in server.speaks.split() and (slow or not options.again) and is_here(name):
                chosen.append((name, title))
    # What waits takes no core: floods and single requests come after it.
    return sorted(chosen, key=lambda each: ATTACKS[each[1]].pace == 0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--servers", default="", help="a regular expression of their names")
    parser.add_argument("--attacks", default="", help="a regular expression of their names")
    parser.add_argument("--again", action="store_true", help="only what was slow, one at a time")
    parser.add_argument("--wait", type=float, default=90.0, help="seconds, for what waits")
    parser.add_argument("--flood", type=float, default=8.0, help="seconds, for floods")
    parser.add_argument("--waiting", type=int, default=16, help="so many that wait at once")
    parser.add_argument("--flooding", type=int, default=2, help="so many floods at once")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--no-docs", action="store_true", help="leave docs/security.md as it is")
    options = parser.parse_args()
    data = json.loads(options.results.read_text()) if options.results.exists() else {"cells": {}}
    cells, chosen = data["cells"], wanted(options, data["cells"])
    waiting = [each for each in chosen if ATTACKS[each[1]].pace]
    floods = [each for each in chosen if not ATTACKS[each[1]].pace]
    for group, at_once in ((waiting, options.waiting), (floods, options.flooding)):
        with concurrent.futures.ThreadPoolExecutor(1 if options.again else at_once) as pool:
            running_cells = {pool.submit(_in_a_process, *each, options): each for each in group}
            for future in concurrent.futures.as_completed(running_cells):
                name, title = running_cells[future]
                if (cell := future.result()) is None:
                    continue
                print(f"{name:32} {title:18} {json.dumps(cell)}", flush=True)
                if options.again and cell.get("p99", 99) > cells[name][title]["p99"]:
                    continue
                cells.setdefault(name, {})[title] = cell
    data |= {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions()}
    data["limits"] = {"wait": options.wait, "flood": options.flood}
    options.results.parent.mkdir(exist_ok=True)
    options.results.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
    if not options.no_docs:
        subprocess.run([sys.executable, ROOT / "scripts/make_docs.py"], check=True)


def _in_a_process(name: str, title: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """A cell by this program anew: processes are forked there, and here are threads. None where it fails."""
    words = ["--cell", name, title, str(options.wait), str(options.flood)]
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name}, {title}: {done.stderr}", file=sys.stderr, flush=True)
        return None
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--cell"]:
        print(json.dumps(measure(sys.argv[2], sys.argv[3], float(sys.argv[4]), float(sys.argv[5]))))
    else:
        main()
