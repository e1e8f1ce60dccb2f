"""What live reload looks at: includes and excludes, one look at the folders, silent file systems."""

from __future__ import annotations

from pathlib import Path

import pytest

from mooring.supervisor.reload import files
from mooring.supervisor.reload.files import FileRules, WatchedFolder, look
from mooring.system import mounts

ROOT = WatchedFolder("/srv/app")


def counts(name: str, includes: tuple[str, ...] = (), excludes: tuple[str, ...] = ()) -> bool:
    """Whether a file counts, entering the folders on its way as a look does."""
    rules, folder, path = FileRules(includes, excludes), ROOT, ROOT.root
    *folders, file = name.split("/")
    for part in folders:
        path += "/" + part
        entered = rules.enter(folder, path)
        if entered is None:
            return False
        folder = entered
    return rules.counts(folder, f"{path}/{file}")


@pytest.mark.parametrize(
    "name", ["main.py", "a/b/c.py", "__init__.py", "venv.py", "node_modules.py", "x.y.py"]
)
def test_python_files_count(name):
    assert counts(name)


@pytest.mark.parametrize(
    "name",
    [
        *("main.pyc", "main.py~", ".main.py.swp", ".#main.py", "#main.py#", ".hidden.py", "flycheck_main.py"),
        *("main.py___jb_tmp___", "README.md", "main.PY", ".venv/x.py", ".git/x.py", "__pycache__/x.py"),
        *("a/node_modules/x.py", ".mypy_cache/x.py", "a/.tox/py/x.py"),
    ],
)
def test_these_don_t(name):
    assert not counts(name)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*.html", ["x.html", "a/b/x.html"], ["x.htm", ".x.html"]),
        ("Makefile", ["Makefile", "a/Makefile"], ["Makefile.old"]),
        (".env", [".env", "a/.env"], ["x.env", ".env.local"]),
        (".env*", [".env.local"], []),
        ("templates", ["templates/x", "a/templates/b/x.css"], ["templates.txt", "templates/.hidden"]),
        ("templates/", ["templates/x", "a/templates/x"], ["x"]),
        ("./conf", ["conf/x"], []),
        ("a/conf", ["a/conf/x", "a/conf/b/x"], ["conf/x", "b/a/conf/x"]),
        ("./a/conf/*.yml", ["a/conf/x.yml"], ["a/conf/b/x.yml", "a/conf/x.yaml", "conf/x.yml"]),
        ("**/conf/*.yml", ["conf/x.yml", "a/b/conf/x.yml"], ["x.yml", "conf/a/x.yml"]),
        ("a/**/x.txt", ["a/x.txt", "a/b/c/x.txt"], ["x.txt", "b/x.txt"]),
        ("/srv/app/a/*.txt", ["a/x.txt"], ["x.txt", "b/a/x.txt"]),
        ("/srv/app/a", ["a/x.txt"], ["b/x.txt"]),
        ("*", ["x", "a/x.css"], [".x", "x.pyc", ".git/x", "node_modules/x"]),
    ],
)
def test_a_pattern_includes_and_excludes_the_same(pattern, yes, no):
    for name in yes:
        assert counts(name, includes=(pattern,))
        assert not counts(name, includes=("*", ".*"), excludes=(pattern,))
    for name in no:
        assert not counts(name, includes=(pattern,))


def test_python_files_always_count_unless_they_are_excluded():
    assert counts("main.py", includes=("*.html",))
    assert not counts("main.py", includes=("*.html",), excludes=("*.py",))
    assert counts("x.html", includes=("*.html",), excludes=("*.py",))


def test_a_root_may_lie_in_a_folder_that_would_be_skipped():
    folder = WatchedFolder("/home/me/.work/node_modules/app")
    assert FileRules().counts(folder, "/home/me/.work/node_modules/app/main.py")


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_look_enters_each_folder_once_and_follows_links(tmp_path):
    write(tmp_path / "real/pkg/x.py")
    (tmp_path / "a-link").symlink_to("real/pkg")
    (tmp_path / "real/up").symlink_to("..")
    (tmp_path / "file.py").symlink_to(write(tmp_path / "outside/target.py"))
    write(tmp_path / "env/pyvenv.cfg")
    write(tmp_path / "env/x.py")
    tree = look([str(tmp_path)], FileRules((), ("outside",)))
    assert sorted(tree.files) == [f"{tmp_path}/file.py", f"{tmp_path}/real/pkg/x.py"]
    assert sorted(tree.folders) == [f"{tmp_path}{sub}" for sub in ("", "/real", "/real/pkg")]
    assert tree.links == {f"{tmp_path}/outside/target.py": f"{tmp_path}/file.py"}


def test_a_look_at_roots_in_each_other_and_missing_ones(tmp_path):
    write(tmp_path / "pkg/x.py")
    tree = look([str(tmp_path), str(tmp_path / "pkg"), str(tmp_path / "no")], FileRules())
    assert len(tree.files) == 1
    assert tree.missing == (str(tmp_path / "no"),)


def test_changed_tells_new_gone_and_written_but_not_new_rights(tmp_path):
    same, written, gone = (write(tmp_path / f"{name}.py") for name in ("same", "written", "gone"))
    before = look([str(tmp_path)], FileRules()).files
    same.chmod(0o600)
    written.write_text("longer")
    gone.unlink()
    new = write(tmp_path / "new.py")
    assert files.changed(before, look([str(tmp_path)], FileRules()).files) == set(
        map(str, (written, gone, new))
    )


MOUNTINFO = """\
24 1 0:22 / / rw,relatime - overlay overlay rw
25 24 0:23 / /proc rw - proc proc rw
31 24 0:40 / /app rw,relatime - virtiofs app rw
32 31 8:1 / /app/local rw - ext4 /dev/sda1 rw
33 24 0:41 / /my\\040code rw shared:1 master:2 - fuse.sshfs me@host:/code rw
34 24 0:42 / /twice rw - nfs4 server:/x rw
35 34 8:2 / /twice rw - ext4 /dev/sdb1 rw
36 24 8:3 / /ntfs rw - fuseblk /dev/sdc1 rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        *[("/app", "virtiofs"), ("/app/src", "virtiofs"), ("/my code/src", "fuse.sshfs")],
        *[("/app/local", None), ("/application", None), ("/srv", None), ("/twice/x", None), ("/ntfs", None)],
    ],
)
def test_file_systems_without_notifications(folder, kind, tmp_path):
    """Laid out as in proc(5): optional fields, an escaped space, one mount over another."""
    found = mounts.silent([folder], write(tmp_path / "mountinfo", MOUNTINFO))
    assert found == (None if kind is None else (folder, kind))


@pytest.mark.parametrize("text", ["", "\n", "24 1 - \n", "24 1 0:22 / / rw\n", "- x\n"])
def test_a_mountinfo_that_makes_no_sense_means_notifications(text, tmp_path):
    assert mounts.silent(["/app"], write(tmp_path / "mountinfo", text)) is None
    assert mounts.silent(["/app"], tmp_path / "missing") is None
