"""What all the older images' profiles keep: scenario 30, access log lines, when the demo is served."""

from __future__ import annotations

import re

import pytest
from harness import WSGI_APP, free_port
from profile_tools import CONFS, conf, refused, says, serve, start, stop, summary

PID, DATE = r"\[\d+\]", r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\]"
CLF = r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"
PEER = r"127\.0\.0\.1:\d+"
# Profile: the stream that the access log goes to, and its line for `GET /?a=b` by the agent x.
LINES = {
    "hypercorn": ("stdout", rf'{DATE} {PID} \[INFO\] {PEER} - - {CLF} "GET / 1\.1" 200 2 "-" "x"'),
    "conda-starlette": (
        "stderr",
        rf"{DATE} {PID} \[INFO\] \('127\.0\.0\.1', \d+\) - " + r'"GET /\?a=b HTTP/1\.1" 200',
    ),
    "inboard-base": ("stdout", rf'{PEER} - "GET /\?a=b HTTP/1\.1" 200'),
    "uvicorn-gunicorn": ("stdout", rf'{PEER} - "GET /\?a=b HTTP/1\.1" 200'),
    "poetry": ("stdout", rf'{PEER} - "GET /\?a=b HTTP/1\.1" 200'),
    "meinheld-flask": ("stdout", rf'127\.0\.0\.1 - - {CLF} "GET /\?a=b HTTP/1\.1" 200 2 "-" "x"'),
}


def application(profile: str) -> dict[str, str]:
    """An application where the profile looks for it."""
    return {"app/main.py": WSGI_APP.replace('"hello"', '"hi"') if profile == "meinheld-flask" else says("hi")}


@pytest.mark.parametrize("profile", CONFS)
def test_h30_one_worker_stop_and_start_again(mooring, profile):
    """One worker; the configuration file and the start print the same object; the second start works."""
    port = free_port()
    environ = {"WORKERS" if profile == "poetry" else "WEB_CONCURRENCY": 1, "BIND": f"127.0.0.1:{port}"}
    for files in (application(profile), {}):
        app = serve(mooring, profile, files, **environ)
        assert app.urls == [f"http://127.0.0.1:{port}"]
        assert app.get().text == "hi"
        assert app.status()["size"] == len(app.ready()) == 1
        assert app.status()["application"] == "app.main:app"
        assert summary(app) == conf(profile, HOST="127.0.0.1", PORT=0, **environ)
        stop(app)


@pytest.mark.parametrize("profile", LINES)
def test_access_log_lines(mooring, profile):
    """Where the image wrote them, and as it did; meinheld's is off, and on where it is asked for."""
    stream, pattern = LINES[profile]
    environ = {"ACCESS_LOG": "-"} if profile == "meinheld-flask" else {}
    app = serve(mooring, profile, application(profile), WORKERS=1, **environ)
    app.get("/?a=b", headers={"User-Agent": "x"})
    line = app.wait_log('"GET /')
    assert re.fullmatch(pattern, line), line
    assert line in getattr(app, stream)
    stop(app)


def test_the_flask_image_has_no_access_log(mooring):
    """Nothing is written unless ACCESS_LOG says where."""
    app = serve(mooring, "meinheld-flask", application("meinheld-flask"), WORKERS=1)
    app.get()
    stop(app)
    assert "GET /" not in app.stdout + app.stderr


@pytest.mark.parametrize("profile", CONFS)
def test_no_demo_beside_a_python_file(mooring, profile):
    """Any Python file, wherever it is below the root: exit code 3, and the places that were looked at."""
    app = start(mooring, profile, files={"lib/deep/thing.py": ""})
    last = refused(app, 3)
    assert f"{app.folder}/app/main.py" in last
    assert "demo" not in last


@pytest.mark.parametrize("profile", ["hypercorn", "inboard-base"])
def test_log_level_warning(mooring, profile):
    """It hides what the servers say at their start, but no access line."""
    app = start(mooring, profile, files=application(profile), WORKERS=1, LOG_LEVEL="warning")
    app.wait_status(lambda status: status["ready"])
    app.get()
    app.wait_log('"GET /')
    stop(app)
    assert app.stderr == ""


def test_a_hook_and_a_server_configuration_are_no_application(mooring):
    """The demo is served beside them, and one warning says so."""
    files = {"prestart.py": "", "gunicorn_conf.py": "workers = 1\n", "static/page.html": ""}
    app = serve(mooring, "inboard-base", files)
    assert "serving the demo" in app.wait_log("[WARNING]")
    assert app.stderr.count("serving the demo") == 1
    assert app.get().text.startswith("Hello world! From mooring, gunicorn and Python")
    stop(app)


def test_without_a_profile_there_is_no_demo(mooring):
    """`mooring run` in an empty folder says where it looked."""
    assert "no application found" in refused(mooring.start("run"), 3)
