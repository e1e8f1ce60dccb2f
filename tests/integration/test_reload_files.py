"""Live reload: which changes make a reload, and what belongs together makes one; notified and polling."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import pytest
from harness import eventually
from live import code, dev, marked_reload, reloads, replace_file, wait_version

BOTH = pytest.mark.parametrize("polling", ["off", "on"], ids=["notified", "polling"])


@BOTH
def test_a_burst_is_one_reload(mooring, polling):
    app = dev(mooring, MOORING_RELOAD_POLLING=polling, RELOAD_DELAY=1)
    for number in range(20):
        app.write(f"part{number:02}.py", f"x = {number}\n")
        time.sleep(0.03)  # a burst that takes longer than one look at what has changed
    app.wait_log("Worker reloading: ")
    assert reloads(app) == ["part00.py modified (and 19 more)"]
    assert len(marked_reload(app, 2)) == 1


def test_a_file_that_is_written_in_pieces_is_one_reload(mooring):
    app = dev(mooring, RELOAD_DELAY=1)
    for _ in range(20):
        with (mooring.folder / "part.py").open("a") as file:
            file.write("x = 1\n")
        time.sleep(0.03)
    app.wait_log("Worker reloading: ")
    assert marked_reload(app, 2) == ["part.py"]


def test_an_editor_that_renames_a_temporary_file(mooring):
    app = dev(mooring)
    replace_file(mooring.folder / "main.py", code(2))
    wait_version(app, 2)
    assert reloads(app) == ["main.py"]


def test_git_checkout_is_one_reload(mooring):
    def git(*args):
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", *who, *args], cwd=mooring.folder, check=True, capture_output=True)

    for version in (1, 2):
        (mooring.folder / "main.py").write_text(code(version))
        for number in range(200):
            (mooring.folder / f"module{number}.py").write_text(f"x = {number * version}\n")
        if version == 1:
            git("init", "-b", "one")
        else:
            git("checkout", "-b", "two")
        git("add", ".")
        git("commit", "-m", str(version))
    git("checkout", "one")
    app = dev(mooring, files={})
    git("checkout", "two")
    wait_version(app, 2)
    assert len(reloads(app)) == 1
    git("status")
    git("tag", "three")
    assert len(marked_reload(app, 3)) == 1


@BOTH
def test_new_deleted_and_renamed_files_and_folders(mooring, polling):
    app = dev(mooring, MOORING_RELOAD_POLLING=polling)
    folder = mooring.folder
    changes = [
        (lambda: app.write("new.py", ""), "new.py"),
        (lambda: os.remove(folder / "new.py"), "new.py"),
        (lambda: app.write("pkg/sub/deep.py", ""), "pkg/sub/deep.py"),
        (lambda: app.write("pkg/sub/deep.py", "x = 1"), "pkg/sub/deep.py"),
        (lambda: os.rename(folder / "pkg", folder / "other"), "other/sub/deep.py modified (and 1 more)"),
        (lambda: app.write("other/sub/deep.py", "x = 2"), "other/sub/deep.py"),
        (lambda: os.utime(folder / "other/sub/deep.py"), "other/sub/deep.py"),
        (lambda: os.rename(folder / "other", folder.parent / "gone"), "other/sub/deep.py"),
        (lambda: os.rename(folder.parent / "gone", folder / "back"), "back/sub/deep.py"),
        (lambda: shutil.rmtree(folder / "back"), "back/sub/deep.py"),
    ]
    for number, (change, path) in enumerate(changes, start=1):
        change()
        app.wait_log("Worker reloading: ", count=number)
        assert reloads(app)[-1] == path


@BOTH
def test_what_does_not_reload(mooring, polling):
    hidden = [
        ".venv/lib/x.py",
        ".git/hooks/x.py",
        "node_modules/gyp/x.py",
        "__pycache__/main.py",
        ".hidden.py",
    ]
    hidden += [
        "env/lib/python3/x.py",
        "pkg/__pycache__/x.py",
        "data.txt",
        "main.py~",
        "flycheck_main.py",
        "main.pyc",
    ]
    files = {"main.py": code(1), "env/pyvenv.cfg": "", "pkg/__init__.py": "", ".git/HEAD": ""}
    app = dev(mooring, files=files, MOORING_RELOAD_POLLING=polling)
    for name in hidden:
        app.write(name, "x = 1\n")
    os.makedirs(mooring.folder / "empty/folder")
    (mooring.folder / "main.py").read_text()
    assert marked_reload(app, 2) == []
    for name in hidden:
        app.write(name, "x = 2\n")
    os.removedirs(mooring.folder / "empty/folder")
    assert marked_reload(app, 3) == ["main.py"]


def test_includes_come_on_top_of_python_files(mooring):
    files = {"main.py": code(1), "templates/page.html": "1", "conf/settings.yaml": "1", "conf/note": "1"}
    includes = "*.html,conf,/etc/nothing,./.env"
    app = dev(mooring, "--reload-includes", includes, files=files)
    for name in ("templates/page.html", "conf/settings.yaml", "conf/new/deep", ".env"):
        before = len(reloads(app))
        app.write(name, "2")
        app.wait_log("Worker reloading: ", count=before + 1)
        assert reloads(app)[-1] == name
    app.write("style.css", "2")
    assert len(marked_reload(app, 2)) == 4


@BOTH
def test_excludes_win(mooring, polling):
    files = {"main.py": code(1), "tests/test_x.py": "", "app/migrations/one.py": "", "app/x.py": ""}
    files |= {"conf/x.py": "", "generated_pb2.py": ""}
    excludes = f"tests,app/migrations,*_pb2.py,{mooring.folder}/conf/*.py"
    app = dev(mooring, files=files, RELOAD_EXCLUDES=excludes, MOORING_RELOAD_POLLING=polling)
    for name in ("tests/test_x.py", "app/migrations/two.py", "conf/x.py", "generated_pb2.py"):
        app.write(name, "x = 2")
    assert marked_reload(app, 2) == []
    app.write("app/x.py", "x = 2")
    app.wait_log("Worker reloading: ", count=2)
    assert reloads(app)[-1] == "app/x.py"


@BOTH
def test_several_folders_outside_the_application_and_one_that_comes_later(mooring, polling):
    one, two, late = (mooring.base / name for name in ("one", "two", "late"))
    one.mkdir()
    (two / "sub").mkdir(parents=True)
    dirs = f"{one},{two},{late},."
    app = dev(mooring, RELOAD_DIRS=dirs, MOORING_RELOAD_POLLING=polling)
    assert str(late) in app.wait_log("there is no folder")
    for number, path in enumerate((one / "x.py", two / "sub/x.py", late / "x.py", late / "y.py"), start=1):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x = 1\n")
        app.wait_log("Worker reloading: ", count=number)
        assert reloads(app)[-1] == str(path)
    shutil.rmtree(late)
    app.wait_log("Worker reloading: ", count=5)
    late.mkdir()
    (late / "y.py").write_text("x = 2\n")
    app.wait_log("Worker reloading: ", count=6)
    app.write("main.py", code(2))
    wait_version(app, 2)


def test_only_the_folders_that_are_named(mooring):
    app = dev(mooring, files={"main.py": code(1), "src/x.py": ""}, RELOAD_DIRS="src")
    app.write("main.py", code(2))
    app.write("src/x.py", "x = 1")
    wait_version(app, 2)
    assert reloads(app) == ["src/x.py"]


@BOTH
def test_linked_folders_and_files_are_followed(mooring, polling):
    outside = mooring.base / "outside"
    (outside / "pkg").mkdir(parents=True)
    (outside / "pkg/x.py").write_text("")
    (outside / "file.py").write_text("")
    os.symlink(outside / "pkg", mooring.folder / "pkg")
    os.symlink(outside / "file.py", mooring.folder / "linked.py")
    os.symlink(mooring.folder, mooring.folder / "loop")
    os.symlink("/nowhere", mooring.folder / "broken.py")
    app = dev(mooring, MOORING_RELOAD_POLLING=polling)
    (outside / "pkg/x.py").write_text("x = 1")
    app.wait_log("Worker reloading: ")
    assert reloads(app)[-1] == "pkg/x.py"
    replace_file(outside / "file.py", "x = 1")
    app.wait_log("Worker reloading: ", count=2)
    assert reloads(app)[-1] == "linked.py"
    assert len(marked_reload(app, 2)) == 2


def test_an_application_named_by_a_path_outside_the_root(mooring):
    (mooring.base / "elsewhere").mkdir()
    path = mooring.base / "elsewhere/service.py"
    path.write_text(code(1))
    app = dev(mooring, str(path), files={"README": ""})
    path.write_text(code(2))
    wait_version(app, 2)


def test_names_that_are_no_text(mooring):
    app = dev(mooring)
    os.mkdir(os.fsencode(mooring.folder) + b"/\xff\xfe")
    for number, name in enumerate([b"\xff.py", b"a\nb.py", "grün.py".encode()], start=1):
        with open(os.fsencode(mooring.folder) + b"/" + name, "w") as file:
            file.write("x = 1")
        app.wait_log("Worker reloading: ", count=number)
    assert len(marked_reload(app, 2)) == 3


def test_folders_come_and_go_without_end(mooring):
    """As uploads and temporary folders of an application in its own folder do."""
    app = dev(mooring)
    for number in range(200):
        os.mkdir(mooring.folder / f"upload{number}")
        (mooring.folder / f"upload{number}/data").write_text("x")
        shutil.rmtree(mooring.folder / f"upload{number}")
    assert marked_reload(app, 2) == []


SLOW = """
import pathlib, time
pathlib.Path("booting").touch()
while not pathlib.Path("saved").exists():
    time.sleep(0.01)
"""


def test_a_save_while_the_first_worker_boots_is_not_lost(mooring):
    app = mooring.start("dev", files={"main.py": SLOW + code(1)})
    eventually(lambda: (mooring.folder / "booting").exists(), "the first import")
    app.write("main.py", code(2))
    (mooring.folder / "saved").touch()
    wait_version(app, 2)
    assert app.stop() == 0
