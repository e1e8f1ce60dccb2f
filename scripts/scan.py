"""Find known vulnerabilities of the packages in the images: `make scan`.

Python packages: every lock file that images are made with, by pip-audit, against PyPI's data or OSV's
(`--service osv`).
Debian packages: those of the base images for which Debian has a security update, by their apt, in containers.
Not checked: CPython itself, which the base images have, and vulnerabilities that Debian has not fixed yet.

Exit codes: 0 nothing found; 1 something found; 3 nothing found, but not everything could be checked.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = [
    *sorted((ROOT / "images/lock").glob("*.txt")),
    ROOT / "src/mooring/commands/install/tools/py-rattler.txt",  # of the conda images' `conda`
]
# One on each base image: the slim Python image, and the full one.
IMAGES = ["mooring:base", "mooring:uvicorn-gunicorn"]
# A pending update, as apt prints it: Inst libc6 [2.36-9] (2.36-9+deb12u10 Debian-Security:12/... [amd64])
_PENDING = re.compile(r"^Inst (\S+) \[(\S+)\] \((\S+) (.*)\)")
_SECURITY = re.compile(r"-security\b|Debian-Security")


@dataclass
class Scan:
    """The vulnerabilities found, and the checks that failed; `looked` is the number of packages checked."""

    known: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    looked: int = 0


def _audit(lock: Path, options: list[str]) -> Scan:
    """Check a lock file with pip-audit, which installs and resolves nothing here."""
    audit = [sys.executable, "-m", "pip_audit", "--disable-pip", "--requirement", str(lock)]
    command = [*audit, "--format", "json", "--progress-spinner", "off", "--desc", "off", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        rows = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return Scan(unseen=[f"{lock.name}: pip-audit ended with {done.returncode}: {why}"])
    found = Scan()
    for row in rows:
        if reason := row.get("skip_reason"):
            found.unseen.append(f"{lock.name}: {reason}")
        else:
            found.looked += 1
        for one in row.get("vulns", ()):
            fixed = ", ".join(one["fix_versions"]) or "no version yet"
            found.known.append(f"{lock.name}: {row['name']} {row['version']}: {one['id']}, mended in {fixed}")
    return found


def _debian(docker: str, image: str) -> Scan:
    """Find the pending security updates of an image's Debian packages."""
    script = (
        "apt-get update -qq && apt-cache policy && dpkg -l | grep -c ^ii && apt-get --simulate dist-upgrade"
    )
    options = ["--rm", "--user", "0", "--network", "host", "--entrypoint", "sh"]
    command = [docker, "run", *options, image, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return Scan(unseen=[f"{image}: {why}"])
    pending = [found for found in map(_PENDING.match, done.stdout.splitlines()) if found]
    known = [
        f"{image}: {package} {old}: a security update to {new}"
        for package, old, new, source in (found.groups() for found in pending)
        if _SECURITY.search(source)
    ]
    count = int(next(line for line in done.stdout.splitlines() if line.isdigit()))
    if not re.search(r"release .*\bn=\w+-security", done.stdout):
        return Scan(known, [f"{image}: its apt has no security archive, so {count} packages are unseen"])
    return Scan(known, [], count)


def main() -> int:
    """Scan, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--docker", default="docker", help="the client; empty: no Debian packages")
    parser.add_argument("--image", action="append", help=f"instead of {' and '.join(IMAGES)}")
    parser.add_argument("--lock", type=Path, action="append", help="instead of all that images are made with")
    parser.add_argument("--service", choices=["pypi", "osv"], default="pypi")
    parser.add_argument("--osv-url", default="https://api.osv.dev/v1/query")
    parser.add_argument("--ignore", action="append", default=[], metavar="ID", help="known, and accepted")
    given = parser.parse_args()
    options = ["--vulnerability-service", given.service, "--osv-url", given.osv_url]
    options += [word for name in given.ignore for word in ("--ignore-vuln", name)]
    scans = [_audit(lock, options) for lock in given.lock or LOCKS]
    if given.docker:
        scans += [_debian(given.docker, image) for image in given.image or IMAGES]
    known = [line for scan in scans for line in scan.known]
    unseen = [line for scan in scans for line in scan.unseen]
    for line in known:
        print(f"scan: vulnerable: {line}")
    for line in unseen:
        print(f"scan: not looked up: {line}")
    print(
        f"scan: {sum(scan.looked for scan in scans)} packages looked up, {len(known)} vulnerabilities known"
    )
    return 1 if known else 3 if unseen else 0


if __name__ == "__main__":
    sys.exit(main())
