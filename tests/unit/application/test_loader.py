"""What the loader promises: any application is recognised; any failure is one line and the app's traceback."""

# ruff: noqa: E501  (tables: one row is one line)

from __future__ import annotations

import asyncio
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mooring
from mooring.application import asgi2, discovery, kind, loader
from mooring.application.discovery import Target
from mooring.application.model import Application
from mooring.errors import ApplicationError
from mooring.settings import resolve


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    modules, path = dict(sys.modules), list(sys.path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a source rewritten within a second is read again
    yield
    for name in set(sys.modules) - set(modules):
        if not (getattr(sys.modules[name], "__file__", None) or "").startswith(sys.prefix):
            del sys.modules[name]
    sys.path[:] = path


def target(root: Path, text: str, *search: Path) -> Target:
    module, colon, attribute = text.partition(":")
    return Target(module, attribute if colon else None, "cli", "named", search or (root,))


def load(root: Path, source: str, text: str = "mod_x:app", interface: str = "auto") -> Application:
    (root / "mod_x.py").write_text(source)
    sys.modules.pop("mod_x", None)
    return loader.load(target(root, text), interface)


def fails(root: Path, source: str, text: str = "mod_x:app", interface: str = "auto") -> loader.BootError:
    with pytest.raises(loader.BootError) as caught:
        load(root, source, text, interface)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    assert caught.value.exit_code == 3
    assert isinstance(caught.value, ApplicationError)
    assert caught.value.__cause__ is None
    for ours in ("mooring/", "importlib", "runpy"):
        assert ours not in caught.value.traceback
    return caught.value


# What is what

ASGI3 = "async def app(scope, receive, send): pass\n"
WSGI = "def app(environ, start_response): return [b'']\n"

RECOGNISED = [
    ("a coroutine function", ASGI3, "asgi"),
    ("a WSGI function", WSGI, "wsgi"),
    ("other parameter names, ASGI", "async def app(a, b, c): pass", "asgi"),
    ("other parameter names, WSGI", "def app(a, b): return []", "wsgi"),
    ("a WSGI generator", "def app(env, start): yield b''", "wsgi"),
    (
        "a function that returns an awaitable",
        f"{ASGI3}inner = app\ndef app(s, r, e): return inner(s, r, e)",
        "asgi",
    ),
    (
        "an instance, ASGI",
        "class A:\n async def __call__(self, scope, receive, send): pass\napp = A()",
        "asgi",
    ),
    ("an instance, WSGI", "class A:\n def __call__(self, environ, start_response): pass\napp = A()", "wsgi"),
    ("a bound method, ASGI", "class A:\n async def run(self, s, r, e): pass\napp = A().run", "asgi"),
    ("a bound method, WSGI", "class A:\n def run(self, e, s): pass\napp = A().run", "wsgi"),
    ("a static method", "class A:\n @staticmethod\n def run(e, s): pass\napp = A.run", "wsgi"),
    ("a lambda", "app = lambda environ, start_response: []", "wsgi"),
    (
        "a partial, ASGI",
        "import functools\nasync def f(x, s, r, e): pass\napp = functools.partial(f, 1)",
        "asgi",
    ),
    ("a partial, WSGI", "import functools\ndef f(x, e, s): pass\napp = functools.partial(f, 1)", "wsgi"),
    (
        "a decorated one, wraps followed",
        "import functools\ndef d(f):\n @functools.wraps(f)\n def w(*a, **k): return f(*a, **k)\n return w\n"
        "@d\nasync def app(scope, receive, send): pass",
        "asgi",
    ),
    (
        "a decorated WSGI one, wraps followed",
        "import functools\ndef d(f):\n @functools.wraps(f)\n def w(*a, **k): return f(*a, **k)\n return w\n"
        "@d\ndef app(environ, start_response): pass",
        "wsgi",
    ),
    ("a coroutine function with *args", "async def app(*args): pass", "asgi"),
    (
        "a partial of an instance with *args",
        "import functools\nclass A:\n async def __call__(self, *args): 0\napp = functools.partial(A())",
        "asgi",
    ),
    ("an optional third, WSGI by name", "def app(environ, start_response, x=None): pass", "wsgi"),
    (
        "optional ones, ASGI by name",
        "class A:\n def __call__(self, scope, receive=0, send=0): pass\napp = A()",
        "asgi",
    ),
    ("*args after two", "def app(a, b, *rest): pass", "wsgi"),
    ("keywords with defaults", "async def app(scope, receive, send, *, x=1): pass", "asgi"),
    (
        "a WSGI class",
        "class app:\n def __init__(self, environ, start_response): pass\n def __iter__(self): yield b''",
        "wsgi",
    ),
    (
        "an awaitable class",
        "class app:\n def __init__(self, scope, receive, send): pass\n def __await__(self): yield",
        "asgi",
    ),
    (
        "an ASGI 2 class",
        "class app:\n def __init__(self, scope): pass\n async def __call__(self, receive, send): pass",
        "asgi",
    ),
    ("an ASGI 2 function", "def app(scope):\n async def a(receive, send): pass\n return a", "asgi"),
    ("an ASGI 2 instance", "class A:\n def __call__(self, scope): pass\napp = A()", "asgi"),
    ("a class is a factory", "class app:\n def __call__(self, environ, start_response): pass", "wsgi"),
]


@pytest.mark.parametrize(
    ("source", "interface"), [row[1:] for row in RECOGNISED], ids=[row[0] for row in RECOGNISED]
)
def test_what_is_recognised(tmp_path: Path, source: str, interface: str) -> None:
    found = load(tmp_path, source)
    assert (found.interface, found.framework) == (interface, "")
    assert found.target.removesuffix("()") == "mod_x:app"


UNCLEAR = "class A:\n def __call__(self, *args): pass\napp = wsgi_app = A()\n"
COMPILED = "import functools\n@functools.lru_cache\ndef f(): pass\napp = type('C', (), {'__call__': max})()\n"


@pytest.mark.parametrize("source", [UNCLEAR, COMPILED])
def test_where_it_cannot_be_told_the_setting_decides(tmp_path: Path, source: str) -> None:
    assert load(tmp_path, source, interface="wsgi").interface == "wsgi"
    assert load(tmp_path, source, interface="asgi").interface == "asgi"
    error = fails(tmp_path, source)
    assert str(error).startswith("cannot tell whether mod_x:app is ASGI or WSGI: it is ")
    assert str(error).endswith("; set MOORING_INTERFACE")


def test_a_name_that_says_wsgi_helps(tmp_path: Path) -> None:
    assert load(tmp_path, UNCLEAR, "mod_x:wsgi_app").interface == "wsgi"


@pytest.mark.parametrize(
    ("source", "forced", "what"),
    [
        (ASGI3, "wsgi", "ASGI"),
        (WSGI, "asgi", "WSGI"),
        ("def app(a, b): pass", "asgi", "WSGI"),
        ("class app:\n def __init__(self, s): 0\n async def __call__(self, r, e): 0", "wsgi", "ASGI 2"),
    ],
)
def test_a_forced_interface_that_is_certainly_wrong(
    tmp_path: Path, source: str, forced: str, what: str
) -> None:
    error = fails(tmp_path, source, interface=forced)
    assert str(error).startswith(f"the interface is forced to {forced}, but mod_x:app is ")
    assert str(error).endswith(f", {what}")


def test_a_forced_interface_wins_where_it_may_be_right(tmp_path: Path) -> None:
    assert load(tmp_path, "def app(a, b, c=None): pass", interface="asgi").interface == "asgi"
    assert load(tmp_path, ASGI3, interface="asgi").interface == "asgi"
    assert load(tmp_path, WSGI, interface="wsgi").interface == "wsgi"
    two = load(tmp_path, "def app(s, b=None): pass", interface="wsgi")
    assert (two.interface, two.call.__name__) == ("wsgi", "app")


# Factories


@pytest.mark.parametrize(
    ("source", "text", "shown"),
    [
        ("def create_app(): return app", "mod_x:create_app", "mod_x:create_app()"),
        ("def create_app(): return app", "mod_x:create_app()", "mod_x:create_app()"),
        ("def create_app(config=None): return app", "mod_x:create_app", "mod_x:create_app()"),
        ("def create_app(**settings): return app", "mod_x:create_app", "mod_x:create_app()"),
        ("def create_app(*a, **k): return app", "mod_x:create_app", "mod_x:create_app()"),
        ("make = lambda: app", "mod_x:make", "mod_x:make()"),
        ("class F:\n @classmethod\n def new(cls): return app", "mod_x:F.new", "mod_x:F.new()"),
        ("import functools\nf = functools.partial(lambda x: app, 1)", "mod_x:f", "mod_x:f()"),
        (
            "def create_app(env, *, debug): assert (env, debug) == ('a:b', True); return app",
            "mod_x:create_app('a:b', debug=True)",
            "mod_x:create_app('a:b', debug=True)",
        ),
        ("def create_app(config): return app", "mod_x:create_app({'x': 1})", "mod_x:create_app({'x': 1})"),
    ],
)
@pytest.mark.parametrize("app", [ASGI3, WSGI])
def test_factories(tmp_path: Path, app: str, source: str, text: str, shown: str) -> None:
    found = load(tmp_path, app + source, text)
    assert found.target == shown
    assert found.interface == ("asgi" if app == ASGI3 else "wsgi")
    assert found.call.__name__ == "app"


@pytest.mark.parametrize(
    ("source", "text", "message"),
    [
        ("def create_app(): pass", "mod_x:create_app", "mod_x:create_app() returned None, which is not callable: expected an ASGI or WSGI application"),
        ("def create_app(): return 'x'", "mod_x:create_app", "mod_x:create_app() returned the str 'x', which is not callable: expected an ASGI or WSGI application"),
        ("def create_app(): return create_app", "mod_x:create_app", "mod_x:create_app() returned an instance of function, which is another factory: expected an ASGI or WSGI application"),
        ("async def create_app(): pass", "mod_x:create_app", "factory mod_x:create_app is a coroutine function, but is called without an event loop: make it a def"),
        ("async def inner(): pass\ndef create_app(): return inner()", "mod_x:create_app", "mod_x:create_app() returned an instance of coroutine, which is not callable: expected an ASGI or WSGI application"),
        ("def create_app(config): pass", "mod_x:create_app", "mod_x:create_app is a function that needs arguments (config); expected an ASGI or WSGI application or a factory of one (literal arguments can be given: MODULE:create_app('prod', debug=False))"),
        ("def create_app(*, config): pass", "mod_x:create_app", "mod_x:create_app is a function that needs arguments (config); expected"),
        ("def create_app(config, name): pass", "mod_x:create_app", "mod_x:create_app is a function that needs arguments (config, name); expected"),
        ("def create_app(config): pass", "mod_x:create_app()", "factory mod_x:create_app cannot be called like this: missing a required argument: 'config'; literal arguments"),
        ("def create_app(): pass", "mod_x:create_app(1)", "factory mod_x:create_app cannot be called like this: too many positional arguments; literal arguments"),
        ("create_app = 1", "mod_x:create_app()", "factory mod_x:create_app is the int 1, which is not callable"),
        ("def create_app():\n raise KeyError('X')", "mod_x:create_app", "factory mod_x:create_app failed: KeyError: 'X' ({root}/mod_x.py:2)"),
        ("import sys\ndef create_app():\n sys.exit(3)", "mod_x:create_app", "factory mod_x:create_app failed: it called sys.exit(3) ({root}/mod_x.py:3)"),
        ("class app:\n def __init__(self, app): 0\n async def __call__(self, scope, receive, send): 0", "mod_x:app", "mod_x:app is a class that needs arguments (app); expected"),
    ],
)  # fmt: skip
def test_factories_that_fail(tmp_path: Path, source: str, text: str, message: str) -> None:
    error = fails(tmp_path, source, text)
    assert str(error).startswith(message.replace("{root}", str(tmp_path)))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("app = None", "mod_x:app is None, which is not callable; expected an ASGI or WSGI application"),
        ("app = {}", "mod_x:app is an instance of dict, which is not callable; expected"),
        ("import json as app", "mod_x:app is the module json, which is not callable; expected"),
        ("def app(a, b, c, d): pass", "mod_x:app is a function that needs arguments (a, b, c, d); expected"),
        ("async def app(environ, start_response): pass", "mod_x:app is a coroutine function with start_response, which is neither ASGI nor WSGI; expected"),
        ("async def app(a, b): pass", "mod_x:app is a coroutine function that needs arguments (a, b); expected"),
        ("async def app(request): pass", "mod_x:app is a coroutine function that needs arguments (request); expected"),
    ],
)  # fmt: skip
def test_what_is_no_application(tmp_path: Path, source: str, message: str) -> None:
    assert str(fails(tmp_path, source)).startswith(message)


# The attribute


def test_a_dotted_attribute(tmp_path: Path) -> None:
    assert load(
        tmp_path, f"{WSGI}class sub: inner = type('N', (), {{'app': app}})()", "mod_x:sub.inner.app"
    ).target == ("mod_x:sub.inner.app")
    error = fails(tmp_path, "class sub: apple = 1", "mod_x:sub.appl")
    assert str(error) == "mod_x.sub has no attribute appl; did you mean apple?"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (f"{WSGI}application = app", "mod_x has no attribute aplication; did you mean application?; what looks like an application there: app"),
        ("x = 1", "mod_x has no attribute aplication"),
        ("def create_app(): pass\n_aplication = 1", "mod_x has no attribute aplication; what looks like an application there: create_app"),
    ],
)  # fmt: skip
def test_a_missing_attribute_offers_near_names_and_applications(
    tmp_path: Path, source: str, message: str
) -> None:
    assert str(fails(tmp_path, source, "mod_x:aplication")) == message


def test_a_lazy_attribute_that_fails_is_the_applications_failure(tmp_path: Path) -> None:
    error = fails(tmp_path, "def __getattr__(name):\n raise ValueError('no')")
    assert str(error) == f"cannot read mod_x:app: ValueError: no ({tmp_path}/mod_x.py:2)"
    error = fails(tmp_path, "def __getattr__(name):\n return [].nope")
    assert "cannot read mod_x:app: AttributeError: 'list' object has no attribute 'nope'" in str(error)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (f"{WSGI}application = api = app", "app"),
        (f"{WSGI}application, app = app, None", "application"),
        (f"{WSGI}asgi = wsgi = app\ndel app", None),
        ("class A:\n def __call__(self, environ, start_response): 0\nwsgi = A()", "wsgi"),
        ("async def asgi(scope, receive, send): pass", "asgi"),
        ("class W:\n def __call__(self, *args): 0\napp = W()\ndef create_app():\n return lambda e, s: []", "create_app()"),
        (f"{WSGI}def get_app(): return x\nx = app\ndel app", "get_app()"),
        ("def make_app(): return lambda environ, start_response: []", "make_app()"),
        ("def app(): return lambda environ, start_response: []", "app()"),
        ("from flask import Flask\nserver = Flask('x')\n@server.route('/')\ndef api(): return ''", "server"),
        ("from flask import Flask\nserver = Flask('x')\n@server.route('/')\ndef api(a, b): return ''", "server"),
        ("from flask import Flask\nserver = other = Flask('x')", "server"),
        ("from fastapi import FastAPI, APIRouter\nserver = FastAPI()\napi = APIRouter()", "server"),
        ("from starlette.routing import Router\napp = Router()", "app"),
        ("from fastapi import FastAPI, APIRouter\nserver = FastAPI()\napp = APIRouter()", "app"),
    ],
)  # fmt: skip
def test_an_open_attribute(tmp_path: Path, source: str, name: str | None) -> None:
    expected = f"mod_x:{name or 'asgi'}"
    assert load(tmp_path, source, "mod_x").target == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "mod_x has no application: it has none of app, application, api, asgi, wsgi, create_app, make_app, create_application, get_app, get_application, and no known framework's application under another name; name it: mod_x:ATTRIBUTE"),
        ("app = None", "mod_x:app is None, which is not callable; expected"),
        ("def create_app(config): pass", "mod_x:create_app is a function that needs arguments (config); expected"),
        ("from flask import Flask\na = Flask('x')\nb = Flask('y')", "mod_x has several applications; say which: mod_x:a or mod_x:b"),
    ],
)  # fmt: skip
def test_an_open_attribute_that_leads_nowhere(tmp_path: Path, source: str, message: str) -> None:
    assert str(fails(tmp_path, source, "mod_x")).startswith(message)


# The import


@pytest.mark.parametrize(
    ("source", "message", "trace"),
    [
        ("x = 1\ndef f(:\n", "cannot import mod_x: SyntaxError: invalid syntax ({root}/mod_x.py:2)", '  File "{root}/mod_x.py", line 2\n    def f(:\n'),
        ("if 1:\nx = 1", "cannot import mod_x: IndentationError: expected an indented block after 'if' statement on line 1 ({root}/mod_x.py:2)", '  File "{root}/mod_x.py", line 2\n'),
        ("1 / 0", "cannot import mod_x: ZeroDivisionError: division by zero ({root}/mod_x.py:1)", 'Traceback (most recent call last):\n  File "{root}/mod_x.py", line 1, in <module>\n'),
        ("raise ValueError", "cannot import mod_x: ValueError ({root}/mod_x.py:1)", "Traceback"),
        ("raise ValueError('a\\n\\n  b\\x1b[31m\\x00')", "cannot import mod_x: ValueError: a b\\x1b[31m\\x00 ({root}/mod_x.py:1)", "Traceback"),
        ("raise ValueError('x' * 999)", "cannot import mod_x: ValueError: " + "x" * 297 + "... ({root}/mod_x.py:1)", "Traceback"),
        ("class E(Exception):\n def __str__(self): 1 / 0\nraise E", "cannot import mod_x: E: (its text cannot be shown) ({root}/mod_x.py:3)", "Traceback"),
        ("\nimport json\njson.loads('{')", "cannot import mod_x: JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1) ({root}/mod_x.py:3)", 'Traceback (most recent call last):\n  File "{root}/mod_x.py", line 3, in <module>\n'),
        ("import sys\nsys.exit('bye')", "cannot import mod_x: it called sys.exit('bye') ({root}/mod_x.py:2)", "Traceback"),
        ("import sys\nsys.exit()", "cannot import mod_x: it called sys.exit() ({root}/mod_x.py:2)", "Traceback"),
        ("import asyncio\nraise asyncio.CancelledError", "cannot import mod_x: CancelledError ({root}/mod_x.py:2)", "Traceback"),
        ("import no_such_thing", "cannot import mod_x: it imports no_such_thing, which was not found ({root}/mod_x.py:1): is it installed? (Python ", 'Traceback (most recent call last):\n  File "{root}/mod_x.py", line 1'),
        ("import no_such_thing.sub", "cannot import mod_x: it imports no_such_thing, which was not found", "Traceback"),
        ("import json.nope", "cannot import mod_x: it imports json.nope, which was not found ({root}/mod_x.py:1): there is json, but not json.nope", "Traceback"),
        ("from json import nope", "cannot import mod_x: ImportError: cannot import name 'nope' from 'json' (", "Traceback"),
        ("import mod_x.y", "cannot import mod_x: it imports mod_x.y, which was not found ({root}/mod_x.py:1): there is mod_x, but not mod_x.y", "Traceback"),
        ("from .y import z", "cannot import mod_x: ImportError: attempted relative import with no known parent package ({root}/mod_x.py:1)", "Traceback"),
        ("raise ModuleNotFoundError('why')", "cannot import mod_x: ModuleNotFoundError: why ({root}/mod_x.py:1)", "Traceback"),
    ],
)  # fmt: skip
def test_an_import_that_fails(tmp_path: Path, source: str, message: str, trace: str) -> None:
    error = fails(tmp_path, source)
    assert str(error).startswith(message.replace("{root}", str(tmp_path)))
    assert error.traceback.startswith(trace.replace("{root}", str(tmp_path)))
    assert error.traceback.endswith("\n")


def test_the_line_names_the_applications_own_innermost_frame(tmp_path: Path) -> None:
    (tmp_path / "helper_x.py").write_text("import json\ndef f():\n    json.loads('')\n")
    error = fails(tmp_path, "import helper_x\nhelper_x.f()")
    assert str(error).endswith(f"({tmp_path}/helper_x.py:3)")
    (tmp_path / "broken_x.py").write_text("\n)")
    error = fails(tmp_path, "import broken_x")
    assert str(error) == f"cannot import mod_x: SyntaxError: unmatched ')' ({tmp_path}/broken_x.py:2)"
    assert error.traceback.startswith(
        f'Traceback (most recent call last):\n  File "{tmp_path}/mod_x.py", line 1'
    )


def test_chained_exceptions_and_groups_are_cut_too(tmp_path: Path) -> None:
    source = (
        "import importlib\n"
        "try:\n    importlib.import_module('no_such_thing')\n"
        "except ImportError as error:\n    raise ExceptionGroup('many', [KeyError('k')]) from error\n"
    )
    (tmp_path / "mod_x.py").write_text(source)
    with pytest.raises(loader.BootError) as caught:
        loader.load(target(tmp_path, "mod_x:app"), "auto")
    trace = caught.value.traceback
    first, second = trace.split("\nThe above exception was the direct cause of the following exception:\n")
    assert first.startswith(f'Traceback (most recent call last):\n  File "{tmp_path}/mod_x.py", line 3')
    assert f'Traceback (most recent call last):\n  |   File "{tmp_path}/mod_x.py", line 5' in second
    assert "mooring" not in trace
    assert "KeyError: 'k'" in second


def test_a_module_that_is_not_there_says_where_it_looked(tmp_path: Path) -> None:
    (tmp_path / "pack_x").mkdir()
    (tmp_path / "pack_x/main.py").write_text(WSGI)
    (tmp_path / "plain_x.py").write_text(WSGI)
    python = f"(Python {sys.version_info.major}.{sys.version_info.minor} in {sys.prefix})"
    for text, message in {
        "zzz:app": f"module zzz not found: no zzz in {tmp_path}, nor installed {python}",
        "plian_x:app": f"module plian_x not found: no plian_x in {tmp_path}, nor installed {python}; there is plain_x",
        "zzz.main": f"module zzz.main not found: no zzz in {tmp_path}, nor installed {python}",
        "pack_x.mian": f"module pack_x.mian not found: no mian in {tmp_path}/pack_x; there is pack_x.main",
        "plain_x.main": f"module plain_x.main not found: plain_x is the file {tmp_path}/plain_x.py, not a package",
    }.items():
        error = fails(tmp_path, "", text)
        assert (str(error), error.traceback) == (message, "")


def test_a_package_that_imports_its_own_missing_module_is_where_the_line_points(tmp_path: Path) -> None:
    (tmp_path / "pack_x").mkdir()
    (tmp_path / "pack_x/__init__.py").write_text("import pack_x.main")
    assert str(fails(tmp_path, "", "pack_x.main")) == (
        "cannot import pack_x.main: it imports pack_x.main, which was not found "
        f"({tmp_path}/pack_x/__init__.py:1): there is pack_x, but not pack_x.main"
    )


def test_compiled_code_that_exits_is_the_applications_failure(tmp_path: Path) -> None:
    assert str(fails(tmp_path, "from sys import exit", "mod_x:exit")) == (
        "factory mod_x:exit failed: it called sys.exit()"
    )


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(loader.BootError, match=r"no zzz in .*/gone \(which is no folder\), nor installed"):
        loader.load(target(tmp_path, "zzz", tmp_path / "gone"), "auto")


def test_a_file_that_python_has_a_module_of_the_same_name_for(tmp_path: Path) -> None:
    (tmp_path / "signal.py").write_text(ASGI3)
    with pytest.raises(loader.BootError) as caught:
        loader.load(target(tmp_path, "signal:app"), "auto")
    assert str(caught.value).startswith(f"module signal is not {tmp_path}/signal.py: signal is already /")
    assert str(caught.value).endswith("signal.py; rename your file")
    (tmp_path / "time.py").write_text(ASGI3)
    with pytest.raises(loader.BootError, match="time is already built into Python; rename your file"):
        loader.load(target(tmp_path, "time:app"), "auto")


def test_an_interrupt_is_the_applications_own_since_workers_ignore_the_signal(tmp_path: Path) -> None:
    with pytest.raises(loader.BootError, match="KeyboardInterrupt"):
        load(tmp_path, "raise KeyboardInterrupt")
    with pytest.raises(loader.BootError, match="KeyboardInterrupt"):
        load(tmp_path, "def create_app(): raise KeyboardInterrupt", "mod_x:create_app")


def test_search_folders_come_first_once_and_in_order(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    (two / "mod_y.py").write_text(WSGI)
    sys.path.append(str(two))
    loader.load(target(tmp_path, "mod_y:app", one, two), "auto")
    assert sys.path[:2] == [str(one), str(two)]
    assert sys.path.count(str(two)) == 1


def test_mooring_s_own_exit_from_a_signal_is_not_the_applications_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = compile(
        "def handler(): raise SystemExit(0)", str(Path(mooring.__file__).parent / "system/signals.py"), "exec"
    )
    exec(handler, namespace := {})
    monkeypatch.setattr(sys, "from_a_signal", namespace["handler"], raising=False)
    with pytest.raises(SystemExit):
        load(tmp_path, "import sys\nsys.from_a_signal()")


def found(root: Path, **environ: str) -> Application:
    resolved = resolve.resolve({}, {"MOORING_APP_ROOT": str(root), **environ}, root)
    return loader.load(discovery.find(resolved), resolved.settings.interface)


@pytest.mark.parametrize(
    "imports",
    [
        "import sibling_x",
        "from . import sibling_x",
        "from plain_y import sibling_x",
        "import plain_y.sibling_x",
    ],
)
def test_a_file_in_a_plain_folder_may_import_its_neighbour_in_any_way(tmp_path: Path, imports: str) -> None:
    (tmp_path / "plain_y").mkdir()
    (tmp_path / "plain_y/main.py").write_text(f"{imports}\n{WSGI}")
    (tmp_path / "plain_y/sibling_x.py").write_text("")
    assert found(tmp_path, APP_MODULE="plain_y/main.py").target == "plain_y.main:app"


@pytest.mark.parametrize("imports", ["import pack_y.b", "from . import b", "import src.pack_y.b"])
def test_a_src_layout(tmp_path: Path, imports: str) -> None:
    (tmp_path / "src/pack_y").mkdir(parents=True)
    (tmp_path / "src/pack_y/__init__.py").write_text("")
    (tmp_path / "src/pack_y/b.py").write_text("")
    (tmp_path / "src/pack_y/main.py").write_text(f"{imports}\n{WSGI}")
    assert found(tmp_path).target == "pack_y.main:app"


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_a_project_as_django_makes_it(tmp_path: Path, interface: str) -> None:
    pytest.importorskip("django")
    subprocess.run([sys.executable, "-m", "django", "startproject", "mysite", str(tmp_path)], check=True)
    code = (
        "import sys; from pathlib import Path; from mooring.application import discovery, loader\n"
        "from mooring.settings import resolve\n"
        "root, environ = Path(sys.argv[1]), {} if sys.argv[2] == 'wsgi' else {'MOORING_INTERFACE': 'asgi'}\n"
        "target = discovery.find(resolve.resolve({}, environ, root))\n"
        "found = loader.load(target, 'auto'); print(found.target, found.interface, found.framework, end='')"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(mooring.__file__).parents[1])}
    command = [sys.executable, "-c", code, str(tmp_path), interface]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
    assert done.stdout == f"mysite.{interface}:application {interface} django"


def test_a_boot_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(loader.BootError("line", "trace")))
    assert (str(error), error.traceback) == ("line", "trace")


# Real frameworks, in a process of their own

FRAMEWORKS = {
    "fastapi": ("from fastapi import FastAPI\napp = FastAPI()", "asgi", "fastapi"),
    "starlette": ("from starlette.applications import Starlette\napp = Starlette()", "asgi", "starlette"),
    "quart": ("from quart import Quart\napp = Quart(__name__)", "asgi", "quart"),
    "litestar": ("from litestar import Litestar\napp = Litestar()", "asgi", "litestar"),
    "flask": ("from flask import Flask\napp = Flask(__name__)", "wsgi", "flask"),
    "falcon": ("import falcon\napp = falcon.App()", "wsgi", "falcon"),
    "falcon.asgi": ("import falcon.asgi\napp = falcon.asgi.App()", "asgi", "falcon"),
    "bottle": ("import bottle\napp = bottle.Bottle()", "wsgi", "bottle"),
    "pyramid": (
        "from pyramid.config import Configurator\napp = Configurator().make_wsgi_app()",
        "wsgi",
        "pyramid",
    ),
    "sanic": ("import sanic\napp = sanic.Sanic('x')", "asgi", "sanic"),
    "cherrypy": ("import cherrypy\napp = cherrypy.tree", "wsgi", "cherrypy"),
    "django.core.wsgi": (
        "from django.conf import settings\nsettings.configured or settings.configure()\nfrom django.core.wsgi import get_wsgi_application\n"
        "app = get_wsgi_application()",
        *("wsgi", "django"),
    ),
    "django.core.asgi": (
        "from django.conf import settings\nsettings.configured or settings.configure()\nfrom django.core.asgi import get_asgi_application\n"
        "app = get_asgi_application()",
        *("asgi", "django"),
    ),
    "a subclass": (
        "from fastapi import FastAPI\nclass Mine(FastAPI):\n async def __call__(self, *a): 0\napp = Mine()",
        *("asgi", "fastapi"),
    ),
    "ASGI middleware": (
        "from fastapi import FastAPI\nfrom starlette.middleware.cors import CORSMiddleware\n"
        "app = CORSMiddleware(FastAPI())",
        *("asgi", "fastapi"),
    ),
    "WSGI middleware": (
        "from flask import Flask\nfrom werkzeug.middleware.proxy_fix import ProxyFix\napp = ProxyFix(Flask('x').wsgi_app)",
        *("wsgi", "flask"),
    ),
    "a method of Flask": ("from flask import Flask\napp = Flask('x').wsgi_app", "wsgi", "flask"),
}
REFUSED = {
    "aiohttp": ("from aiohttp import web\napp = web.Application()", "an aiohttp application"),
    "tornado": ("import tornado.web\napp = tornado.web.Application()", "a tornado application"),
    "click": ("import click\n@click.command()\ndef app(): pass", "a click command"),
}
PROGRAM = """
import json, sys, warnings
from pathlib import Path
from mooring.application import discovery, loader
warnings.simplefilter("ignore")
results = {}
for name in sys.argv[2:]:
    target = discovery.Target(name, "app", "cli", "named", (Path(sys.argv[1]),))
    try:
        found = loader.load(target, "auto")
        results[name] = [found.interface, found.framework]
    except loader.BootError as error:
        results[name] = str(error)
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("frameworks")
    names = []
    for number, row in enumerate([*FRAMEWORKS.values(), *REFUSED.values()]):
        names.append(f"framework_{number}")
        (root / f"{names[-1]}.py").write_text(row[0])
    command = [sys.executable, "-c", PROGRAM, str(root), *names]
    environ = {**os.environ, "PYTHONPATH": str(Path(mooring.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
    results = json.loads(done.stdout.splitlines()[-1])
    return dict(zip([*FRAMEWORKS, *REFUSED], results.values(), strict=True))


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_frameworks(loaded: dict[str, Any], name: str) -> None:
    if "it imports" in loaded[name]:
        pytest.skip(loaded[name])
    assert loaded[name] == [*FRAMEWORKS[name][1:]]


@pytest.mark.parametrize("name", REFUSED)
def test_what_serves_itself_or_nothing_is_refused_by_name(loaded: dict[str, Any], name: str) -> None:
    if "it imports" in loaded[name]:
        pytest.skip(loaded[name])
    assert f":app is {REFUSED[name][1]}, " in loaded[name]


def test_a_view_that_is_named_like_an_application_is_none(tmp_path: Path) -> None:
    assert kind.kind(lambda request, response: 0, "create_thing").name == kind.NONE
    assert kind.described(3) == "the int 3"


# ASGI 2


def run_asgi(app: Any, scope: dict[str, Any], *messages: str) -> list[str]:
    sent: list[str] = []
    queue = [{"type": message} for message in messages]

    async def receive() -> Any:
        return queue.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(app(scope, receive, send))
    return sent


class HttpOnly:
    def __init__(self, scope: Any) -> None:
        assert scope["type"] == "http"

    async def __call__(self, receive: Any, send: Any) -> None:
        await send({"type": (await receive())["type"] + ".answered"})


LIFESPAN = ("lifespan.startup", "lifespan.shutdown")
COMPLETE = ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def talking(*answers: str, error: bool = False) -> Any:
    def app(scope: Any) -> Any:
        async def instance(receive: Any, send: Any) -> None:
            for answer in answers:
                await receive()
                if answer:
                    await send({"type": answer})
            if error:
                raise RuntimeError("no")

        return instance

    return app


def test_asgi_2_is_called_twice() -> None:
    assert run_asgi(asgi2.adapt(HttpOnly), {"type": "http"}, "http.request") == ["http.request.answered"]
    with pytest.raises(AssertionError):
        run_asgi(asgi2.adapt(HttpOnly), {"type": "websocket"})


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        (HttpOnly, COMPLETE),
        (talking(), COMPLETE),
        (talking(error=True), COMPLETE),
        (talking("", error=True), COMPLETE),
        (talking(*COMPLETE), COMPLETE),
        (talking("lifespan.startup.failed"), ["lifespan.startup.failed"]),
    ],
)
def test_a_lifespan_that_the_application_does_not_know_is_answered_for_it(
    app: Any, expected: list[str]
) -> None:
    assert run_asgi(asgi2.adapt(app), {"type": "lifespan"}, *LIFESPAN) == expected


def test_a_lifespan_that_fails_after_its_startup_is_a_failure() -> None:
    with pytest.raises(RuntimeError):
        run_asgi(
            asgi2.adapt(talking("lifespan.startup.complete", error=True)), {"type": "lifespan"}, *LIFESPAN
        )
