"""An application that raises for the lifespan scope is served without it, and what it raised is said."""

import asyncio
import logging

import pytest

from mooring.engines.common.lifespan import Lifespan


def run(app):
    sent = []

    async def main():
        inbox = asyncio.Queue()
        for kind in ("startup", "shutdown"):
            inbox.put_nowait({"type": f"lifespan.{kind}"})

        async def send(message):
            sent.append(message["type"])

        await Lifespan(app, logging.getLogger("lifespan.test"))({"type": "lifespan"}, inbox.get, send)

    asyncio.run(main())
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def raises(error):
    async def app(scope, receive, send):
        raise error

    return app


async def asserts(scope, receive, send):
    assert scope["type"] == "http"


async def looks(scope, receive, send):
    scope["path"]


async def starts(scope, receive, send):
    await receive()
    raise LookupError("database")


@pytest.mark.parametrize(
    "app",
    [
        asserts,
        raises(NotImplementedError()),
        raises(ValueError("It can handle HTTP, not lifespan.")),
    ],
)
def test_a_plain_refusal_is_no_news(app, caplog):
    caplog.set_level("INFO")
    run(app)
    assert not [each for each in caplog.records if each.name == "lifespan.test"]


@pytest.mark.parametrize(
    ("app", "wanted"),
    [
        (looks, "KeyError: 'path' ("),
        (raises(ValueError("no database")), "ValueError: no database ("),
        (raises(AssertionError("settings")), "AssertionError: settings ("),
        (starts, "LookupError: database"),
    ],
)
def test_a_mistake_is_named_in_a_warning(app, wanted, caplog):
    caplog.set_level("INFO")
    run(app)
    (found,) = [each for each in caplog.records if each.name == "lifespan.test"]
    assert wanted in found.getMessage()
    assert "without lifespan" in found.getMessage()
    assert found.levelname == "WARNING"
