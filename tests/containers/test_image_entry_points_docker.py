"""The drop-in images' files and commands at their old places. What they serve: the contract's scenarios."""

from __future__ import annotations

import json
import re

import pytest
from container import Starter
from engine import ROOT, run
from images import Images

pytestmark = pytest.mark.docker

SLIM = "python:3.13-slim-bookworm"
DOCKERFILE = (ROOT / "images/Dockerfile").read_text().partition("# --- The images")[2]
TARGETS = re.findall(r"^FROM .* AS (\S+)", DOCKERFILE, re.MULTILINE)
DEMO = {
    "hypercorn": ("hypercorn", "text/plain"),
    "conda-starlette": ("uvicorn", "application/json"),
    "inboard-base": ("uvicorn", "text/plain"),
    "inboard-starlette": ("uvicorn", "application/json"),
    "inboard-fastapi": ("uvicorn", "application/json"),
    "meinheld-flask": ("granian", "text/html; charset=utf-8"),
}
CONF = {
    "hypercorn": "/hypercorn_conf.py",
    "conda-starlette": "/gunicorn_conf.py",
    "inboard-base": "/gunicorn_conf.py",
    "poetry": "/application_server/gunicorn_configuration.py",
    "meinheld-flask": "/gunicorn_conf.py",
}
SAYS = """async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})
"""


@pytest.mark.parametrize("target", TARGETS)
def test_every_image_has_the_start_scripts_bash_and_the_servers_commands(images: Images, target: str) -> None:
    script = (
        "test -x /start.sh && test -x /start-reload.sh && mooring --version && "
        "uvicorn --version && gunicorn --version && hypercorn --help && granian --version"
    )
    done = run(images.docker, "run", "--rm", images.target(target), "bash", "-c", script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("mooring, version")


@pytest.mark.parametrize("target", DEMO)
def test_the_demo_while_there_is_no_application(start: Starter, images: Images, target: str) -> None:
    engine, kind = DEMO[target]
    container = start(images.target(target))
    found = container.get()
    assert f"Hello world! From mooring, {engine} and Python 3.13" in found.text
    assert found.headers["content-type"] == kind
    assert container.stop() == 0


@pytest.mark.parametrize("target", CONF)
def test_python_conf_prints_one_object(images: Images, target: str) -> None:
    done = run(images.docker, "run", "--rm", images.target(target), "python", CONF[target])
    assert json.loads(done.stdout)["bind"] == "0.0.0.0:80"


def test_no_demo_beside_an_application_that_is_not_found(start: Starter, images: Images) -> None:
    container = start(images.user("FROM mooring:hypercorn\nCOPY x.py /app/\n", {"x.py": ""}))
    assert container.ended() == 3
    assert "/app/app/main.py" in container.logs().splitlines()[-1]


def test_what_users_remove_and_edit_at_the_old_paths(start: Starter, images: Images) -> None:
    """The demo and the hook are there to be removed; sed finds its lines; a line at the end counts."""
    text = """FROM mooring:meinheld-flask
RUN rm main.py prestart.sh
RUN sed -i '/errorlog = "-"/a timeout = 300' /gunicorn_conf.py
RUN echo 'accesslog = "-"' >>/gunicorn_conf.py
COPY shop.py /app/shop.py
ENV MODULE_NAME=shop WEB_CONCURRENCY=1
"""
    flask = "import flask\napp = flask.Flask('shop')\napp.get('/')(lambda: 'shop')\n"
    container = start(images.user(text, {"shop.py": flask}))
    assert container.text() == "shop"
    container.wait_log('"GET / HTTP/1.1" 200')
    plan = container.status()["plan"]
    assert (plan["engine"]["value"], plan["timeout"]["value"]) == ("gunicorn", 300)
    assert container.stop() == 0


def test_no_health_check_calls_another_command_unhealthy(start: Starter, images: Images) -> None:
    """A drop-in has none, as the older image; a modern one's says nothing where no mooring was started."""
    assert not images.inspect(images.target("meinheld-flask"))["Config"].get("Healthcheck")
    often = ("--health-interval=1s", "--health-start-period=1s", "--health-retries=1")
    container = start(images.target("flask"), *often, command=("sleep", "600"))
    healthy = container.until(lambda: container.state()["Health"]["Log"], "a look at its health")
    assert healthy[0]["ExitCode"] == 0, healthy
    waiting = start(images.target("flask"), *often, command=("sh", "-c", "sleep 600; exec mooring run"))
    looks = waiting.until(lambda: waiting.state()["Health"]["Log"], "a look at its health")
    assert looks[0]["ExitCode"] == 1, looks


def test_the_full_python_image_is_below_where_it_was(images: Images) -> None:
    """Compilers, curl and git; the -slim tag has none of them, and the rest is the same."""
    tools = "for tool in gcc git curl; do command -v $tool; done; true"
    full, slim = (images.target(name) for name in ("meinheld-flask", "meinheld-flask-slim"))
    found = [run(images.docker, "run", "--rm", tag, "sh", "-c", tools).stdout.split() for tag in (full, slim)]
    assert [len(each) for each in found] == [3, 0]
    sizes = [images.inspect(tag)["Size"] for tag in (full, "python:3.13-bookworm", slim, SLIM)]
    assert sizes[0] - sizes[1] <= 70 * 2**20, "what mooring and Flask with gevent add"
    assert abs((sizes[0] - sizes[1]) - (sizes[2] - sizes[3])) < 2**20
    command = ("mooring", "run", "--help")
    assert run(images.docker, "run", "--rm", slim, *command).returncode == 0
    bill = "import json; print(len(json.load(open('/opt/mooring/sbom/debian.cdx.json'))['components']))"
    counts = [
        int(run(images.docker, "run", "--rm", tag, "python", "-c", bill).stdout) for tag in (full, slim)
    ]
    assert counts[0] > counts[1] > 50


def test_the_flask_image_tells_commands_what_is_served(images: Images) -> None:
    command = ("sh", "-c", "echo $APP_MODULE $GUNICORN_CONF")
    text = "FROM mooring:meinheld-flask\nCOPY main.py /app/\n"
    tag = images.user(text, {"main.py": "app = None\n"})
    assert run(images.docker, "run", "--rm", tag, *command).stdout == "main:app /gunicorn_conf.py\n"
    bare = run(images.docker, "run", "--rm", images.target("meinheld-flask"), *command).stdout
    assert bare == "main:app /gunicorn_conf.py\n"  # the demo's file
    other = images.user("FROM mooring:meinheld-flask\nCOPY shop.py /app/\n", {"shop.py": "app = None\n"})
    assert run(images.docker, "run", "--rm", other, *command).stdout.split()[0] == "main:app"  # no demo
    named = ("--env", "MODULE_NAME=shop.main", "--env", "GUNICORN_CONF=/x.py")
    said = run(images.docker, "run", "--rm", *named, tag, *command).stdout
    assert said == "shop.main:app /x.py\n"


# By PyPI's pages for pip: a mirror may not have its JSON, which Poetry takes otherwise.
PROJECT = """[[tool.poetry.source]]
name = "pages"
url = "https://pypi.org/simple/"

[tool.poetry]
name = "shop"
version = "1"
description = ""
authors = []
package-mode = false

[tool.poetry.dependencies]
python = "^3.11"
iniconfig = "2.0.0"

[tool.poetry.group.dev.dependencies]
pytest = "*"
black = "*"
"""
POETRY = """
FROM mooring:poetry AS packages
WORKDIR /application_root
COPY pyproject.toml ./
RUN poetry lock && poetry install --no-interaction --no-root --no-dev

FROM mooring:poetry AS production
COPY --from=packages ${VIRTUAL_ENVIRONMENT_PATH} ${VIRTUAL_ENVIRONMENT_PATH}
COPY app /application_root/app/
"""
WITH_IMPORT = "import iniconfig\n" + SAYS


def test_poetry_serves_on_the_applications_environment(start: Starter, images: Images) -> None:
    tag = images.user(POETRY, {"pyproject.toml": PROJECT, "app/main.py": WITH_IMPORT})
    container = start(tag)
    assert container.text() == "hello"
    assert "Activating virtual environment..." in container.output()[0]
    assert container.status()["application"] == "app.main:app"
    code, found = container.execute("python", "-c", "import sys; print(sys.prefix); import pytest")
    assert (code, found.strip()) == (1, "/application_root/.venv")  # without the group dev
    assert container.execute("mooring", "health")[0] == 0
    assert container.stop() == 0
    gunicorn = start(tag, "--env", "GUNICORN_CMD_ARGS=--max-requests 100000")
    assert gunicorn.text() == "hello"
    assert gunicorn.status()["engine"] == "gunicorn"


def test_the_newer_poetry_images_layout(start: Starter, images: Images) -> None:
    """Their Dockerfiles copy to a user of theirs, set no folder, and publish port 8000."""
    text = """FROM mooring:poetry AS packages
COPY --chown=python_application:python_application pyproject.toml /application_root/
RUN poetry lock && poetry install --no-interaction --no-root --without dev
FROM mooring:poetry
COPY --chown=python_application:python_application --from=packages /application_root/.venv .venv
COPY --chown=python_application:python_application app /application_root/app/
"""
    tag = images.user(text, {"pyproject.toml": PROJECT, "app/main.py": WITH_IMPORT})
    container = start(tag, port=8000)
    assert container.text() == "hello"
    assert "listening on port 8000; BIND says otherwise" in container.output()[1]
    pid = container.status()["workers"][0]["pid"]
    assert container.execute("stat", "-c", "%U", f"/proc/{pid}")[1].strip() == "python_application"
    assert container.stop() == 0
    elsewhere = start(tag, "--env", "PORT=80")
    assert elsewhere.text() == "hello"


def test_poetry_without_an_environment_says_what_is_missing(start: Starter, images: Images) -> None:
    container = start(images.target("poetry"))
    assert container.ended() == 3
    stdout, stderr = container.output()
    assert stdout == "Activating virtual environment...\n"
    assert "poetry install" in stderr
    assert len(stderr.splitlines()) == 1


def test_the_pytest_and_black_entry_points(images: Images) -> None:
    files = {
        "pyproject.toml": PROJECT,
        "tests/test_good.py": "def test():\n    assert 1\n",
        "other/test_bad.py": "def test():\n    assert 0\n",
    }
    common = POETRY.replace(" --no-dev", "").partition("\nFROM mooring:poetry AS production")[0]
    common += "\nCOPY . ./\nENTRYPOINT /entrypoints/{}_entrypoint.sh $0 $@\n"
    tests = images.user(common.format("pytest") + 'CMD ["tests"]\n', files)
    good = run(images.docker, "run", "--rm", tests)
    assert good.returncode == 0, good.stdout
    assert good.stdout.startswith("Activating virtual environment...\nRunning pytest...\n")
    assert run(images.docker, "run", "--rm", tests, "other").returncode == 1
    words = 'CMD ["--target-version py311", "--check", "tests"]\n'
    black = run(images.docker, "run", "--rm", images.user(common.format("black") + words, files))
    assert black.returncode == 0, black.stderr


def test_inboard_installs_by_poetry_without_an_environment(start: Starter, images: Images) -> None:
    text = """FROM mooring:inboard-fastapi
COPY pyproject.toml /
RUN poetry lock
RUN poetry install --no-dev --no-interaction --no-root
COPY package /app/
"""
    tag = images.user(text, {"pyproject.toml": PROJECT, "package/main.py": WITH_IMPORT})
    container = start(tag)
    assert container.text() == "hello"
    assert container.execute("sh", "-c", "pwd; command -v poetry")[1].split() == [
        "/",
        "/opt/poetry/wrapper/poetry",
    ]
