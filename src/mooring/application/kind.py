"""What an object is: an ASGI 3, ASGI 2 or WSGI application, a factory of one, or none of them.

The first row that fits decides; nothing is called.

| the object | kind |
|---|---|
| not callable, or known not to be ASGI or WSGI (`REFUSED`: aiohttp, tornado, celery, typer, click) | none |
| an instance of a known framework's application class (`APPLICATIONS`) | as `APPLICATIONS` says |
| parameters scope, receive and send; or start_response | asgi3; wsgi |
| a class called with the scope, whose instances are called with receive and send | asgi2 |
| a class called with two arguments, whose instances are iterable | wsgi |
| a class called with three arguments, whose instances are awaitable | asgi3 |
| a class called with nothing | factory |
| any other class | none: it needs arguments |
| takes three arguments | asgi3, as coroutine function or as function that returns an awaitable |
| takes two arguments, no coroutine function | wsgi |
| takes one argument called scope (or with a name of one letter) | asgi2 |
| takes none (arguments with defaults don't count); a usual factory name with only *args | factory |
| a coroutine function with only *args | asgi3 |
| only *args, or compiled code whose arguments are not known | unclear: the interface setting decides |
| anything else | none: it needs arguments |

"Takes" means the arguments that inspect.signature reports: it follows functools.wraps, partial, bound methods
and __call__.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Any, NamedTuple

ASGI3, ASGI2, WSGI, FACTORY, UNCLEAR, NONE = "asgi3", "asgi2", "wsgi", "factory", "unclear", "none"
INTERFACES: Mapping[str, str] = {ASGI3: "asgi", ASGI2: "asgi", WSGI: "wsgi"}

APPLICATIONS: Mapping[str, str] = {
    "fastapi.applications.FastAPI": ASGI3,
    "starlette.applications.Starlette": ASGI3,
    "quart.app.Quart": ASGI3,
    "litestar.app.Litestar": ASGI3,
    "sanic.app.Sanic": ASGI3,
    "django.core.handlers.asgi.ASGIHandler": ASGI3,
    "falcon.asgi.app.App": ASGI3,
    "django.core.handlers.wsgi.WSGIHandler": WSGI,
    "falcon.app.App": WSGI,
    "flask.app.Flask": WSGI,
    "bottle.Bottle": WSGI,
    "pyramid.router.Router": WSGI,
    "cherrypy._cptree.Application": WSGI,
    "cherrypy._cptree.Tree": WSGI,
}
FRAMEWORKS = frozenset(name.partition(".")[0] for name in APPLICATIONS)

REFUSED: Mapping[str, str] = {
    "aiohttp.web_app.Application": "an aiohttp application, which is neither ASGI nor WSGI and serves itself",
    "tornado.web.Application": "a tornado application, which is neither ASGI nor WSGI and serves itself",
    "celery.app.base.Celery": "a Celery application, which serves no requests",
    "typer.main.Typer": "a Typer command, not a web application",
    "click.core.Command": "a click command, not a web application",
}

_FACTORY_WORDS = ("create", "make", "get", "build", "init", "factory")


class Kind(NamedTuple):
    """What an object is. `why` completes "NAME is ..."; if `certain`, no setting can overrule it."""

    name: str
    why: str = ""
    certain: bool = True


def kind(thing: Any, name: str = "") -> Kind:
    """What an object is; `name` is the attribute under which it was found."""
    for name_of_class in _classes(thing):
        if name_of_class in REFUSED:
            return Kind(NONE, REFUSED[name_of_class])
    if not callable(thing):
        return Kind(NONE, f"{described(thing)}, which is not callable")
    for name_of_class in _classes(thing):
        if name_of_class in APPLICATIONS:
            return Kind(APPLICATIONS[name_of_class])
    try:
        takes = _Takes.of(thing)
    except Exception:  # ValueError for compiled code; annotations that cannot be evaluated raise anything
        return Kind(UNCLEAR, "compiled code that doesn't tell what arguments it takes", certain=False)
    if isinstance(thing, type):
        return _class_kind(thing, takes)
    return _callable_kind(takes, is_async(thing), name)


def _classes(thing: Any) -> list[str]:
    """The full names of an instance's class and its base classes; none for a class."""
    if isinstance(thing, type):
        return []
    return [f"{each.__module__}.{each.__qualname__}" for each in type(thing).__mro__]


def named_so(thing: Any) -> bool:
    """Whether the parameters' names show the interface, and not only their number."""
    try:
        return bool(_Takes.of(thing).named())
    except Exception:
        return False


def is_known(thing: Any) -> bool:
    """Whether an object is an instance of a known framework's application class."""
    return any(name in APPLICATIONS for name in _classes(thing))


class _Takes(NamedTuple):
    """A callable's parameters: positional names, how many are required, whether *args, required keywords."""

    names: tuple[str, ...]
    required: int
    rest: bool
    keywords: tuple[str, ...]

    @classmethod
    def of(cls, thing: Callable[..., Any]) -> _Takes:
        parameters = inspect.signature(thing).parameters.values()
        positional = [
            p for p in parameters if p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        ]
        return cls(
            tuple(p.name for p in positional),
            sum(p.default is Parameter.empty for p in positional),
            any(p.kind is Parameter.VAR_POSITIONAL for p in parameters),
            tuple(
                p.name
                for p in parameters
                if p.kind is Parameter.KEYWORD_ONLY and p.default is Parameter.empty
            ),
        )

    def named(self) -> str:
        """The kind that the parameters' names show; "" if they show none."""
        if {"scope", "receive", "send"} <= set(self.names):
            return ASGI3
        return WSGI if "start_response" in self.names else ""

    def fits(self, count: int) -> bool:
        """Whether a call with `count` positional arguments is possible."""
        return self.required <= count and (self.rest or count <= len(self.names))

    def needs(self) -> str:
        needed = ", ".join((*self.names[: self.required], *self.keywords))
        return f"needs arguments ({needed})"


def _class_kind(cls: type, takes: _Takes) -> Kind:
    if takes.keywords:
        return Kind(NONE, f"a class that {takes.needs()}")
    instances = _instances_take(cls)
    iterable = hasattr(cls, "__iter__")
    if takes.required == 1 and instances and not instances.named() and instances.required == 2:
        return Kind(ASGI2)
    if iterable and (takes.named() == WSGI or takes.required == 2):
        return Kind(WSGI)
    if hasattr(cls, "__await__") and (takes.named() == ASGI3 or takes.required == 3):
        return Kind(ASGI3)
    if takes.required == 0:
        return Kind(FACTORY)
    return Kind(NONE, f"a class that {takes.needs()}")


def _instances_take(cls: type) -> _Takes | None:
    """The parameters of a class's instances without self; None if they cannot be called or inspected."""
    call = next((vars(each)["__call__"] for each in cls.__mro__ if "__call__" in vars(each)), None)
    try:
        takes = _Takes.of(call) if call else None
    except Exception:
        return None
    if takes is None or not takes.names:
        return None
    return _Takes(takes.names[1:], takes.required - 1, takes.rest, takes.keywords)


def _callable_kind(takes: _Takes, coroutine: bool, name: str) -> Kind:
    what = "a coroutine function" if coroutine else "a function"
    makes = not {*name.lower().split("_")}.isdisjoint(_FACTORY_WORDS)
    if takes.keywords:
        return Kind(NONE, f"{what} that {takes.needs()}")
    if takes.named():
        return Kind(NONE, _ASYNC_WSGI) if coroutine and takes.named() == WSGI else Kind(takes.named())
    if takes.required == 3:
        return Kind(ASGI3)
    if takes.required == 0 and takes.rest and not makes:
        return Kind(ASGI3) if coroutine else Kind(UNCLEAR, "called with any arguments (*args)", certain=False)
    if takes.required == 0:
        return Kind(FACTORY)
    if takes.required == 2 and not coroutine and not makes:
        return Kind(WSGI, certain=not takes.fits(3))
    if takes.required == 1 and not coroutine and not makes and _like_scope(takes.names[0]):
        return Kind(ASGI2, certain=not takes.fits(2))
    return Kind(NONE, f"{what} that {takes.needs()}")


def _like_scope(name: str) -> bool:
    return "scope" in name or len(name) == 1


_ASYNC_WSGI = "a coroutine function with start_response, which is neither ASGI nor WSGI"


def is_async(thing: Any) -> bool:
    """Whether a call returns a coroutine, as far as can be seen. Follows partial, methods and __call__."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    if inspect.isroutine(thing) or isinstance(thing, type):
        return inspect.iscoroutinefunction(thing)
    return callable(thing) and inspect.iscoroutinefunction(type(thing).__call__)


def framework(thing: Any) -> str:
    """The known framework that an application comes from; "" if unknown. Looks through middleware."""
    found = ""
    for _ in range(16):
        thing = getattr(thing, "__self__", thing)
        homes = (name.partition(".")[0] for name in _classes(thing))
        found = next((home for home in homes if home in FRAMEWORKS), found)
        inner = getattr(thing, "__dict__", {})
        around = next(
            (inner[key] for key in ("app", "application", "wsgi_app", "asgi_app") if key in inner), None
        )
        if around is None or isinstance(around, type):
            return found
        thing = around
    return found


def described(thing: Any) -> str:
    """An object's type in a few words: `None`, `the str 'x'`, `an instance of pkg.Class`."""
    if thing is None or isinstance(thing, bool):
        return str(thing)
    if isinstance(thing, str | int | float):
        return f"the {type(thing).__name__} {thing!r:.40}"
    if inspect.ismodule(thing):
        return f"the module {thing.__name__}"
    cls = type(thing)
    home = "" if cls.__module__ == "builtins" else cls.__module__ + "."
    return f"an instance of {home}{cls.__qualname__}"
