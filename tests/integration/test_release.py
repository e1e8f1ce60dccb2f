"""What a release is made with: the scan, the archives, the check of the version. Real tools, a local OSV."""

from __future__ import annotations

import http.server
import json
import runpy
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HASH = "--hash=sha256:" + "0" * 64
KNOWN = {
    "id": "TEST-2026-1",
    "modified": "2026-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "leaky"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}],
        }
    ],
}


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=500, check=False)


class Osv(http.server.BaseHTTPRequestHandler):
    """Knows one package with a vulnerability, in the form of https://google.github.io/osv.dev/post-v1-query/."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"vulns": [KNOWN]} if asked["package"]["name"] == "leaky" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def osv() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Osv) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()


def scan(lock: Path | None, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    service = ("--docker", "", "--service", "osv", "--osv-url", url)
    only = ("--lock", lock) if lock else ()
    return run(sys.executable, "scripts/scan.py", *service, *only, *options)


def test_a_scan_names_what_is_known_and_fails(osv: str, tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(f"sound==1.0 \\\n    {HASH}\nleaky==1.0 ; python_version >= '3' \\\n    {HASH}\n")
    done = scan(lock, osv)
    assert done.returncode == 1, done.stderr
    assert "scan: vulnerable: lock.txt: leaky 1.0: TEST-2026-1, mended in 2.0" in done.stdout
    assert "2 packages looked up, 1 vulnerabilities known" in done.stdout
    accepted = scan(lock, osv, "--ignore", "TEST-2026-1")
    assert accepted.returncode == 0, accepted.stdout


def test_a_scan_that_cannot_look_is_no_clean_one(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(f"sound==1.0 \\\n    {HASH}\n")
    done = scan(lock, "http://127.0.0.1:1/v1/query")
    assert done.returncode == 3, done.stderr
    assert "scan: not looked up: lock.txt: " in done.stdout
    assert "0 packages looked up" in done.stdout


def test_every_lock_file_of_the_images_can_be_scanned(osv: str) -> None:
    """All that the Dockerfile copies; pip-audit reads them: markers, hashes, the same package in several."""
    words = (ROOT / "images/Dockerfile").read_text().split()
    copied = {ROOT / word for word in words if word.endswith(".txt") and not word.startswith("/")}
    looked_at = runpy.run_path(str(ROOT / "scripts/scan.py"))["LOCKS"]
    assert ROOT / "images/lock/flask.txt" in copied
    assert copied <= set(looked_at)
    done = scan(None, osv)
    assert done.returncode == 0, done.stdout
    assert "not looked up" not in done.stdout


def checkout(tmp_path: Path) -> Path:
    """What a release is made from: no environment, nothing built."""
    skipped = shutil.ignore_patterns(".venv*", ".git", "*.so", "build", "dist", "*.egg-info", "__pycache__")
    return Path(shutil.copytree(ROOT, tmp_path / "checkout", ignore=skipped))


@pytest.mark.timeout(600)
def test_the_archives_have_the_accelerator_and_all_that_is_imported(tmp_path: Path) -> None:
    root = checkout(tmp_path)
    # In the environment of these tests, which must not be made anew for that folder.
    done = run("make", "dist", f"VENV={sys.prefix}", "--old-file", f"{sys.prefix}/.installed", cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel], [archive] = (list((root / "dist").glob(name)) for name in ("*.whl", "*.tar.gz"))
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("mooring/_accelerator.") for name in names)
    assert "mooring/py.typed" in names
    assert any(name.endswith("/page.html") for name in names)
    with tarfile.open(archive) as opened:
        packed = {name.partition("/")[2] for name in opened.getnames()}
    assert {f"src/accelerator/{each.name}" for each in (ROOT / "src/accelerator").iterdir()} <= packed
    place = tmp_path / "installed"
    installed = run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", place, wheel)
    assert installed.returncode == 0, installed.stderr
    code = (
        f"import sys; sys.path.insert(0, {str(place)!r}); import mooring._accelerator as a; print(a.__file__)"
    )
    assert str(place) in run(sys.executable, "-c", code, cwd=tmp_path).stdout


def test_a_tag_must_be_the_version_and_in_the_changelog(tmp_path: Path) -> None:
    root = tmp_path
    (root / "scripts").mkdir()
    (root / "src/mooring").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/version_check.py", root / "scripts")
    (root / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    (root / "src/mooring/__init__.py").write_text('__version__ = "1.2.3"\n')
    (root / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n")

    def check(*tag: str) -> list[str]:
        return run(sys.executable, root / "scripts/version_check.py", *tag).stderr.splitlines()

    assert check() == []
    assert [line.partition(": ")[2][:20] for line in check("v1.2")] == [
        "the tag is v1.2, pyp",
        "CHANGELOG.md has no ",
    ]
    (root / "CHANGELOG.md").write_text("# Changelog\n\n## [1.2.3] - 2026-12-01\n")
    assert check("v1.2.3") == []
    (root / "src/mooring/__init__.py").write_text('__version__ = "1.2.2"\n')
    assert check("v1.2.3") == ["version-check: src/mooring/__init__.py has 1.2.2, pyproject.toml 1.2.3"]


def test_this_checkout_agrees_with_itself() -> None:
    done = run("make", "version-check")
    assert done.returncode == 0, done.stderr
