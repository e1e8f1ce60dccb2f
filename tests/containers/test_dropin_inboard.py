"""The inboard images' scenarios by their numbers: users' Dockerfiles in real containers."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
from contextlib import closing

import httpx
import pytest
from dropin import (
    again,
    answers,
    check,
    conf,
    connect,
    edit,
    ends,
    envs,
    is_closed,
    once,
    refused,
    says,
    summary,
)

pytestmark = pytest.mark.docker

CONF = "/gunicorn_conf.py"
DOCKERFILE = "FROM mooring:inboard-base\n\nCOPY package /app/\n"
GREETING = "Hello world! From mooring, uvicorn and Python 3.13"
DEFAULTS = {
    "loglevel": "info",
    "workers": 2,
    "bind": "0.0.0.0:80",
    "graceful_timeout": 120,
    "timeout": 120,
    "keepalive": 2,
    "errorlog": "-",
    "accesslog": "-",
    "workers_per_core": 1.0,
    "use_max_workers": None,
    "host": "0.0.0.0",
    "port": "80",
}
HOOK = """import os
os.environ["FOO"] = "1"
print("migrating")
raise SystemExit(int(os.environ.get("CODE", 0)))
"""


@pytest.fixture(scope="module")
def user(images):
    files = {
        "package/main.py": says("outer"),
        "package/app/main.py": says("inner"),
        "package/prestart.py": HOOK,
        "package/x.sh": "echo by sh\n",
    }
    return images.user(DOCKERFILE, files)


@pytest.fixture(scope="module")
def secured(images, tmp_path_factory):
    """A user's image with a certificate in /secrets."""
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    files = {f"secrets/{name}": (folder / name).read_bytes() for name in ("key.pem", "cert.pem")}
    dockerfile = DOCKERFILE + "COPY secrets /secrets\n"
    return images.user(dockerfile, {"package/main.py": says("hi"), **files}), folder / "cert.pem"


def test_h20_main_comes_first_and_h22_a_prestart_py(user, start):
    """/app/main.py; the hook's output is shown, and what it set in os.environ is its own."""
    container = start(user, *envs(MAX_WORKERS=1))
    assert container.text() == "outer"
    assert container.status()["application"] == "main:app"
    assert "FOO" not in json.loads(container.text("/env"))
    assert container.output()[0].splitlines()[:3] == [
        "Checking for pre-start script in /app/prestart.py.",
        "Running pre-start script python /app/prestart.py.",
        "migrating",
    ]
    line = container.wait_log('"GET / HTTP/1.1" 200')
    assert re.fullmatch(r'[\d.]+:\d+ - "GET / HTTP/1\.1" 200', line)
    assert line in container.output()[0]
    again(container)


def test_h22_a_failing_prestart_py(docker, user):
    done = once(docker, user, *envs(CODE=7, PRE_START_PATH=""))
    refused(done, 7)
    assert done.stdout.splitlines()[2] == "migrating"


@pytest.mark.parametrize("target", ["inboard-base", "inboard-starlette", "inboard-fastapi"])
def test_h21_the_demo(images, start, cores, target):
    """Each image's, in its content type; the defaults are as documented; `python /start.py` starts it too."""
    command = ("python", "/start.py") if target == "inboard-base" else ()
    container = start(images.target(target), command=command)
    answer = container.get()
    text = target == "inboard-base"
    assert answer.text == (GREETING if text else json.dumps({"message": GREETING}, separators=(",", ":")))
    assert answer.headers["content-type"] == ("text/plain" if text else "application/json")
    expected = {**DEFAULTS, "workers": max(cores, 2)}
    assert conf(container, CONF) == summary(container) == expected
    assert list(conf(container, CONF)) == list(summary(container)) == list(DEFAULTS)
    assert "No pre-start script found." in container.output()[0].splitlines()
    if text:
        assert container.serving()["size"] == expected["workers"]
        again(container)
    else:
        ends(container)


def test_h23_a_shell_script_without_permission(user, start):
    container = start(user, *envs(PRE_START_PATH="/app/x.sh", APP_MODULE="app.main:app", MAX_WORKERS=1))
    assert container.text() == "inner"
    assert container.output()[0].splitlines()[1:3] == ["Running pre-start script sh /app/x.sh.", "by sh"]
    ends(container)


def test_h23_a_lone_prestart_sh_and_variables(images, start):
    """It is found; module and variable, logs and workers are where the variables say."""
    files = {"package/custom/module.py": says("custom", "api"), "package/prestart.sh": "echo found\n"}
    environ = {"MODULE_NAME": "custom.module", "VARIABLE_NAME": "api", "WORKERS_PER_CORE": 3}
    environ |= {"MAX_WORKERS": 1, "ACCESS_LOG": "", "ERROR_LOG": "/tmp/e.log"}
    container = start(images.user(DOCKERFILE, files), *envs(**environ))
    assert container.text() == "custom"
    expected = {"workers_per_core": 3.0, "workers": 1, "use_max_workers": 1, "accesslog": None}
    assert expected.items() <= summary(container).items()
    assert summary(container) == conf(container, CONF)
    assert "listening at" in container.execute("cat", "/tmp/e.log")[1]
    again(container)
    stdout, stderr = container.output()
    assert "Running pre-start script sh /app/prestart.sh.\nfound\n" in stdout
    assert "GET /" not in stdout
    assert stderr == ""


def test_h24_with_reload(images, start, cores):
    """true: at HOST:PORT, with uvicorn's own line; false: off, as documented."""
    environ = {"WITH_RELOAD": "true", "HOST": "0.0.0.0", "PORT": 8080, "BIND": "127.0.0.1:1"}
    image = images.user(DOCKERFILE, {"package/main.py": says("one")})
    container = start(image, *envs(**environ, LOG_LEVEL="debug"), port=8080)
    assert container.text() == "one"
    edit(container, "/app/main.py", says("two"))
    container.until(lambda: container.text() == "two", "the new body")
    assert re.fullmatch(r'INFO:     [\d.]+:\d+ - "GET / HTTP/1\.1" 200 OK', container.wait_log('"GET / '))
    assert '{"loglevel"' not in container.output()[0]
    plan = check(container, WITH_RELOAD="false")["plan"]
    assert (plan["reload"]["value"], plan["workers"]["value"]) == (False, max(cores, 2))
    again(container)


def test_h25_gunicorns_arguments_turn_tls_on(secured, start):
    image, certificate = secured
    arguments = "--keyfile=/secrets/key.pem --certfile=/secrets/cert.pem"
    environ = {"GUNICORN_CMD_ARGS": arguments, "PORT": 443, "MAX_WORKERS": 1}
    container = start(image, *envs(**environ), port=443)
    container.wait_log("serving")
    url = container.url.replace("http:", "https:")
    trusted = ssl.create_default_context(cafile=certificate)
    assert httpx.get(url, verify=trusted, timeout=60).text == "hi"
    ends(container)


def test_h25_gunicorns_arguments_choose_gunicorn(user, start):
    """Workers and class are the arguments'; the object is not changed by them."""
    container = start(user, *envs(GUNICORN_CMD_ARGS="-w 3 -k asgi", WEB_CONCURRENCY=1))
    assert container.text() == "outer"
    plan = container.status()["plan"]
    found = {name: plan[name]["value"] for name in ("engine", "workers", "worker_class")}
    assert found == {"engine": "gunicorn", "workers": 3, "worker_class": "asgi"}
    assert conf(container, CONF)["workers"] == 1
    container.until(lambda: container.logs().count("ASGI server listening") == 3, "three workers")
    again(container)


@pytest.mark.parametrize("name", ["uvicorn.workers.UvicornWorker", "uvicorn.workers.UvicornH11Worker"])
def test_h25_the_documented_worker_classes(user, start, name):
    container = start(user, *envs(WORKER_CLASS=name, WEB_CONCURRENCY=1))
    assert container.text() == "outer"
    container.wait_log(f"Using worker: {name}")
    ends(container)


def test_h25_timeouts_and_proxies(user, start):
    """TIMEOUT kills a hung worker, KEEP_ALIVE closes, GRACEFUL_TIMEOUT cuts, a trusted proxy is believed."""
    environ = {"TIMEOUT": 10, "KEEP_ALIVE": 1, "GRACEFUL_TIMEOUT": 2, "FORWARDED_ALLOW_IPS": "*"}
    container = start(user, *envs(**environ, WEB_CONCURRENCY=1))
    container.text()
    with closing(connect(container)) as idle:
        assert answers(idle, **{"X-Forwarded-For": "203.0.113.7"})
        assert is_closed(idle)
    assert container.wait_log("203.0.113.7")
    with closing(connect(container)) as hung:
        hung.request("GET", "/hang")
        container.wait_log("is hung")
        assert is_closed(hung)
    assert container.text() == "outer"
    with closing(connect(container)) as slow:
        slow.request("GET", "/slow")
        container.until(lambda: container.status()["requests_in_flight"], "the request")
        ends(container)


def test_h30_one_worker(user, start):
    container = start(user, *envs(WEB_CONCURRENCY=1, HOST="127.0.0.1", BIND="0.0.0.0:8080"), port=8080)
    assert container.text() == "outer"
    assert container.serving()["size"] == 1
    expected = {**DEFAULTS, "workers": 1, "bind": "0.0.0.0:8080", "host": "127.0.0.1"}
    assert conf(container, CONF) == summary(container) == expected
    again(container)


def test_what_the_newer_images_had(images, start):
    """Their launcher's commands, their package, one process, and a logging configuration."""
    main = "from fastapi import FastAPI\nfrom inboard import fastapi_basic_auth\napp = FastAPI()\n"
    main += "app.get('/')(lambda: 'newer')\n"
    logs = "LOGGING_CONFIG = {'version': 1, 'formatters': {'f': {'format': 'MINE %(message)s'}}, 'handlers': "
    logs += "{'h': {'class': 'logging.StreamHandler', 'formatter': 'f'}}, 'root': {'handlers': ['h'], "
    logs += "'level': 'INFO'}, 'loggers': {'uvicorn.access': {'handlers': ['h'], 'level': 'INFO'}}}\n"
    text = "FROM mooring:inboard-fastapi\nCOPY package /app/\nENV APP_MODULE=main:app\n"
    image = images.user(text, {"package/main.py": main, "package/logs.py": logs})
    environ = {"PROCESS_MANAGER": "uvicorn", "LOGGING_CONF": "logs"}
    for command in (("-m", "inboard.start"), ("sh", "-c", "python -m inboard.start")):
        container = start(image, *envs(**environ), command=command)
        assert container.text() == '"newer"'
        assert re.search(
            r'MINE [\d.]+:\d+ - "GET / HTTP/1.1" 200', container.wait_log("MINE "), re.DOTALL
        ) or (container.wait_log('"GET / HTTP/1.1" 200').startswith("MINE "))
        if command[0] == "-m":
            assert container.serving()["size"] == 1
            ends(container)
    assert container.state()["Running"]


PINNED = """
from uvicorn import __version__
from uvicorn.workers import UvicornWorker

class Worker(UvicornWorker):
    CONFIG_KWARGS = {"loop": "asyncio", "http": "h11"}

    def init_process(self):
        assert __version__ == "0.28.1"
        self.config.setup_event_loop()  # newer releases have none
        super().init_process()
"""


def test_a_worker_class_for_the_uvicorn_that_the_application_pins(images, start):
    """It gets that one; mooring supervises it with its own gunicorn."""
    text = "FROM mooring:inboard-fastapi\nRUN pip install -q uvicorn==0.28.1\nCOPY package /app/\n"
    image = images.user(text, {"package/main.py": says("pinned"), "package/workers.py": PINNED})
    container = start(image, *envs(WORKER_CLASS="workers.Worker", WEB_CONCURRENCY=1))
    assert container.text() == "pinned"
    container.wait_log('"GET / HTTP/1.1" 200')
    assert container.status()["engine"] == "gunicorn"
    again(container)
