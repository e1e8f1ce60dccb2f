"""`mooring check`: every value, its origin and reason, the application, warnings; and it serves nothing."""

from __future__ import annotations

import json
import socket

import pytest
from harness import ASGI_APP, WSGI_APP

APP = {"main.py": ASGI_APP}


def checked(mooring, *args, code=0, **environ):
    """What `mooring check --json` prints."""
    app = mooring.start("check", "--json", *args, **environ)
    assert app.wait_exit() == code, app.stderr
    assert app.leftovers == []
    return json.loads(app.stdout)


def test_the_shape_that_scripts_rely_on(mooring):
    found = checked(mooring, files=APP, WEB_CONCURRENCY=3)
    assert set(found) == {"application", "plan", "resources", "warnings"}
    assert found["application"] == {"target": "main:app", "interface": "asgi", "framework": ""}
    for name in ("workers", "threads", "engine", "bind", "interface", "timeout", "graceful_timeout", "app"):
        assert set(found["plan"][name]) == {"value", "origin", "reason"}, name
    assert found["plan"]["workers"] == {"value": 3, "origin": "env:WEB_CONCURRENCY", "reason": ""}
    assert found["plan"]["engine"]["value"] == "uvicorn"
    assert found["plan"]["engine"]["origin"] == "tuned"
    assert found["resources"]
    assert all(set(row) == {"value", "source"} for row in found["resources"].values())
    assert found["warnings"] == []


def test_every_origin_is_named(mooring):
    files = {**APP, "mooring.toml": "timeout = 12\ngraceful_timeout = 3\n"}
    environ = {"MOORING_WORKERS": 2, "WEB_CONCURRENCY": 9, "TIMEOUT": 13, "MOORING_PROFILE": "poetry"}
    environ |= {"MOORING_APP_ROOT": ".", "MOORING_APP": "main:app"}
    found = checked(mooring, "--backlog", "77", files=files, **environ)["plan"]
    assert (found["backlog"]["value"], found["backlog"]["origin"]) == (77, "cli")
    assert (found["workers"]["value"], found["workers"]["origin"]) == (2, "env:MOORING_WORKERS")
    assert (found["timeout"]["value"], found["timeout"]["origin"]) == (13.0, "env:TIMEOUT")
    assert found["graceful_timeout"]["origin"] == f"file:{mooring.folder}/mooring.toml"
    assert {row["origin"] for row in found.values()} >= {"profile:poetry", "default"}


def test_in_kubernetes_it_says_how_long_a_stop_goes_on_accepting(mooring):
    cluster = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    found = checked(mooring, files=APP, **cluster)
    assert (found["plan"]["drain_delay"]["value"], found["plan"]["drain_delay"]["origin"]) == (5, "tuned")
    assert found["warnings"] == []
    older = {"MOORING_PROFILE": "hypercorn", "MOORING_APP_ROOT": ".", "HOST": "127.0.0.1"}
    found = checked(mooring, **cluster, **older)
    assert found["plan"]["drain_delay"]["value"] == 0
    assert any("MOORING_DRAIN_DELAY=5" in text for text in found["warnings"])


def test_the_application_is_found_by_its_interface_and_framework(mooring):
    found = checked(mooring, files={"main.py": "from flask import Flask\napp = Flask('x')\n"})
    assert found["application"] == {"target": "main:app", "interface": "wsgi", "framework": "flask"}
    assert found["plan"]["engine"]["value"] == "granian"
    assert checked(mooring, files={"main.py": WSGI_APP})["application"]["interface"] == "wsgi"


def test_what_the_application_prints_is_not_among_the_findings(mooring):
    source = "print('hello from the import')\nimport os\nos.write(1, b'raw')\n"
    app = mooring.start("check", "--json", files={"main.py": source + ASGI_APP})
    assert app.wait_exit() == 0
    assert json.loads(app.stdout)["application"]
    assert "hello from the import" in app.stderr


def test_where_run_would_fail_it_prints_the_json_too(mooring):
    found = checked(mooring, files={"main.py": "1/0\n"}, code=3)
    assert found["application"] is None
    assert found["plan"]["workers"]["value"] >= 1
    assert "ZeroDivisionError" in found["error"]
    found = checked(mooring, files=APP, code=2, WEB_CONCURRENCY="many")
    assert (found["application"], found["plan"]) == (None, {})
    assert found["resources"]


def test_a_port_in_use_is_found_unless_by_the_instance_itself(mooring):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = checked(mooring, files=APP, code=4, PORT=taken.getsockname()[1])
    assert "in use" in found["error"]
    app = mooring.run(workers=1)
    found = checked(mooring, PORT=app.port)
    assert any("is running" in warning for warning in found["warnings"])


def test_an_import_that_hangs_ends_at_the_boot_timeout(mooring):
    app = mooring.start(
        "check", files={"main.py": "import time\ntime.sleep(600)\n"}, MOORING_BOOT_TIMEOUT="1"
    )
    assert app.wait_exit() == 3
    assert "not imported within 1 s" in app.last_line
    assert app.leftovers == []


def test_misspelt_variables_are_warned_about_by_check_and_run(mooring):
    found = checked(mooring, files=APP, WEB_CONCURENCY=4, MOORING_TIMEOUTS=3)
    assert any(
        "WEB_CONCURENCY" in text and "did you mean WEB_CONCURRENCY?" in text for text in found["warnings"]
    )
    assert any("MOORING_TIMEOUTS" in text for text in found["warnings"])
    app = mooring.run(workers=1, WEB_CONCURENCY=4)
    assert "[WARNING]" in app.wait_log("WEB_CONCURENCY is not a setting")


def test_the_hook_is_named_and_not_run(mooring):
    files = {**APP, "prestart.sh": "touch ran\nexit 1\n"}
    found = checked(mooring, files=files)
    assert any("prestart.sh was not run" in text for text in found["warnings"])
    assert not (mooring.folder / "ran").exists()


def test_secrets_are_not_shown(mooring):
    found = checked(mooring, files=APP, MOORING_TLS_KEY_PASSWORD="hunter2")
    assert "hunter2" not in json.dumps(found)


def test_the_text_has_a_row_for_each_setting_with_value_origin_and_reason(mooring):
    app = mooring.start("check", files=APP, WEB_CONCURRENCY=3, WEB_CONCURENCY=1)
    assert app.wait_exit() == 0
    assert app.stdout.startswith("application  main:app (asgi)\n")
    rows = {line.split()[0]: line.split() for line in app.stdout.splitlines() if line.strip()}
    assert rows["workers"][:3] == ["workers", "3", "env:WEB_CONCURRENCY"]
    assert rows["bind"][1:3] == ["127.0.0.1:0", "env:PORT"]
    assert "host_cpus" in rows
    assert app.last_line.startswith("warning: WEB_CONCURENCY")


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_it_leaves_no_files(mooring, form):
    app = mooring.start("check", *form, files=APP)
    assert app.wait_exit() == 0
    assert [path.name for path in mooring.folder.iterdir()] == ["main.py"]
    assert not mooring.runtime.exists() or list(mooring.runtime.iterdir()) == []


def test_settings_are_explained_also_where_no_application_is_found(mooring):
    found = checked(mooring, code=3, files={}, WEB_CONCURRENCY=3)
    assert found["application"] is None
    assert "no application" in found["error"]
    assert found["plan"]["workers"] == {"value": 3, "origin": "env:WEB_CONCURRENCY", "reason": ""}


_FACTORY = f"def create_app(dsn):\n    return app\n\n{ASGI_APP}"


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_no_secret_is_among_the_findings(mooring, form):
    """A factory's arguments, what gunicorn's --env sets, a companion's arguments."""
    app = mooring.start(
        "check",
        *form,
        "main:create_app('s3cret')",
        files={"main.py": _FACTORY},
        GUNICORN_CMD_ARGS="--env KEY=s3cret",
        MOORING_COMPANIONS="sleep s3cret",
    )
    app.wait_exit()
    assert "main:create_app(...)" in app.stdout
    assert "s3cret" not in app.stdout + app.stderr


def test_the_first_line_of_the_log_shows_no_argument_of_a_factory(mooring):
    app = mooring.start("run", "main:create_app('s3cret')", files={"main.py": _FACTORY}, WEB_CONCURRENCY=1)
    app.wait_log("main:create_app(...), listening at")
    app.wait_ready(1)
    assert "s3cret" not in app.stderr
