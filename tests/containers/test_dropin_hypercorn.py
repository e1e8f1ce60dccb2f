"""The hypercorn image's scenarios by their numbers: users' Dockerfiles in real containers."""

from __future__ import annotations

import json
import re

import pytest
from dropin import again, check, conf, edit, ends, envs, once, refused, says, summary

pytestmark = pytest.mark.docker

CONF = "/hypercorn_conf.py"
DOCKERFILE = "FROM mooring:hypercorn\n\nCOPY ./app /app\n"
DEFAULTS = {
    "loglevel": "info",
    "workers": 2,
    "bind": "0.0.0.0:80",
    "graceful_timeout": 120,
    "worker_class": "asyncio",
    "keepalive": 2,
    "errorlog": "-",
    "accesslog": "-",
    "workers_per_core": 1.0,
    "use_max_workers": None,
    "host": "0.0.0.0",
    "port": "80",
}
HOOK = """#! /usr/bin/env bash
# bash, as the README's examples have it
if [[ $PWD == /app* ]]; then echo "hook in $PWD"; fi
export FROM_HOOK=1
python /app/my_custom_prestart_script.py
"""
ASGI_2 = """
class App:
    def __init__(self, scope):
        assert scope["type"] == "http"

    async def __call__(self, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"two"})


app = App
"""
ACCESS = r'\[.+\] \[\d+\] \[INFO\] [\d.]+:\d+ - - \[.+\] "GET / 1\.1" 200 5 "-" "python-httpx/.*"'


@pytest.fixture(scope="module")
def user(images):
    files = {
        "app/app/main.py": says("inner"),
        "app/main.py": says("outer"),
        "app/custom_app/custom_main.py": says("custom", "api"),
        "app/asgi2.py": ASGI_2,
        "app/prestart.sh": HOOK,
        "app/my_custom_prestart_script.py": "print('from python')\n",
        "app/other.sh": "echo from the other hook\nAPP_MODULE=main:app\n",
    }
    return images.user(DOCKERFILE, files)


def test_h01_with_nothing_given(images, start, cores):
    """The demo answers; the hook's messages come first, then the JSON object; the defaults."""
    container = start(images.target("hypercorn"))
    answer = container.get()
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain")
    assert answer.text == "Hello world! From mooring, hypercorn and Python 3.13"
    expected = {**DEFAULTS, "workers": max(cores, 2)}
    assert conf(container, CONF) == expected
    assert list(conf(container, CONF)) == list(expected)
    assert container.serving()["size"] == expected["workers"]
    stdout, stderr = container.output()
    assert stdout.splitlines()[:2] == [
        "Checking for script in /app/prestart.sh",
        "Running script /app/prestart.sh",
    ]
    assert stdout.splitlines()[2].startswith("Running inside /app/prestart.sh")
    assert json.loads(stdout.splitlines()[3]) == expected
    assert "listening at http://0.0.0.0:80" in stderr
    again(container)


def test_h02_bind_beats_host_and_port_and_h03_an_explicit_number_is_not_capped(user, start):
    """It answers at BIND and nowhere else, with four workers."""
    environ = {"HOST": "127.0.0.1", "PORT": 9000, "BIND": "0.0.0.0:8080"}
    container = start(user, *envs(**environ, WEB_CONCURRENCY=4, MAX_WORKERS=2), port=8080)
    assert container.text() == "inner"
    assert container.serving()["size"] == 4
    shown = summary(container)
    assert shown == conf(container, CONF)
    assert (shown["host"], shown["port"], shown["bind"]) == ("127.0.0.1", "9000", "0.0.0.0:8080")
    assert (shown["workers"], shown["use_max_workers"]) == (4, 2)
    code, _ = container.execute(
        "python", "-c", "import socket; socket.create_connection(('127.0.0.1', 9000))"
    )
    assert code == 1
    ends(container)


@pytest.mark.parametrize("value", ["0", "abc"])
def test_h04_a_bad_number_of_workers(docker, user, value):
    last = refused(once(docker, user, *envs(WEB_CONCURRENCY=value)), 2)
    assert f"WEB_CONCURRENCY='{value}'" in last


def test_h05_empty_logs_are_off(user, start):
    """Neither a request nor a server's line on either stream."""
    container = start(user, *envs(ACCESS_LOG="", ERROR_LOG="", MAX_WORKERS=1))
    assert container.text() == "inner"
    shown = summary(container)
    assert shown["accesslog"] is shown["errorlog"] is None
    ends(container)
    stdout, stderr = container.output()
    assert stderr == ""
    assert [line for line in stdout.splitlines() if "GET" in line or "INFO" in line] == []


def test_h06_an_access_log_file(user, start):
    container = start(user, *envs(ACCESS_LOG="/tmp/a.log", MAX_WORKERS=1))
    container.text()
    line = container.until(lambda: container.execute("cat", "/tmp/a.log")[1], "a line in the file")
    assert re.fullmatch(ACCESS, line.strip()), line
    ends(container)
    assert "GET /" not in container.output()[0]


def test_h07_to_h09_which_application_and_which_configuration(user, start, cores):
    """The inner main.py; numbers of workers and configuration files as a start here would have them."""
    container = start(user, *envs(MAX_WORKERS=1))
    assert container.text() == "inner"
    assert container.status()["application"] == "app.main:app"
    assert container.text("/env").count("FROM_HOOK") == 1
    head = container.output()[0].splitlines()
    assert head[:2] == ["Checking for script in /app/prestart.sh", "Running script /app/prestart.sh"]
    assert head[2:4] == ["hook in /app", "from python"]
    assert re.fullmatch(ACCESS, container.wait_log('"GET / 1.1"'))
    for given, workers in (
        ({}, 1),
        ({"MAX_WORKERS": ""}, max(cores, 2)),
        ({"MAX_WORKERS": 4, "WORKERS_PER_CORE": 3}, min(3 * cores, 4)),
        ({"MAX_WORKERS": 2, "WEB_CONCURRENCY": 4}, 4),
        ({"MAX_WORKERS": "", "WEB_CONCURRENCY": ""}, max(cores, 2)),
    ):
        assert conf(container, CONF, **given)["workers"] == workers
        assert check(container, **given)["plan"]["workers"]["value"] == workers
    again(container)


def test_h08_module_and_variable_name(user, start):
    environ = {"MODULE_NAME": "custom_app.custom_main", "VARIABLE_NAME": "api", "MAX_WORKERS": 1}
    container = start(user, *envs(**environ))
    assert container.text() == "custom"
    assert check(container, APP_MODULE="main:app")["application"]["target"] == "main:app"
    ends(container)


def test_h08_app_module_wins_and_h12_an_asgi_2_class(user, start):
    container = start(
        user, *envs(MODULE_NAME="custom_app.custom_main", APP_MODULE="asgi2:app", MAX_WORKERS=1)
    )
    assert container.text() == "two"
    again(container)


def test_h09_the_configuration_file(images, start):
    """The first of the search order is in force; the environment's beats both."""
    files = {
        "app/main.py": says("hi"),
        "app/hypercorn_conf.py": "workers = 3\naccesslog = '/tmp/mine.log'\n",
        "app/app/hypercorn_conf.py": "workers = 2\n",
        "app/x.toml": "workers = 1\n",
    }
    container = start(images.user(DOCKERFILE, files))
    assert container.text() == "hi"
    status = container.serving()
    assert (status["conf"], status["size"]) == ("file:/app/hypercorn_conf.py", 3)
    container.until(lambda: "GET" in container.execute("cat", "/tmp/mine.log")[1], "its access log")
    plan = check(container, HYPERCORN_CONF="/app/x.toml")["plan"]
    assert (plan["hypercorn_conf"]["value"], plan["workers"]["value"]) == ("/app/x.toml", 1)
    assert container.execute("rm", "/app/hypercorn_conf.py")[0] == 0
    ends(container)
    container.again()
    container.text()
    status = container.serving()
    assert (status["conf"], status["size"]) == ("file:/app/app/hypercorn_conf.py", 2)
    ends(container)


def test_h10_live_reload(images, start):
    """At HOST:PORT and not at BIND; no configuration file, no JSON object, no access line."""
    files = {"app/app/main.py": says("one"), "app/hypercorn_conf.py": "raise SystemExit('read')\n"}
    environ = {"HOST": "0.0.0.0", "PORT": 8080, "BIND": "127.0.0.1:1"}
    image = images.user(DOCKERFILE, files)
    container = start(image, *envs(**environ), command=("/start-reload.sh",), port=8080)
    assert container.text() == "one"
    edit(container, "/app/app/main.py", says("two"))
    container.wait_log("Worker reloading: /app/app/main.py modified")
    container.until(lambda: container.text() == "two", "the new body")
    ends(container)
    assert "{" not in container.output()[0]
    assert "GET /" not in container.logs()


@pytest.mark.parametrize("name", ["uvloop", "trio"])
def test_h11_worker_classes(user, start, name):
    container = start(user, *envs(WORKER_CLASS=name, MAX_WORKERS=1))
    assert container.text() == "inner"
    assert summary(container)["worker_class"] == conf(container, CONF)["worker_class"] == name
    ends(container)


def test_h11_an_unknown_worker_class(docker, user):
    assert "nope" in refused(once(docker, user, *envs(WORKER_CLASS="nope")), 2)


def test_h30_one_worker_and_another_hook(user, start):
    """The hook redirects the application, as it could in the older image, without an export."""
    container = start(user, *envs(WEB_CONCURRENCY=1, PRE_START_PATH="/app/other.sh", LOG_LEVEL="warning"))
    assert container.text() == "outer"
    assert container.serving()["size"] == 1
    assert conf(container, CONF) == summary(container) == {**DEFAULTS, "workers": 1, "loglevel": "warning"}
    assert "from the other hook" in container.output()[0].splitlines()
    again(container)
    assert container.output()[1] == ""
