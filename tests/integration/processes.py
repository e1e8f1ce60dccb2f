"""What /proc tells of a process: for tests of descriptors, rights and memory."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from harness_tools import eventually


def field(pid: int, name: str) -> str:
    """One field of /proc/PID/status."""
    found = re.search(rf"^{name}:\s*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found, name
    return found[1]


def descriptors(pid: int) -> dict[int, str]:
    """What each open descriptor is."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
    return found


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def settled(pid: int) -> dict[int, str]:
    """The descriptors, once the control socket's last client is gone: what it has accepted has its path."""

    def gone() -> dict[int, str] | None:
        found = descriptors(pid)
        with open("/proc/net/unix", encoding="utf-8", errors="replace") as file:
            rows = [row for row in map(str.split, file) if len(row) == 8 and row[3] != "00010000"]
        return None if {f"socket:[{row[6]}]" for row in rows} & set(found.values()) else found

    return eventually(gone, "the end of the last client")


def children(pid: int) -> list[int]:
    """Child processes, zombies included."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def state(pid: int) -> str:
    """R, S, Z, ...; "" where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def mapped(pid: int) -> set[str]:
    """The shared objects that are mapped."""
    rows = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {row.split()[-1] for row in rows if ".so" in row}


def resident_mib(pid: int) -> float:
    return int(field(pid, "VmRSS").split()[0]) / 1024


def log_writers(pid: int) -> list[int]:
    """Those of its children that write the access log: they hold its rings, and no scoreboard."""
    found = []
    for child in children(pid):
        with suppress(FileNotFoundError, PermissionError):
            held = " ".join(descriptors(child).values())
            if "mooring-access-log" in held and "mooring-scoreboard" not in held:
                found.append(child)
    return found
