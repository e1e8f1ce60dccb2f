"""What is in the images, and what is not: packages, compiled code, labels, users, the bill of materials."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable

import pytest
from container import Starter
from engine import ROOT, run
from images import DOCKERFILE, Images

pytestmark = pytest.mark.docker

Inside = Callable[..., str]


@pytest.fixture
def inside(docker: str, images: Images) -> Inside:
    """Run a command in a target's container: its stdout."""

    def look(target: str, *command: str, options: tuple[str, ...] = ()) -> str:
        done = run(docker, "run", "--rm", *options, images.target(target), *command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return look


def test_every_engine_the_accelerator_and_nothing_to_build_with(inside: Inside) -> None:
    check = (
        "import mooring._accelerator, uvicorn, uvloop, httptools, granian, hypercorn, trio, gunicorn, debugpy"
    )
    inside("base", "python", "-c", check)
    tools = "gcc cc c++ make ld as strip git curl"
    look = f"for tool in {tools}; do command -v $tool; done; true"
    assert inside("base", "sh", "-c", look).split() == []
    leavings = (
        "ls -A /root /tmp /var/lib/apt/lists /var/cache/apt/archives 2>/dev/null; find / -xdev -name '*.whl'"
    )
    names = {line for line in inside("base", "sh", "-c", leavings).split() if not line.startswith("/")}
    assert names <= {".bashrc", ".profile", "lock", "partial"}


def test_all_of_it_is_compiled_and_the_code_is_root_s_alone(inside: Inside) -> None:
    unused_by_servers = "|".join((ROOT / "images/build/uncompiled").read_text().split())
    script = """
import importlib.util, os, pathlib, re, sys
for folder in ("/opt/mooring/server", "/opt/mooring/packages"):
    for file in pathlib.Path(folder).rglob("*.py"):
        if "pip" in file.parts or re.search(sys.argv[1], str(file)): continue
        cached = importlib.util.cache_from_source(str(file))
        seconds = int.from_bytes(pathlib.Path(cached).read_bytes()[8:12], "little")
        if seconds != int(file.stat().st_mtime): print("stale:", file)
for folder, folders, files in os.walk("/opt"):
    for name in folders + files:
        state = os.lstat(os.path.join(folder, name))
        link = os.path.islink(os.path.join(folder, name))
        if state.st_uid or (state.st_mode & 0o022 and not link): print("open:", folder, name)
"""
    assert inside("base", "python", "-c", script, unused_by_servers) == ""


def test_a_start_writes_nothing(docker: str, start: Starter, images: Images) -> None:
    """Not even compiled code: what a server imports is there already."""
    container = start(images.target("fastapi"))
    assert container.text().startswith("Hello world! From mooring, uvicorn")
    changed = run(docker, "diff", container.name).stdout.split("\n")
    written = {line[2:] for line in changed if line[:1] in "AC" and not line[2:].startswith(("/run", "/tmp"))}
    assert {path for path in written if path.endswith((".pyc", "__pycache__"))} == set()


def test_labels_port_health_check_and_command(images: Images) -> None:
    config = images.inspect(images.target("fastapi"))["Config"]
    labels = config["Labels"]
    for name in ("title", "description", "licenses", "version", "revision"):
        assert labels[f"org.opencontainers.image.{name}"]
    assert config["Healthcheck"]["Test"] == ["CMD", "mooring", "health", "--if-started"]
    assert config["Cmd"] == ["/start.sh"]
    assert "80/tcp" in config["ExposedPorts"]


@pytest.mark.parametrize("options", [(), ("--user", "1000750000:0")], ids=["65532", "another"])
def test_nonroot_serves_on_8080(start: Starter, images: Images, options: tuple[str, ...]) -> None:
    tag = images.target("fastapi-nonroot")
    assert images.inspect(tag)["Config"]["User"] == "65532:65532"
    container = start(tag, "--cap-drop", "ALL", *options, port=8080)
    assert container.text().startswith("Hello world! From mooring, uvicorn")
    uid = container.execute("id", "-u")[1].strip()
    assert uid == (options[1].split(":")[0] if options else "65532")
    assert container.stop() == 0


def test_mooring_user_drops_root_in_a_drop_in(start: Starter, images: Images) -> None:
    container = start(images.target("inboard-base"), "--env", "MOORING_USER=nonroot")
    container.serving()
    pid = container.status()["workers"][0]["pid"]
    owner = container.execute("stat", "-c", "%u", f"/proc/{pid}")[1].strip()
    assert owner == "65532"


def test_the_bill_of_materials_names_what_is_installed(inside: Inside) -> None:
    files = "glob.glob('/opt/mooring/sbom/*')"
    read = f"import json, glob; print(json.dumps([json.load(open(f)) for f in {files}]))"
    documents = json.loads(inside("fastapi", "python", "-c", read))
    assert {each["bomFormat"] for each in documents} == {"CycloneDX"}
    said = {each["purl"].partition("?")[0] for document in documents for each in document["components"]}
    script = """
import re, importlib.metadata as m
import sys
sys.path.append('/opt/mooring/metadata')
for each in m.distributions():
    print('pkg:pypi/' + re.sub('[-_.]+', '-', each.metadata['Name']).lower() + '@' + each.version)
"""
    installed = set(inside("fastapi", "python", "-c", script).split())
    debian = inside("fastapi", "dpkg-query", "-f", "pkg:deb/debian/${Package}@${Version}\\n", "-W").split()
    assert installed <= said
    assert len(debian) == sum(each.startswith("pkg:deb/") for each in said)


def test_two_builds_give_the_same_layers(images: Images) -> None:
    """The second on a base with one layer more: nothing is taken from the cache but downloads.

    With --no-cache two builds at once can end the engine (BuildKit of Docker 20.10: "failed to get edge").
    """
    base = images.inspect("python:3.13-slim-bookworm")["RootFS"]["Layers"]
    first = images.inspect(images.target("fastapi"))["RootFS"]["Layers"]
    text = "FROM python:3.13-slim-bookworm\nCOPY fresh /etc/fresh\n"
    other = images.user(text, {"fresh": uuid.uuid4().hex})
    tag = images.target("fastapi").replace(":", "-again:")
    images.build(ROOT, DOCKERFILE, tag, "--target", "fastapi", "--build-arg", f"BASE={other}")
    again = images.inspect(tag)["RootFS"]["Layers"]
    run(images.docker, "image", "rm", tag)
    assert first[: len(base)] == base
    assert first[len(base) :] == again[len(base) + 1 :]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_fastapi_adds_at_most_60_mib_and_serves(images: Images, start: Starter, python: str) -> None:
    tag = images.target("fastapi", python=python)
    size, base = (images.inspect(each)["Size"] for each in (tag, f"python:{python}-slim-bookworm"))
    print(f"{(size - base) / 2**20:.1f} MiB")
    assert size - base <= 60 * 2**20
    container = start(tag)
    assert f"Python {python}" in container.text()
    assert container.stop() == 0


APPLICATION = """
import importlib.metadata as m, os, uvicorn
async def app(scope, receive, send):
    if scope["type"] == "http":
        body = f"{os.environ.get('X', '')} {m.version('uvicorn')} {m.version('anyio')}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
"""


def test_an_application_may_pin_other_servers(start: Starter, images: Images, docker: str) -> None:
    """As requirements from the older images' days do: it gets its own, mooring serves with its own."""
    pins = "uvicorn==0.30.0\nanyio==4.4.0\ngunicorn==22.0.0\nclick==8.1.7\n"
    text = "FROM mooring:inboard-base\nCOPY requirements.txt /\n"
    text += "RUN pip install -q -r /requirements.txt\nCOPY main.py /app/\n"
    tag = images.user(text, {"requirements.txt": pins, "main.py": APPLICATION})
    listed = run(docker, "run", "--rm", tag, "pip", "list").stdout
    assert "0.30.0" in listed
    container = start(tag)
    assert container.text().split() == ["0.30.0", "4.4.0"]
    assert container.status()["engine"] == "uvicorn"
    gunicorn = start(tag, "--env", "GUNICORN_CMD_ARGS=--max-requests 100000")
    assert gunicorn.get().status_code == 200
    assert gunicorn.status()["engine"] == "gunicorn"
