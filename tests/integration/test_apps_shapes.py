"""The shapes that an application may have, on every engine: instance, factory, ASGI 2; forced interfaces."""

from __future__ import annotations

import pytest
from served import Served
from variants import APPS, ASGI, WSGI, Variant, each_variant

SHAPES = '''
from plain_asgi import app as asgi_app
from plain_wsgi import app as wsgi_app


class Wrapped:
    """Middleware as an instance: nothing tells its framework."""

    def __init__(self, inner):
        self.inner = inner


class Asgi(Wrapped):
    async def __call__(self, scope, receive, send):
        await self.inner(scope, receive, send)


class Wsgi(Wrapped):
    def __call__(self, environ, start_response):
        return self.inner(environ, start_response)


asgi_instance = Asgi(asgi_app)
wsgi_instance = Wsgi(wsgi_app)


def asgi_factory(depth=1):
    return Asgi(asgi_app)


def wsgi_factory(depth=1):
    return Wsgi(wsgi_app)


def asgi_open(*args):
    return asgi_app(*args)


def wsgi_open(*args):
    return wsgi_app(*args)
'''


@pytest.mark.parametrize("shape", ["instance", "factory(depth=2)"])
@each_variant
def test_a_shape_is_served(mooring, variant: Variant, shape: str):
    served = shaped(mooring, variant, f"shapes:{variant.interface}_{shape}")
    assert served.app.status()["plan"]["interface"]["value"] == variant.interface


@each_variant
def test_an_interface_that_cannot_be_told_can_be_forced(mooring, variant: Variant):
    shaped(mooring, variant, f"shapes:{variant.interface}_open", MOORING_INTERFACE=variant.interface)


def shaped(mooring, variant: Variant, target: str, **environ) -> Served:
    mooring.folder.joinpath("shapes.py").write_text(SHAPES)
    served = Served.start(mooring, variant, target, options={}, PYTHONPATH=APPS / "plain", **environ)
    assert served.app.get("/cookies").text == "two"
    return served


@pytest.mark.parametrize("variant", ASGI, ids=str)
def test_an_asgi_2_application_is_served(mooring, variant: Variant):
    served = Served.start(mooring, variant, "asgi2:Application")
    assert served.app.get("/here").text == "asgi 2 at /here"
    assert served.app.stop() == 0


@pytest.mark.parametrize("variant", [*ASGI[:1], WSGI[3]], ids=str)
def test_an_engine_that_cannot_serve_the_interface_says_so(mooring, variant: Variant):
    other = {"asgi": "wsgi", "wsgi": "asgi"}[variant.interface]
    app = mooring.start(
        "run", f"plain_{other}:app", files={}, options={"cwd": APPS / "plain"}, **variant.environ
    )
    assert app.wait_exit() == 2
    assert other.upper() in app.last_line
