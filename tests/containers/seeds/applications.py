"""The applications behind the table: what the documentation shows, or placeholders for what it names."""

from __future__ import annotations

ASGI = """
import asyncio

async def {name}(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(600)
    body = b"{text}"
    if scope["path"] == "/loop":
        body = type(asyncio.get_running_loop()).__module__.encode()
    head = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({{"type": "http.response.start", "status": 200, "headers": head}})
    await send({{"type": "http.response.body", "body": body}})
"""

STARLETTE = """
from starlette.applications import Starlette
from starlette.responses import JSONResponse

{name} = Starlette()


@{name}.route("/")
async def homepage(request):
    return JSONResponse({{"message": "{text}"}})
"""

FASTAPI = """
from fastapi import FastAPI

{name} = FastAPI()

@{name}.get("/")
def read_root():
    return {{"message": "{text}"}}
"""

FLASK = """
from flask import Flask
{name} = Flask(__name__)

@{name}.route("/")
def hello():
    return "{text}"
"""

# What each seed's applications are written with, and their answer to GET /.
KINDS = {"000": ASGI, "001": STARLETTE, "002": FASTAPI, "004": FLASK}
ANSWERS = {
    "000": "Hello from the application",
    "001": '{"message":"Hello World!"}',
    "002": '{"message":"Hello world!"}',
    "004": "Hello World from Flask",
}
TEXTS = {"000": ANSWERS["000"], "001": "Hello World!", "002": "Hello world!", "004": ANSWERS["004"]}

# The marks that a configuration file and a hook leave in the log.
CONF_MARK, HOOK_MARK = "the configuration file was read", "the hook ran"


def _app(seed: str, name: str = "app", text: str = "") -> str:
    return KINDS[seed].format(name=name, text=text or TEXTS[seed])


def files(seed: str, kind: str) -> dict[str, str]:
    """The build context of a user of that older image, Dockerfile apart."""
    root = "package" if seed == "002" else "app"
    decoy = {f"{root}/main.py": _app(seed, text="not this one")}
    plain = {f"{root}/main.py": _app(seed)}
    conf = f'print("{CONF_MARK}")\nworkers = 3\n'
    return {
        "plain": {**plain, "package/prestart.py": f'print("{HOOK_MARK}")\n'} if seed == "002" else plain,
        "package": {"app/app/__init__.py": "", "app/app/main.py": _app(seed)},
        "custom": {**decoy, "app/custom_app/custom_main.py": _app(seed)},
        "custom api": {**decoy, "app/custom_app/custom_main.py": _app(seed, "api")},
        "module": {**decoy, "package/custom/module.py": _app(seed, "api")},
        "api": {"app/main.py": _app(seed, "api")},
        "fastapi": {"app/main.py": FASTAPI.format(name="api", text="Hello world!")},
        "configuration": {
            **plain,
            "app/custom_hypercorn_conf.py": conf,
            "app/custom_gunicorn_conf.py": conf,
        },
        "hook": {**plain, "custom/script.sh": f"echo {HOOK_MARK}\n"},
        "requirements": {"requirements.txt": "flask\npython-slugify==8.0.4\n", "app/main.py": SLUGS},
        "alone": {
            "requirements.txt": "flask\ngunicorn\n",
            "app/main.py": _app(seed),
            "app/gunicorn_conf.py": ALONE,
        },
        "project": {
            "pyproject.toml": PROJECT,
            "package/main.py": SLUGS_API,
            "package/prestart.py": SLUGS_HOOK,
        },
    }[kind]


# What 004 shows for those who need no such image.
ALONE = """
loglevel = "info"
errorlog = "-"
accesslog = "-"
worker_tmp_dir = "/dev/shm"
graceful_timeout = 120
timeout = 120
keepalive = 5
threads = 3
"""

# An index that answers in HTML only is asked as a source of one's own; pypi.org is the same one by its name.
PROJECT = """
[tool.poetry]
name = "package"
version = "0.1.0"
description = "A project"
authors = ["Somebody <somebody@example.com>"]

[tool.poetry.dependencies]
python = "^3.8"
python-slugify = "8.0.4"

[tool.poetry.dev-dependencies]
isort = "5.13.2"

[[tool.poetry.source]]
name = "simple"
url = "https://pypi.org/simple/"

[build-system]
requires = ["poetry>=0.12"]
build-backend = "poetry.masonry.api"
"""

SLUGS_HOOK = f"""
from slugify import slugify
print(slugify("{HOOK_MARK}"))
"""

SLUGS_API = """
import importlib.util
from fastapi import FastAPI
from slugify import slugify

app = FastAPI()

@app.get("/")
def read_root():
    return {"message": slugify("Hello World"), "isort": importlib.util.find_spec("isort") is not None}
"""

# An application that needs what the requirements name.
SLUGS = """
from flask import Flask
from slugify import slugify
app = Flask(__name__)

@app.route("/")
def hello():
    return slugify("Hello World from Flask")
"""
