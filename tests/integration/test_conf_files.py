"""The configuration files at the older images' paths agree with `mooring run`; their servers read them."""

from __future__ import annotations

import ast
import binascii
import contextlib
import io
import json
import os
import runpy
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from harness import WSGI_APP, eventually, free_port, pids_marked
from profile_tools import CONF, CONFS, CORES, conf, run_conf, says, serve, start, stop

from mooring import resources
from mooring.application import discovery
from mooring.commands.run import config_dump
from mooring.errors import ConfigurationError
from mooring.plan.plan import plan
from mooring.plan.server_config.shipped import UNCHANGED
from mooring.settings.resolve import resolve

ROOT = CONF.parents[1]
sys.path.append(str(ROOT / "tests" / "unit"))
from trees import TREES, build  # noqa: E402

# Environments that must give the same object; see table A.0 for the numbers.
GRID: list[dict[str, str]] = [
    {},
    {"WEB_CONCURRENCY": "4", "MAX_WORKERS": "2"},
    {"WEB_CONCURRENCY": " 3 "},
    {"WEB_CONCURRENCY": ""},
    {"WORKERS": "3"},
    {"WORKERS": "3", "WEB_CONCURRENCY": "5"},
    {"MOORING_WORKERS": "6", "WORKERS": "3", "WEB_CONCURRENCY": "5"},
    {"MAX_WORKERS": "1"},
    {"MAX_WORKERS": "0"},
    {"WORKERS_PER_CORE": "3", "MAX_WORKERS": "4"},
    *({"WORKERS_PER_CORE": text} for text in ("0.1", "0.5", "1.75", "3", "1e1", "")),
    *({"MOORING_CPU_COUNT": text, "WORKERS_PER_CORE": "1"} for text in ("host", "0.3", "1", "2.5", "64")),
    {"MOORING_CPU_COUNT": "7", "MOORING_WORKERS_PER_CORE": "0.5", "WORKERS_PER_CORE": "3"},
    {"PORT": "8080", "HOST": "127.0.0.1"},
    {"PORT": "", "HOST": "", "BIND": ""},
    {"PORT": "0080", "HOST": "::1"},
    *(
        {"BIND": text}
        for text in (":81", "[::1]:81", "unix:/run/x.sock", "/run/x.sock", "a:1, b:2", "fd://3")
    ),
    {"BIND": "127.0.0.1:8081", "HOST": "10.0.0.1", "PORT": "9000"},
    *({"LOG_LEVEL": text} for text in ("WARNING", "warn", "Debug", "", "SUCCESS", "fatal", "0", "14", "46")),
    {"ACCESS_LOG": "", "ERROR_LOG": ""},
    {"ACCESS_LOG": "True", "ERROR_LOG": "1"},
    {"ACCESS_LOG": "off", "ERROR_LOG": "none"},
    {"ACCESS_LOG": "/tmp/a.log", "ERROR_LOG": " ", "MOORING_ACCESS_LOG": ""},
    {"TIMEOUT": "20", "GRACEFUL_TIMEOUT": "20.0", "KEEP_ALIVE": "1.5"},
    {"TIMEOUT": "0", "GRACEFUL_TIMEOUT": "", "KEEP_ALIVE": " 7 "},
    {"WORKER_TMP_DIR": "/tmp"},
]
BAD = [
    *({"WEB_CONCURRENCY": text} for text in ("0", "-1", "abc", "1.5", "5000", "1_0")),
    *({"PORT": text} for text in ("abc", "-1", "65536")),
    *({"BIND": text} for text in ("nonsense", "host:port", "::1:80", "a:99999")),
    *({"LOG_LEVEL": text} for text in ("loud",)),
    *({"KEEP_ALIVE": text} for text in ("-1", "soon", "inf", "nan")),
    {"TIMEOUT": "x", "GRACEFUL_TIMEOUT": "y"},
]
OF_ONE: list[tuple[str, dict[str, str]]] = [
    ("hypercorn", {"WORKER_CLASS": "uvloop"}),
    ("hypercorn", {"WORKER_CLASS": ""}),
    ("poetry", {"RELOAD": "True", "WORKERS": "2", "LOG_LEVEL": "debug"}),
    ("poetry", {"RELOAD": "0"}),
    ("poetry", {"WITH_RELOAD": "yes"}),
]
TUNED = [profile for profile in CONFS if profile != "poetry"]
BAD_OF_ONE = [
    *((profile, {"WORKERS_PER_CORE": text}) for profile in TUNED for text in ("0", "-1", "x")),
    *((profile, {"MAX_WORKERS": text}) for profile in TUNED for text in ("-1", "abc")),
    ("hypercorn", {"WORKER_CLASS": "nope"}),
    ("poetry", {"RELOAD": "perhaps"}),
]


def name_of(environ: dict[str, str]) -> str:
    return " ".join(f"{name}={text}" for name, text in environ.items())


def dumped(profile: str, environ: dict[str, str], root: Path) -> str:
    """The line that `mooring run` prints."""
    variables = {"MOORING_PROFILE": profile, "MOORING_APP_ROOT": str(root), **environ}
    target = discovery.Target("main", "app", "default", "", (root,))
    resolved = resolve({}, variables, root)
    return (
        json.dumps(config_dump.dump(plan(resolved, resources.read(environ=variables), target, None))) + "\n"
    )


@pytest.mark.parametrize("profile", CONFS)
@pytest.mark.parametrize("environ", GRID, ids=name_of)
def test_python_conf_prints_what_mooring_run_prints(profile, environ, tmp_path):
    done = run_conf(profile, **environ)
    assert (done.stdout, done.stderr) == (dumped(profile, environ, tmp_path), "")


@pytest.mark.parametrize(("profile", "environ"), OF_ONE)
def test_what_only_one_image_has(profile, environ, tmp_path):
    done = run_conf(profile, **environ)
    assert (done.stdout, done.stderr) == (dumped(profile, environ, tmp_path), "")


@pytest.mark.parametrize(
    ("profile", "environ"), [*((profile, environ) for profile in CONFS for environ in BAD), *BAD_OF_ONE]
)
def test_bad_values_are_refused_by_both(profile, environ, tmp_path):
    """Exit code 2, nothing on stdout, and one line that names every bad variable."""
    done = run_conf(profile, **environ)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    for name, text in environ.items():
        assert f"{name}={text!r}: expected" in done.stderr
    if "WORKER_CLASS" not in environ:  # that is the engine's to refuse: test_h11
        with pytest.raises(ConfigurationError):
            dumped(profile, environ, tmp_path)


@pytest.mark.parametrize("name", TREES)
def test_quotas_are_read_as_mooring_reads_them(name, tmp_path):
    """On the trees of real systems: version 1 and 2, nested, namespaces, malformed files."""
    root = build(tmp_path, TREES[name].files)
    for path in (CONFS[profile] for profile in TUNED):
        source = path.read_text().partition("\n# Workers: ")[0]
        with contextlib.redirect_stdout(io.StringIO()):
            found: dict[str, object] = {}
            exec(compile(source, path, "exec"), found)
        quotas = found["quotas"]
        assert callable(quotas)
        expected = resources.read(root, environ={}, affinity=[0]).cpu_quota.value
        assert min(quotas(f"{root}/"), default=None) == expected


def test_affinity_counts():
    """Pinned to one CPU, it is one core."""
    cpu = min(os.sched_getaffinity(0))
    for profile in ("hypercorn", "meinheld-flask"):
        code = f"import os, runpy; os.sched_setaffinity(0, [{cpu}]); runpy.run_path({str(CONFS[profile])!r})"
        shown = subprocess.run([sys.executable, "-c", code], env={}, capture_output=True, check=True).stdout
        assert json.loads(shown)["workers"] == 2


def test_the_files_are_what_the_script_writes(tmp_path):
    subprocess.run([sys.executable, ROOT / "scripts" / "make_conf.py", tmp_path], check=True)
    for path in CONFS.values():
        assert path.read_text() == (tmp_path / path.relative_to(CONF)).read_text(), "run scripts/make_conf.py"
    content = {path: path.read_bytes() for path in CONFS.values()}
    assert {(len(text), binascii.crc32(text)) for text in content.values()} <= UNCHANGED, "the same script"


@pytest.mark.parametrize("profile", CONFS)
def test_a_file_is_standalone_and_valid_on_old_interpreters(profile):
    text = CONFS[profile].read_text()
    tree = ast.parse(text, feature_version=(3, 9))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported <= set(sys.stdlib_module_names)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]


@pytest.mark.parametrize("profile", CONFS)
def test_the_variables_that_the_server_reads(profile):
    with contextlib.redirect_stdout(io.StringIO()):
        found = runpy.run_path(str(CONFS[profile]))
    wanted = {"bind", "workers", "worker_class", "loglevel", "errorlog", "accesslog"}
    wanted |= {"timeout", "graceful_timeout"}
    wanted |= {"keep_alive_timeout"} if profile == "hypercorn" else {"keepalive"}
    assert wanted <= set(found)
    if profile in {"inboard-base", "uvicorn-gunicorn", "poetry"}:
        assert found["worker_tmp_dir"] == "/dev/shm"
    if profile != "hypercorn":
        assert all(type(found[name]) is int for name in ("timeout", "graceful_timeout", "keepalive"))


@pytest.mark.parametrize("profile", CONFS)
def test_the_servers_themselves_run_with_it(profile, tmp_path):
    """`hypercorn -c file:CONF` and `gunicorn -c CONF`, two workers, without mooring."""
    server = "hypercorn" if profile == "hypercorn" else "gunicorn"
    pytest.importorskip(server)
    (tmp_path / "main.py").write_text(WSGI_APP if profile == "meinheld-flask" else says("hello"))
    port = free_port()
    reference = f"file:{CONFS[profile]}" if server == "hypercorn" else str(CONFS[profile])
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MARK": str(tmp_path)}
    environ |= {"BIND": f"127.0.0.1:{port}", "MOORING_WORKERS": "2"}
    command = [sys.executable, "-m", server, "-c", reference, "main:app"]
    out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, cwd=tmp_path, env=environ, **out)
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["bind"] == f"127.0.0.1:{port}"

        def answer() -> bytes:
            assert process.poll() is None
            with contextlib.suppress(OSError):
                return urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30).read()
            return b""

        assert eventually(answer) == b"hello"
        process.terminate()
        process.communicate(timeout=30)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
    eventually(lambda: not pids_marked(f"MARK={tmp_path}"), "the end of its workers")


FEW = (
    ("s/keepalive = 120/keepalive = 5/", "keepalive", 5),
    ('/errorlog = "-"/a timeout = 300', "timeout", 300),
)
MANY = (
    ("s/^timeout = .*/timeout = 300/", "timeout", 300),
    ('s/"TIMEOUT", "120"/"TIMEOUT", "300"/', "timeout", 300),
    ("s/int(graceful_timeout_str)/7/", "graceful_timeout", 7),
    ("s/accesslog = use_accesslog/accesslog = None/", "accesslog", None),
    ("s|/dev/shm|/tmp|", "worker_tmp_dir", "/tmp"),
)
TIANGOLO = (
    ('s/"KEEP_ALIVE", "5"/"KEEP_ALIVE", "75"/', "keepalive", 75),
    ("s/max(int(default_web_concurrency), 2)/17/", "workers", 17),
)
ALL = (
    ("s/^workers = .*/workers = 3/", "workers", 3),
    ("s/workers = web_concurrency/workers = 1/", "workers", 1),
    ("s/^bind = use_bind/bind = '0.0.0.0:8080'/", "bind", "0.0.0.0:8080"),
    ('s/"LOG_LEVEL", "info"/"LOG_LEVEL", "debug"/', "loglevel", "debug"),
    ('s/"PORT", "80"/"PORT", "5000"/', "bind", "0.0.0.0:5000"),
    ("s/multiprocessing.cpu_count()/8/", "cores", 8),
    ("$ a preload_app = True", "preload_app", True),
    ("$ a timeout = 9", "timeout", 9),
)
POETRY = (
    ('s/"timeout": 30/"timeout": 300/', "timeout", 300),
    ('s/"bind": "0.0.0.0:80"/"bind": "0.0.0.0:8080"/', "bind", "0.0.0.0:8080"),
    ('s/"workers": 1/"workers": 4/', "workers", 4),
    ("s/^keepalive = .*/keepalive = 65/", "keepalive", 65),
    ("$ a timeout = 9", "timeout", 9),
)
EDITS = [
    *(("meinheld-flask", *edit) for edit in (*FEW, *ALL)),
    *(("conda-starlette", *edit) for edit in FEW),
    *(("inboard-base", *edit) for edit in (*MANY, *ALL)),
    *(("uvicorn-gunicorn", *edit) for edit in (*TIANGOLO, *MANY, *ALL)),
    *(("hypercorn", *edit) for edit in (*MANY[:1], *MANY[2:], *ALL[:3])),
    *(("poetry", *edit) for edit in POETRY),
]


@pytest.mark.parametrize(("profile", "script", "name", "value"), EDITS)
def test_edits_of_the_older_images_files_hold_in_ours(profile, script, name, value, tmp_path):
    """What sed finds in the originals it finds here, and what is set so is what the server reads."""
    path = tmp_path / "conf.py"
    path.write_text(CONFS[profile].read_text())
    before = path.read_text()
    subprocess.run(["sed", "--in-place", script, path], check=True)
    assert path.read_text() != before
    code = f"import json, runpy; print(json.dumps(runpy.run_path({str(path)!r})[{name!r}]))"
    done = subprocess.run([sys.executable, "-c", code], env={}, capture_output=True, text=True, check=True)
    printed, found = done.stdout.splitlines()
    assert json.loads(found) == value
    if name in json.loads(printed) and not script.startswith("$"):
        assert json.loads(printed)[name] == value


@pytest.mark.parametrize("profile", ["hypercorn", "inboard-base", "uvicorn-gunicorn", "meinheld-flask"])
def test_a_copy_that_was_changed_is_followed(mooring, profile):
    """Copied into the application root, it brings its server, and what was changed in it holds."""
    name = CONFS[profile].name
    text = CONFS[profile].read_text() + "\nworkers = 1\n"
    app_text = WSGI_APP if profile == "meinheld-flask" else says("hello")
    app = serve(mooring, profile, {"main.py": app_text, name: text}, WEB_CONCURRENCY=3)
    assert app.get().text == "hello"
    assert app.status()["engine"] == ("hypercorn" if profile == "hypercorn" else "gunicorn")
    assert app.status()["plan"]["workers"]["value"] == 1
    stop(app)


def test_a_copy_refuses_bad_values_too(mooring):
    pytest.importorskip("gunicorn")
    files = {"main.py": says("hi"), "gunicorn_conf.py": CONFS["inboard-base"].read_text()}
    app = start(mooring, "inboard-base", files=files, MOORING_WORKERS="1", WORKERS="x")
    app.wait_log("] serving")  # MOORING_WORKERS wins in both
    stop(app)


def test_the_defaults_on_this_machine():
    assert conf("meinheld-flask")["workers"] == 2 * CORES
