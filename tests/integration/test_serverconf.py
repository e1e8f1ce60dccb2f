"""The configuration that users bring for gunicorn and hypercorn: found by the rules, evaluated outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from profile_tools import CONFS

import mooring
from mooring.errors import ConfigurationError
from mooring.plan.server_config import find as find_module
from mooring.plan.server_config import values
from mooring.settings.profiles import PROFILES
from mooring.settings.resolve import resolve
from mooring.system.address import Address

pytest.importorskip("gunicorn")


@pytest.fixture
def root(tmp_path):
    return tmp_path


def find(root: Path, **environ: str):
    """What is found with these variables; profiles have their root here, not in /app."""
    environ = {"PATH": os.environ["PATH"], "MOORING_APP_ROOT": str(root), **environ}
    return find_module.find(resolve({}, environ, root), environ)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# nothing brought


@pytest.mark.parametrize("profile", list(PROFILES))
def test_nothing_brought_costs_nothing(root, profile, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    assert find(root, MOORING_PROFILE=profile) is None


def test_no_server_is_ever_imported(root):
    write(root / "gunicorn.py", "raise SystemExit('imported')")
    write(root / "gunicorn_conf.py", "workers = 2")
    code = (
        "import os, sys; from pathlib import Path; from mooring.settings.resolve import resolve\n"
        "from mooring.plan.server_config.find import find\n"
        "print(find(resolve({}, os.environ, Path.cwd()), os.environ).kind)\n"
        "assert not {'gunicorn', 'hypercorn', '__config__'} & set(sys.modules)\n"
    )
    (root / "gunicorn.py").unlink()
    environ = {"GUNICORN_CONF": "gunicorn_conf.py", "PYTHONPATH": str(Path(mooring.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environ}, cwd=root, capture_output=True, text=True
    )
    assert done.stdout == "gunicorn\n", done.stderr


# gunicorn


def test_file_named_by_variable(root):
    path = write(root / "conf" / "my.py", "workers = 3\nprint('{\"workers\": 3}')\n")
    found = find(root, GUNICORN_CONF="conf/my.py")
    assert (found.kind, found.path) == ("gunicorn", str(path))
    assert found.overrides == {"workers": 3}
    assert found.origin("workers") == f"file:{path}"
    assert found.origin("engine") == "env:GUNICORN_CONF"


def test_only_what_is_really_set_with_mooring_types(root, capfd):
    conf = """
import multiprocessing
print("a dump, as the images' files print it")
bind = ["0.0.0.0:80", "[::1]:81", "unix:/run/x.sock", "example"]
workers = 2
worker_class = "gthread"
threads = 4
timeout = 20
graceful_timeout = 21
keepalive = 5
backlog = 64
loglevel = "warning"
errorlog = "-"
def post_fork(server, worker): pass
"""
    write(root / "g.py", conf)
    found = find(root, GUNICORN_CONF="g.py")
    assert dict(found.overrides) == {
        "bind": (
            Address("tcp", "0.0.0.0", 80),
            Address("tcp", "::1", 81),
            Address("unix", path="/run/x.sock"),
            Address("tcp", "example", 8000),
        ),
        "workers": 2,
        "worker_class": "gthread",
        "threads": 4,
        "timeout": 20.0,
        "graceful_timeout": 21.0,
        "keep_alive": 5.0,
        "backlog": 64,
        "log_level": "warning",
        "error_log": "-",
    }
    assert capfd.readouterr() == ("", "")


def test_web_concurrency_is_gunicorns_default_and_no_override(root):
    write(root / "g.py", "timeout = 5")
    assert dict(find(root, GUNICORN_CONF="g.py", WEB_CONCURRENCY="7").overrides) == {"timeout": 5.0}


def test_arguments_win_over_the_file(root):
    path = write(root / "g.py", "workers = 2\ntimeout = 5")
    found = find(root, GUNICORN_CONF="g.py", GUNICORN_CMD_ARGS="-w 3 -b 127.0.0.1:9000 --keep-alive 9")
    assert found.overrides["workers"] == 3
    assert found.origin("workers") == "env:GUNICORN_CMD_ARGS"
    assert found.origin("timeout") == f"file:{path}"
    assert found.overrides["bind"] == (Address("tcp", "127.0.0.1", 9000),)
    assert found.overrides["keep_alive"] == 9.0


def test_arguments_alone(root):
    found = find(root, GUNICORN_CMD_ARGS="-w 3 -k asgi")
    assert (found.kind, found.path) == ("gunicorn", None)
    assert dict(found.overrides) == {"workers": 3, "worker_class": "asgi"}
    assert found.origin("engine") == "env:GUNICORN_CMD_ARGS"


def test_arguments_may_name_the_file(root):
    path = write(root / "g.py", "workers = 2")
    found = find(root, GUNICORN_CMD_ARGS=f"-c {path}")
    assert (found.path, found.origin("workers")) == (str(path), f"file:{path}")
    other = write(root / "other.py", "workers = 4")
    assert find(root, GUNICORN_CMD_ARGS=f"-c {path}", GUNICORN_CONF=str(other)).overrides == {"workers": 4}


def test_python_module_and_imports_below_the_root(root):
    write(root / "settings_of_mine.py", "WORKERS = 6")
    write(root / "conf_module.py", "import settings_of_mine\nworkers = settings_of_mine.WORKERS")
    found = find(root, GUNICORN_CONF="python:conf_module")
    assert (found.path, found.overrides) == ("python:conf_module", {"workers": 6})


def test_gunicorns_own_default_file_counts_once_gunicorn_is_chosen(root):
    path = write(root / "gunicorn.conf.py", "workers = 5")
    assert find(root) is None
    assert find(root, MOORING_ENGINE="gunicorn").path == str(path)
    assert find(root, WORKER_CLASS="sync").overrides == {"workers": 5}
    assert find(root, GUNICORN_CMD_ARGS="-t 9").overrides == {"workers": 5, "timeout": 9.0}


def test_tls_and_its_one_file(root):
    write(root / "g.py", "certfile = 'c.pem'\nkeyfile = 'k.pem'\nca_certs = 'ca.pem'\ncert_reqs = 2")
    assert dict(find(root, GUNICORN_CONF="g.py").overrides) == {
        "tls_certificate": "c.pem",
        "tls_key": "k.pem",
        "tls_client_ca": "ca.pem",
    }
    write(root / "g.py", "certfile = 'both.pem'\nca_certs = 'ca.pem'")
    both = {"tls_certificate": "both.pem", "tls_key": "both.pem"}
    assert dict(find(root, GUNICORN_CONF="g.py").overrides) == both


def test_an_access_log_of_gunicorns_is_not_written_twice(root):
    found = find(root, GUNICORN_CMD_ARGS="--access-logfile -")
    assert found.overrides == {"access_log": None}


def test_reload_is_mooring_s(root):
    assert find(root, GUNICORN_CMD_ARGS="--reload").overrides == {"reload": True}


def test_no_worker_is_one_worker(root):
    found = find(root, GUNICORN_CMD_ARGS="-w 0")
    assert found.overrides == {"workers": 1}
    assert "one worker is the least" in found.warnings[0]


def test_what_is_not_followed_is_said(root):
    found = find(root, GUNICORN_CMD_ARGS="--daemon --pid /run/x.pid")
    assert [warning.split()[0] for warning in found.warnings] == ["daemon", "pidfile"]
    write(root / "h.toml", 'insecure_bind = ["127.0.0.1:1"]\nquic_bind = "127.0.0.1:2"\nmax_requests = 5\n')
    found = find(root, HYPERCORN_CONF="h.toml")
    names = ["insecure_bind", "quic_bind", "max_requests"]
    assert [warning.split()[0] for warning in found.warnings] == names
    from hypercorn.config import Config

    known = {*dir(Config()), *Config.__annotations__}
    assert set(values._UNUSED["hypercorn"]) <= known


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--no-such-option", "unrecognized arguments: --no-such-option"),
        ("-w many", "argument -w/--workers: invalid int value: 'many'"),
        ("-w 'unclosed", "No closing quotation"),
        ("-w -1", "workers"),
        ("--help", "--help"),
        ("--log-level loud", "loglevel='loud': expected one of debug"),
    ],
)
def test_bad_arguments_are_one_line(root, arguments, expected, capfd):
    with pytest.raises(ConfigurationError) as caught:
        find(root, GUNICORN_CMD_ARGS=arguments)
    assert "GUNICORN_CMD_ARGS" in str(caught.value)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_is_named(root):
    for name in ("GUNICORN_CONF", "HYPERCORN_CONF"):
        with pytest.raises(ConfigurationError, match=f"{name}: .*/missing.py does not exist"):
            find(root, **{name: "missing.py"})
    with pytest.raises(ConfigurationError, match=r"missing\.py does not exist"):
        find(root, GUNICORN_CMD_ARGS="-c missing.py")


def test_a_failing_file_shows_its_traceback(root, capfd):
    write(root / "g.py", "print('before')\nraise ValueError('in the file')")
    with pytest.raises(ConfigurationError, match=r"g\.py failed: ValueError: in the file"):
        find(root, GUNICORN_CONF="g.py")
    shown = capfd.readouterr().err
    assert "before" in shown
    assert (
        f'{root / "g.py"}", line 2'
        in shown.partition("Traceback (most recent call last):\n")[2].partition("\n")[0]
    )
    write(root / "g.py", "workers = 'many'")
    with pytest.raises(ConfigurationError, match=r"g\.py: workers: "):
        find(root, GUNICORN_CONF="g.py")


def test_a_hanging_file_is_given_up(root, monkeypatch):
    monkeypatch.setattr(find_module, "TIMEOUT", 0.5)
    write(root / "g.py", "import time\ntime.sleep(100)")
    with pytest.raises(ConfigurationError, match=r"took longer than 0\.5 s"):
        find(root, GUNICORN_CONF="g.py")


def test_what_a_file_leaves_running_is_not_waited_for(root):
    write(root / "g.py", "import subprocess\nsubprocess.Popen(['sleep', '5'])\nworkers = 3")
    began = time.monotonic()
    assert find(root, GUNICORN_CONF="g.py").overrides == {"workers": 3}
    assert time.monotonic() - began < 4


# the search order of the profiles


def profile(monkeypatch, name: str, shipped: Path):

    monkeypatch.setitem(PROFILES, name, PROFILES[name]._replace(shipped_conf=str(shipped)))


@pytest.mark.parametrize("name", ["inboard-base", "conda-starlette", "meinheld-flask"])
def test_search_order(root, name, monkeypatch):
    shipped = write(root / "shipped.py", CONFS[name].read_text())
    profile(monkeypatch, name, shipped)
    assert find(root, MOORING_PROFILE=name) is None
    assert find(root, MOORING_PROFILE=name, GUNICORN_CONF=str(shipped)) is None  # the image's own ENV
    write(shipped, shipped.read_text() + "\nworkers = 9\n")  # appended to by the user
    assert find(root, MOORING_PROFILE=name).overrides["workers"] == 9
    write(shipped, "workers = 8\n")  # replaced by the user
    assert find(root, MOORING_PROFILE=name).overrides == {"workers": 8}
    inner = write(root / "app" / "gunicorn_conf.py", "workers = 7")
    assert find(root, MOORING_PROFILE=name).path == str(inner)
    outer = write(root / "gunicorn_conf.py", "workers = 6")
    found = find(root, MOORING_PROFILE=name)
    assert (found.path, found.origin("engine")) == (str(outer), f"file:{outer}")
    other = write(root / "other.py", "workers = 5")
    assert find(root, MOORING_PROFILE=name, GUNICORN_CONF=str(other)).overrides == {"workers": 5}


def test_search_order_of_hypercorn(root, monkeypatch):
    shipped = write(root / "shipped.py", CONFS["hypercorn"].read_text())
    profile(monkeypatch, "hypercorn", shipped)
    assert find(root, MOORING_PROFILE="hypercorn") is None
    inner = write(root / "app" / "hypercorn_conf.py", "workers = 7")
    found = find(root, MOORING_PROFILE="hypercorn")
    assert (found.kind, found.path, found.overrides) == ("hypercorn", f"file:{inner}", {"workers": 7})
    assert found.origin("workers") == f"file:{inner}"


def test_no_search_without_a_profile(root):
    write(root / "gunicorn_conf.py", "workers = 6")
    assert find(root) is None


# worker classes


@pytest.mark.parametrize(
    "name",
    [
        *("sync", "gthread", "asgi", "gevent"),
        *("uvicorn.workers.UvicornWorker", "uvicorn_worker.UvicornH11Worker", "mine.Worker"),
    ],
)
@pytest.mark.parametrize("profile_name", ["none", "inboard-fastapi"])
def test_a_worker_class_of_gunicorn_brings_gunicorn(root, name, profile_name):
    write(root / "mine.py", "raise SystemExit('imported')")
    found = find(root, WORKER_CLASS=name, MOORING_PROFILE=profile_name)
    assert (found.kind, found.path, dict(found.overrides)) == ("gunicorn", None, {})
    assert found.origin("engine") == "env:WORKER_CLASS"


def test_an_unknown_worker_class_is_an_error(root):
    for name in ("nope", "no_such_package.Worker", "egg:meinheld#gunicorn_worker"):
        with pytest.raises(ConfigurationError, match=f"WORKER_CLASS={name}"):
            find(root, WORKER_CLASS=name)
    with pytest.raises(ConfigurationError, match="MOORING_ENGINE=hypercorn"):
        find(root, WORKER_CLASS="trio")


@pytest.mark.parametrize("environ", [{"MOORING_PROFILE": "hypercorn"}, {"MOORING_ENGINE": "hypercorn"}])
def test_worker_classes_of_hypercorn(root, environ):
    for name in ("asyncio", "uvloop", "trio"):
        assert find(root, WORKER_CLASS=name, **environ) is None
    for name in ("nope", "sync"):
        with pytest.raises(ConfigurationError, match=f"WORKER_CLASS={name}: expected one of asyncio"):
            find(root, WORKER_CLASS=name, **environ)


@pytest.mark.parametrize(
    ("name", "profile_name", "instead"),
    [
        ("egg:meinheld#gunicorn_worker", "meinheld-flask", "granian"),
        ("no_such_package.Worker", "conda-starlette", "uvicorn"),
    ],
)
def test_a_worker_class_that_is_not_installed_is_ignored_where_it_was(root, name, profile_name, instead):
    found = find(root, WORKER_CLASS=name, MOORING_PROFILE=profile_name)
    assert (found.kind, dict(found.overrides)) == ("", {})
    assert "is ignored" in found.warnings[0]
    assert f"{instead} serves the application" in found.warnings[0]
    assert find(root, WORKER_CLASS="sync", MOORING_PROFILE=profile_name).kind == "gunicorn"


# an engine that the user named


def test_a_named_engine_wins(root):
    write(root / "gunicorn_conf.py", "workers = 6")
    found = find(
        root,
        MOORING_ENGINE="uvicorn",
        MOORING_PROFILE="inboard-base",
        WORKER_CLASS="sync",
        GUNICORN_CMD_ARGS="-w 3",
    )
    assert (found.kind, found.path, dict(found.overrides)) == ("", None, {})
    assert len(found.warnings) == 3
    assert all("is not used: the engine is uvicorn" in warning for warning in found.warnings)


def test_two_servers_configurations_contradict_each_other(root):
    write(root / "g.py", "")
    write(root / "h.toml", "")
    with pytest.raises(ConfigurationError, match=r"asks for gunicorn, HYPERCORN_CONF .* for hypercorn"):
        find(root, GUNICORN_CONF="g.py", HYPERCORN_CONF="h.toml")
    found = find(root, GUNICORN_CONF="g.py", HYPERCORN_CONF="h.toml", MOORING_ENGINE="hypercorn")
    assert found.kind == "hypercorn"
    assert "GUNICORN_CONF" in found.warnings[0]


# hypercorn


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("h.py", "file:{root}/h.py"),
        ("file:h.py", "file:{root}/h.py"),
        ("h.toml", "{root}/h.toml"),
        ("python:h", "python:h"),
    ],
)
def test_hypercorn_configuration(root, reference, path):
    write(root / "h.toml", 'bind = "127.0.0.1:1"\nworkers = 2\nkeep_alive_timeout = 3\nh2_max = 1')
    write(root / "h.py", "import os\nbind = ['127.0.0.1:1']\nworkers = 2\nkeep_alive_timeout = 3\nx = {1: 2}")
    found = find(root, HYPERCORN_CONF=reference)
    assert (found.kind, found.path) == ("hypercorn", path.format(root=root))
    assert dict(found.overrides) == {
        "bind": (Address("tcp", "127.0.0.1", 1),),
        "workers": 2,
        "keep_alive": 3.0,
    }
    assert found.origin("bind") == "file:" + path.format(root=root).removeprefix("file:")


def test_bad_toml_is_one_line(root):
    write(root / "h.toml", "bind = ")
    with pytest.raises(ConfigurationError, match=r"h\.toml: not valid TOML"):
        find(root, HYPERCORN_CONF="h.toml")
