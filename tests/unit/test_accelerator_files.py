"""The accelerator's files: each is built, and the Python files that its comments name are there."""

from __future__ import annotations

import re

import pytest
from checkout import ROOT

FOLDER = ROOT / "src/accelerator"
SOURCES = sorted(FOLDER.glob("*.c"))
PYTHON = ROOT / "src/mooring"
TWINS = {
    "ring": "scoreboard/ring.py",
    "row": "scoreboard/row.py",
    "line": "logs/access/line.py",
    "asgi": "instrument/asgi.py",
    "asgi_line": "instrument/asgi_line.py",
    "wsgi": "instrument/wsgi.py",
    "wsgi_line": "instrument/wsgi_line.py",
    "wsgi_response": "instrument/wsgi_response.py",
    "granian_wsgi": "engines/granian/wsgi.py",
    "granian_request": "engines/granian/request.py",
    "granian_response": "engines/granian/response.py",
}


def _first_comment(path):
    return re.match(r"/\*(.*?)\*/", path.read_text(), re.DOTALL).group(1)


def test_setup_builds_them_all():
    text = (ROOT / "setup.py").read_text()
    built = set(re.findall(r'"(\w+)"', text[: text.index("setup(")]))
    assert built == {path.stem for path in SOURCES}
    headers = re.search(r"\.h\" for name in \((.*?)\)", text).group(1)
    assert set(re.findall(r"\w+", headers)) == {path.stem for path in FOLDER.glob("*.h")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_each_says_what_specifies_it(path):
    comment = _first_comment(path)
    if path.stem in TWINS:
        assert TWINS[path.stem] in comment
    elif path.stem != "module":
        assert "Has no twin of its name" in comment


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_the_python_files_it_names_are_there(path):
    named = set(re.findall(r"[\w/]+\.py\b", path.read_text()))
    assert [name for name in named if not (PYTHON / name).is_file()] == []
