"""The conda-starlette image's scenarios by their numbers: users' Dockerfiles in real containers."""

from __future__ import annotations

import json
import re
import time

import pytest
from dropin import again, answers, check, conf, connect, edit, ends, envs, once, refused, says, summary
from engine import ROOT

pytestmark = pytest.mark.docker

CONF = "/gunicorn_conf.py"
DOCKERFILE = "FROM mooring:conda-starlette\n\nCOPY ./app /app\n"
KEYS = ["loglevel", "workers", "bind", "workers_per_core", "host", "port"]
QUICK_START = """
from starlette.applications import Starlette
from starlette.responses import JSONResponse

app = Starlette()


@app.route("/")
async def homepage(request):
    return JSONResponse({"message": "Hello World!"})
"""
IDLE = 61  # seconds
CHANNEL = """
COPY conda_channel.py /channel/
RUN PYTHONPATH=/opt/mooring/conda /usr/local/bin/python /channel/conda_channel.py /channel
"""
WITH_CONDA = """
RUN conda config --add channels file:///channel && conda update -n base -c defaults conda -y
RUN conda install -y -c file:///channel purepkg=1.2 && conda clean -afy
COPY environment.yml ./
RUN conda env create -f environment.yml
SHELL ["conda", "run", "--no-capture-output", "-n", "shop", "/bin/bash", "-c"]
RUN python -c "import builtpkg, os; print(os.environ['HOOKED'])" >/shop.txt
SHELL ["/bin/bash", "--login", "-c"]
RUN conda activate shop && command -v python >>/shop.txt && source deactivate && command -v python >>/shop.txt
"""
ENVIRONMENT = """
name: shop
channels: [file:///channel, nodefaults]
dependencies: [python=3.13, builtpkg, hooked]
"""
USES = """
import sys
import {0}

async def app(scope, receive, send):
    text = f"{{sys.prefix}} {{{0}.__file__}}".encode()
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": text}})
"""


@pytest.fixture(scope="module")
def user(images):
    files = {"app/main.py": says("hi"), "app/prestart.sh": "echo the usual\n", "x.sh": "echo the other\n"}
    files["conf.py"] = "import os\naccesslog = '-'\nraw_env = ['BY=' + os.environ['PORT']]\n"
    return images.user(DOCKERFILE + "COPY x.sh conf.py /\n", files)


@pytest.fixture(scope="module")
def kept(docker, images):
    """A container with nothing given, and a connection to it that has had one answer, and when."""
    from container import Container

    container = Container(docker, images.target("conda-starlette"))
    container.get()
    connection = connect(container)
    assert answers(connection)
    yield container, connection, time.monotonic()
    connection.close()
    container.remove()


def test_h13_with_nothing_given(kept, cores):
    """The demo, as JSON; the object has exactly the six keys; conda's folder is where it was."""
    container, _, _ = kept
    answer = container.get()
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.text == '{"message":"Hello world! From mooring, uvicorn and Python 3.13"}'
    assert container.get("/other").status_code == 404
    expected = {"loglevel": "info", "workers": max(cores, 2), "bind": "0.0.0.0:80"}
    expected |= {"workers_per_core": 1.0, "host": "0.0.0.0", "port": "80"}
    assert container.serving()["size"] == expected["workers"]
    assert conf(container, CONF) == summary(container) == expected
    assert list(conf(container, CONF)) == list(summary(container)) == KEYS
    head = container.output()[0].splitlines()[:2]
    assert head == ["Checking for script in /app/prestart.sh", "Running script /app/prestart.sh"]
    assert container.execute("sh", "-c", "test -x $CONDA_DIR/bin/python")[0] == 0


def test_the_readme_s_quick_start(images, start):
    """Starlette's `route` decorator is there; the access log is on stderr, in the old form."""
    container = start(images.user(DOCKERFILE, {"app/main.py": QUICK_START}), *envs(WEB_CONCURRENCY=1))
    assert json.loads(container.text()) == {"message": "Hello World!"}
    line = container.wait_log('"GET / HTTP/1.1" 200')
    assert re.fullmatch(r"\[.+\] \[\d+\] \[INFO\] \('[\d.]+', \d+\) - \"GET / HTTP/1.1\" 200", line)
    assert line in container.output()[1]
    again(container)


def test_h14_the_hook_changes_the_environment(images, start):
    """What it exports and what it reassigns counts; a new variable that is not exported is not seen."""
    hook = "export FOO=1\nBAR=2\nWEB_CONCURRENCY=3\nAPP_MODULE=other:app\n"
    files = {"app/main.py": says("main"), "app/other.py": says("other"), "app/prestart.sh": hook}
    container = start(images.user(DOCKERFILE, files), *envs(WEB_CONCURRENCY=1))
    assert container.text() == "other"
    environ = json.loads(container.text("/env"))
    assert environ["FOO"] == "1"
    assert "BAR" not in environ
    assert container.serving()["size"] == summary(container)["workers"] == 3
    again(container)


@pytest.mark.parametrize(("hook", "code"), [("echo a; false; echo b\n", 1), ("echo a; exit 0\n", 0)])
def test_h15_h16_a_hook_that_fails_or_exits(docker, images, hook, code):
    """The container ends with the hook's code, and has not listened."""
    done = once(docker, images.user(DOCKERFILE, {"app/main.py": says("hi"), "app/prestart.sh": hook}))
    refused(done, code)
    assert done.stdout.splitlines()[2:] == ["a"]


def test_h17_reload(user, start, cores):
    """Any text turns it on, at HOST:PORT, with uvicorn alone; an empty one does not."""
    environ = {"RELOAD": "1", "HOST": "0.0.0.0", "PORT": 8080, "BIND": "127.0.0.1:1"}
    container = start(user, *envs(**environ), port=8080)
    assert container.text() == "hi"
    status = container.status()
    assert (status["engine"], status["size"]) == ("uvicorn", 1)
    edit(container, "/app/main.py", says("two"))
    container.until(lambda: container.text() == "two", "the new body")
    line = container.wait_log('"GET / ')
    assert re.fullmatch(r'INFO:     [\d.]+:\d+ - "GET / HTTP/1\.1" 200 OK', line)
    assert "{" not in container.output()[0]
    plan = check(container, RELOAD="")["plan"]
    assert (plan["reload"]["value"], plan["workers"]["value"]) == (False, max(cores, 2))
    assert plan["bind"]["value"] == ["127.0.0.1:1"]
    again(container)


def test_h18_variables_that_the_image_ignored(user, start):
    """They have their plain meaning."""
    environ = {"PRE_START_PATH": "/x.sh", "MAX_WORKERS": 1, "TIMEOUT": 1, "ACCESS_LOG": "-"}
    container = start(user, *envs(**environ))
    assert container.text() == "hi"
    head = ["Checking for script in /x.sh", "Running script /x.sh", "the other"]
    assert container.output()[0].splitlines()[:3] == head
    status = container.serving()
    assert (status["size"], status["plan"]["timeout"]["value"]) == (1, 1)
    assert container.wait_log('"GET / HTTP/1.1" 200') in container.output()[0]
    ends(container)


def test_h18_a_worker_class_that_cannot_serve_asgi(docker, user):
    """That is known once the application is imported."""
    done = once(docker, user, *envs(WORKER_CLASS="sync"))
    assert done.returncode == 2, done.stderr
    assert "worker class sync cannot serve the ASGI application" in done.stderr.splitlines()[-1]


def test_h19_no_application(docker, images):
    done = once(docker, images.user(DOCKERFILE, {"app/other.py": ""}))
    last = refused(done, 3)
    assert "/app/app/main.py" in last
    assert "/app/main.py" in last


def test_a_gunicorn_configuration_of_the_users_own(user, start):
    """gunicorn serves; what the file doesn't set is by WEB_CONCURRENCY and PORT; one access log, its own."""
    container = start(user, *envs(GUNICORN_CONF="/conf.py", WEB_CONCURRENCY=2, PORT=8080), port=8080)
    assert json.loads(container.text("/env"))["BY"] == "8080"
    plan = container.status()["plan"]
    assert (plan["engine"]["value"], plan["workers"]["value"]) == ("gunicorn", 2)
    assert plan["gunicorn_conf"]["value"] == "/conf.py"
    container.wait_log('"GET /env HTTP/1.1" 200')
    again(container)
    assert container.logs().count("GET /env") == 1


def test_h30_one_worker(user, start):
    container = start(user, *envs(WEB_CONCURRENCY=1, PORT=8080, LOG_LEVEL="warning"), port=8080)
    assert container.text() == "hi"
    assert container.serving()["size"] == 1
    shown = conf(container, CONF)
    assert shown == summary(container)
    assert (shown["workers"], shown["bind"], shown["loglevel"]) == (1, "0.0.0.0:8080", "warning")
    again(container)


def test_h13_an_idle_connection_is_kept_for_more_than_a_minute(kept):
    """The one that was opened before all these tests."""
    container, connection, since = kept
    if time.monotonic() > since + 100:  # on a busy machine its 120 s may be over
        connection = connect(container)
        assert answers(connection)
        since = time.monotonic()
    time.sleep(max(0.0, since + IDLE - time.monotonic()))
    assert answers(connection)
    connection.close()
    again(container)


def _conda_files(environment: str, module: str) -> dict[str, str]:
    """A channel's program, an environment.yml, and an application that says where a module is from."""
    channel = (ROOT / "tests/integration/conda_channel.py").read_text()
    return {
        "conda_channel.py": channel,
        "environment.yml": environment,
        "app/main.py": USES.format(module),
    }


def test_conda_in_a_users_dockerfile(images, start):
    """What base got is served; an environment with a name is run and activated as Dockerfiles do."""
    channel = (ROOT / "tests/integration/conda_channel.py").read_text()
    files = {
        "conda_channel.py": channel,
        "environment.yml": ENVIRONMENT,
        "app/main.py": USES.format("purepkg"),
    }
    container = start(
        images.user(f"FROM mooring:conda-starlette{CHANNEL}{WITH_CONDA}COPY ./app /app\n", files)
    )
    packages = "/opt/conda/lib/python3.13/site-packages"
    assert container.text() == f"/opt/conda {packages}/purepkg.py"
    shop = container.execute("cat", "/shop.txt")[1].splitlines()
    assert shop == ["yes, it is", "/opt/conda/envs/shop/bin/python", "/opt/conda/bin/python"]
    assert container.execute("sh", "-c", "ls -A /opt/conda/pkgs")[1] == ""
    again(container)


def test_condas_python_in_base_serves_too(images, start):
    """In the other image that was conda's: a compiled package brings it, and mooring runs on it."""
    channel = (ROOT / "tests/integration/conda_channel.py").read_text()
    environment = ENVIRONMENT.replace("name: shop\n", "")
    files = {
        "conda_channel.py": channel,
        "environment.yml": environment,
        "app/main.py": USES.format("builtpkg"),
    }
    more = (
        "COPY environment.yml ./\nRUN conda env update -n base -f environment.yml && conda list >/list.txt\n"
    )
    container = start(images.user(f"FROM mooring:hypercorn{CHANNEL}{more}COPY ./app /app\n", files))
    assert container.text() == "/opt/conda /opt/conda/lib/python3.13/site-packages/builtpkg.py"
    listed = container.execute("cat", "/list.txt")[1]
    assert re.search(r"^python +3\.13\.\d+ +0 +channel$", listed, re.MULTILINE)
    again(container)
