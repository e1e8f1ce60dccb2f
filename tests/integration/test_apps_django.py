"""One Django project with a model, by its asgi and its wsgi module, on every engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from harness import PATIENCE
from served import Served
from variants import ALL, APPS, Variant

FORM = "csrfmiddlewaretoken"
SERVABLE = [variant for variant in ALL if (variant.interface, variant.worker_class) != ("asgi", "trio")]


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    """A migrated database with an administrator, made once by the project's own manage.py."""
    path = tmp_path_factory.mktemp("django") / "notes.sqlite"
    environ = {
        **os.environ,
        "NOTES_DATABASE": str(path),
        "DJANGO_SUPERUSER_PASSWORD": "secret",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    for command in (
        ["migrate", "--verbosity=0"],
        ["createsuperuser", "--noinput", "--username=admin", "--email=admin@example.org", "--verbosity=0"],
    ):
        subprocess.run([sys.executable, "manage.py", *command], cwd=APPS / "django", env=environ, check=True)
    return path


@pytest.mark.parametrize("variant", SERVABLE, ids=str)
def test_a_project_serves_its_model_and_its_admin(mooring, variant: Variant, database: Path):
    copy = shutil.copy(database, mooring.base / "notes.sqlite")
    named = ["notes_site.asgi"] if variant.interface == "asgi" else []  # its wsgi.py is what is found
    served = Served.start(mooring, variant, *named, folder="django", NOTES_DATABASE=copy)
    plan = served.app.status()["plan"]
    assert plan["app"]["value"] == f"notes_site.{variant.interface}:application"
    with httpx.Client(base_url=served.url, timeout=PATIENCE, trust_env=False) as client:
        assert client.get("/hello/grüße").json() == {"hello": "grüße"}
        created = client.post("/notes", json={"title": "größer", "size": 3})
        assert (created.status_code, created.json()) == (201, {"title": "größer", "size": 3})
        assert client.post("/upload", content=b"x" * 1_000_000).json() == {"size": 1_000_000}
        chunked = client.post("/upload", content=iter([b"abc", b"def"]))
        whole = variant.interface == "asgi"  # Django's own difference: docs/engines.md
        assert chunked.json() == {"size": 6 if whole else 0}
        assert client.get("/stream").text == "0\n1\n2\n3\n4\n"
        style = client.get("/static/admin/css/base.css")
        assert (style.status_code, style.headers["content-type"]) == (200, "text/css")
        assert client.get("/nowhere").status_code == 404
        lists_notes_after_login(client)
    assert served.app.stop() == 0


def lists_notes_after_login(client: httpx.Client) -> None:
    page = client.get("/admin/login/?next=/admin/")
    assert page.status_code == 200
    assert FORM in page.text
    token = page.text.partition(f'name="{FORM}" value="')[2].partition('"')[0]
    answer = client.post(
        "/admin/login/?next=/admin/notes/note/",
        data={"username": "admin", "password": "secret", FORM: token},
    )
    assert (answer.status_code, answer.headers["location"]) == (302, "/admin/notes/note/")
    assert "1 note" in client.get("/admin/notes/note/").text
