"""The uvicorn-gunicorn images: what their own tests ask, in real containers; some images in the long run."""

from __future__ import annotations

import json
import re

import pytest
from dropin import again, conf, edit, ends, envs, once, refused, says, summary
from engine import run

pytestmark = pytest.mark.docker

CONF = "/gunicorn_conf.py"
GREETING = "Hello world! From mooring, uvicorn and Python 3.13"
HOOK = [
    "Checking for script in /app/prestart.sh",
    "Running script /app/prestart.sh",
    "Running inside /app/prestart.sh, you could add migrations to this file",
]
USING = "Using worker: uvicorn.workers."
DEFAULTS = {
    "loglevel": "info",
    "workers": 2,
    "bind": "0.0.0.0:80",
    "graceful_timeout": 120,
    "timeout": 120,
    "keepalive": 5,
    "errorlog": "-",
    "accesslog": "-",
    "workers_per_core": 1.0,
    "use_max_workers": None,
    "host": "0.0.0.0",
    "port": "80",
}
FAMILY = ["uvicorn-gunicorn", "uvicorn-gunicorn-starlette", "uvicorn-gunicorn-fastapi"]
PACKAGES = {
    "uvicorn-gunicorn": (
        "uvicorn",
        "gunicorn",
        "httptools",
        "uvloop",
        "watchfiles",
        "websockets",
        "dotenv",
        "yaml",
    ),
    "uvicorn-gunicorn-starlette": ("starlette",),
    "uvicorn-gunicorn-fastapi": (
        "fastapi",
        "jinja2",
        "httpx",
        "multipart",
        "email_validator",
        "itsdangerous",
    ),
}


def hook_ran(container) -> bool:
    """Whether the image's own hook has printed its lines, before the object."""
    lines = container.output()[0].splitlines()
    return lines[:2] == HOOK[:2] and lines[2].startswith(HOOK[2])


def the_defaults(images, start, cores, target, **options):
    """A bare container: its demo, its packages, its twelve keys, what its logs say; then the same again."""
    python = options.get("python", "3.13")
    container = start(images.target(target, **options))
    answer = container.get()
    greeting = GREETING.replace("3.13", python)
    text = target.removesuffix("-slim") == "uvicorn-gunicorn"
    body = greeting if text else json.dumps({"message": greeting}, separators=(",", ":"))
    assert (answer.text, answer.headers["content-type"]) == (
        body,
        "text/plain" if text else "application/json",
    )
    expected = {**DEFAULTS, "workers": max(cores, 2)}
    assert conf(container, CONF) == summary(container) == expected
    assert list(conf(container, CONF)) == list(summary(container)) == list(DEFAULTS)
    assert container.serving()["size"] == expected["workers"]
    assert hook_ran(container)
    container.wait_log('"GET / HTTP/1.1" 200')
    assert "[INFO] Application startup complete." in container.logs()
    assert f"{USING}UvicornWorker\n" in container.logs()
    modules = {*PACKAGES["uvicorn-gunicorn"], *PACKAGES[target.removesuffix("-slim")]}
    code, said = container.execute("sh", "-c", f"pwd && python -c 'import {','.join(modules)}' && pip check")
    assert (code, said.splitlines()[0], "No broken requirements" in said) == (0, "/app", True), said
    again(container)


@pytest.mark.parametrize("target", ["uvicorn-gunicorn", "uvicorn-gunicorn-fastapi"])
def test_the_defaults(images, start, cores, target):
    the_defaults(images, start, cores, target)


@pytest.mark.longrun
@pytest.mark.parametrize("target", [FAMILY[1], *(f"{target}-slim" for target in FAMILY)])
def test_the_defaults_of_the_other_images(images, start, cores, target):
    the_defaults(images, start, cores, target)


@pytest.mark.longrun
@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_the_defaults_on_other_pythons(images, start, cores, python):
    the_defaults(images, start, cores, "uvicorn-gunicorn-fastapi-slim", python=python)


def test_numbers_times_and_no_logs(images, start, cores):
    environ = {"WORKERS_PER_CORE": 2, "PORT": 8000, "LOG_LEVEL": "warning", "ACCESS_LOG": "", "ERROR_LOG": ""}
    environ |= {"GRACEFUL_TIMEOUT": 20, "TIMEOUT": 20, "KEEP_ALIVE": 20}
    container = start(images.target("uvicorn-gunicorn"), *envs(**environ), port=8000)
    assert container.text() == GREETING
    found = conf(container, CONF)
    assert found == summary(container)
    assert found == {
        **DEFAULTS,
        "workers_per_core": 2.0,
        "workers": 2 * cores,
        "loglevel": "warning",
        "port": "8000",
        "bind": "0.0.0.0:8000",
        "graceful_timeout": 20,
        "timeout": 20,
        "keepalive": 20,
        "errorlog": None,
        "accesslog": None,
    }
    assert hook_ran(container)
    assert "GET /" not in container.logs()
    assert "Application startup complete" not in container.logs()
    ends(container)


def test_the_h11_worker_with_gunicorns_arguments(images, start):
    """One worker of gunicorn's, debug lines by its arguments; the object says what the variables say."""
    environ = {"WEB_CONCURRENCY": 1, "HOST": "127.0.0.1", "LOG_LEVEL": "warning"}
    environ |= {"GUNICORN_CMD_ARGS": "--log-level debug", "WORKER_CLASS": "uvicorn.workers.UvicornH11Worker"}
    container = start(images.target("uvicorn-gunicorn"), *envs(**environ), port=None)
    container.wait_log(f"{USING}UvicornH11Worker")
    assert re.search(r"loglevel: +debug", container.logs())
    assert container.serving()["plan"]["workers"]["value"] == 1
    found = conf(container, CONF)
    expected = {"workers": 1, "host": "127.0.0.1", "bind": "127.0.0.1:80", "loglevel": "warning"}
    assert found == {**DEFAULTS, **expected}
    ends(container)


@pytest.fixture(scope="module")
def user(images):
    """An application whose file is beside the image's own hook; a configuration file to be named."""
    files = {
        "app/app/main.py": says("package"),
        "app/custom/module.py": says("custom", "api"),
        "app/custom/before.sh": "echo Custom prestart script\nexport FOO=1\n",
        "conf.py": "import json\nloglevel, workers, bind = 'warning', 3, '0.0.0.0:8000'\n"
        "print(json.dumps({'mine': workers}))\n",
    }
    return images.user("FROM mooring:uvicorn-gunicorn-fastapi\nCOPY ./app /app\nCOPY conf.py /\n", files)


def test_a_package_app_and_bind(user, start):
    """Beside the image's hook; BIND wins over HOST and PORT, and MAX_WORKERS over the two workers."""
    environ = {"BIND": "0.0.0.0:8080", "HOST": "127.0.0.1", "PORT": 9000, "MAX_WORKERS": 1}
    container = start(user, *envs(**environ), port=8080)
    assert container.text() == "package"
    found = conf(container, CONF)
    expected = {"bind": "0.0.0.0:8080", "host": "127.0.0.1", "port": "9000", "use_max_workers": 1}
    assert {**expected, "workers": 1}.items() <= found.items()
    assert container.serving()["size"] == 1
    assert hook_ran(container)
    again(container)


def test_a_custom_app_hook_and_configuration(user, start):
    """GUNICORN_CONF brings gunicorn with three workers; the sourced hook's exports reach the application."""
    environ = {"APP_MODULE": "custom.module:api", "PRE_START_PATH": "/app/custom/before.sh"}
    container = start(user, *envs(**environ, GUNICORN_CONF="/conf.py"), port=8000)
    assert container.text() == "custom"
    assert json.loads(container.text("/env"))["FOO"] == "1"
    assert "Custom prestart script" in container.output()[0].splitlines()
    assert '{"mine": 3}' in container.output()[0]
    status = container.status()
    assert (status["engine"], status["plan"]["workers"]["value"]) == ("gunicorn", 3)
    assert status["conf"] == "/conf.py"
    ends(container)


def test_a_failing_hook(docker, images):
    files = {"prestart.sh": "echo a; false; echo b\n"}
    image = images.user("FROM mooring:uvicorn-gunicorn\nCOPY prestart.sh /app/\n", files)
    done = once(docker, image)
    refused(done, 1)
    assert done.stdout.splitlines() == [*HOOK[:2], "a"]


def test_live_reload_of_the_demo_itself(images, start):
    """/start-reload.sh: uvicorn alone, at HOST:PORT; what is written at /app/main.py is served."""
    environ = {"PORT": 8000, "LOG_LEVEL": "debug", "BIND": "127.0.0.1:1"}
    container = start(
        images.target("uvicorn-gunicorn"), *envs(**environ), command=("/start-reload.sh",), port=8000
    )
    assert container.text() == GREETING
    container.wait_log("Uvicorn running on http://0.0.0.0:8000")
    assert hook_ran(container)
    edit(container, "/app/main.py", says("mine"))
    container.until(lambda: container.text() == "mine", "the new body")
    assert re.fullmatch(r'INFO:     [\d.]+:\d+ - "GET / HTTP/1\.1" 200 OK', container.wait_log('"GET / '))
    assert '{"loglevel"' not in container.output()[0]
    ends(container)


@pytest.mark.longrun
def test_what_people_install_there(docker, images):
    """The full image has compilers; a pinned uvicorn is the application's, beside mooring's own."""
    install = "RUN pip install uvicorn==0.30.6 && gcc --version && pip check\n"
    image = images.user(f"FROM mooring:uvicorn-gunicorn-fastapi\n{install}")
    shown = run(docker, "run", "--rm", image, "sh", "-c", "uvicorn --version; mooring check --json").stdout
    version, _, rest = shown.partition("\n")
    assert version.startswith("Running uvicorn 0.30.6 ")
    assert json.loads(rest)["plan"]["engine"]["value"] == "uvicorn"
