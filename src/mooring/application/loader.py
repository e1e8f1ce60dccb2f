"""Import the application and find out what it is: in a worker or a probe child, never in the supervisor.

Every failure is a BootError: one line that says what failed, where, and what to do, and the application's own
traceback. Which objects are applications, and of which interface: the table in kind.py.
"""

from __future__ import annotations

import difflib
import inspect
from types import ModuleType
from typing import Any

from mooring.application import asgi2, failure, importer, kind
from mooring.application.discovery import Target
from mooring.application.failure import BootError
from mooring.application.model import Application
from mooring.settings import import_string

__all__ = ["BootError", "load"]


def load(target: Target, interface: str) -> Application:
    """Import the application. `interface` is asgi, wsgi, or auto: as found in the application.

    Puts the target's folders first on sys.path and leaves them there. A factory is called, without an event
    loop. Raises BootError.
    """
    importer.search_first(target.search)
    module = importer.import_module(target)
    if target.attribute is None:
        return _load_open(target, module, interface)
    attribute = import_string.parse_attribute(target.attribute)
    name = f"{target.module}:{'.'.join(attribute.names)}"
    thing = _get(target, module, attribute.names)
    return _application(target, name, thing, attribute.call, interface)


# The attribute


def _get(target: Target, module: ModuleType, names: tuple[str, ...]) -> Any:
    """The value of a dotted attribute. Raises BootError, which suggests other attributes of the owner."""
    thing: Any = module
    for depth, name in enumerate(names):
        try:
            thing = getattr(thing, name)
        except AttributeError as error:
            if failure.frames(error):
                raise failure.failure(f"cannot read {target}", error, target.search) from None
            owner = ".".join((target.module, *names[:depth]))
            raise BootError(f"{owner} has no attribute {name}{_offer(thing, name)}") from None
        except Exception as error:
            raise failure.failure(f"cannot read {target}", error, target.search) from None
    return thing


def _offer(owner: Any, name: str) -> str:
    """A hint at what the user may have meant: similar names, and attributes that look like applications."""
    public = [each for each in vars(owner) if not each.startswith("_")] if hasattr(owner, "__dict__") else []
    near = difflib.get_close_matches(name, public, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    apps = [each for each in public if each not in near and _looks_right(vars(owner)[each], each)]
    if not apps:
        return hint
    return f"{hint}; what looks like an application there: {', '.join(apps[:5])}"


def _looks_right(thing: Any, name: str) -> bool:
    if kind.is_known(thing):
        return True
    usual = name in import_string.APPLICATION_NAMES + import_string.FACTORY_NAMES
    return usual and kind.kind(thing, name).name != kind.NONE


# No attribute is named


def _load_open(target: Target, module: ModuleType, interface: str) -> Application:
    """The application under a usual name, else the only one of a known framework, else from a usual factory.

    Raises BootError.
    """
    usual = import_string.APPLICATION_NAMES + import_string.FACTORY_NAMES
    name = _usual_name(module) or _only_known(target, module) or _usual_factory(module)
    name = name or next((each for each in usual if each in vars(module)), None)
    if name is None:
        raise BootError(
            f"{target.module} has no application: it has none of {', '.join(usual)}, and no known "
            f"framework's application under another name; name it: {target.module}:ATTRIBUTE"
        )
    return _application(target, f"{target.module}:{name}", vars(module)[name], None, interface)


def _usual_name(module: ModuleType) -> str | None:
    """The first usual name under which there certainly is an application.

    An ASGI or WSGI callable called `app` or `application` is one. Under another name, such as `api`, a
    function may be a view, and an object may be a router: these are passed over.
    """
    for name in import_string.APPLICATION_NAMES:
        thing = vars(module).get(name)
        if kind.kind(thing, name).name in kind.INTERFACES:
            view = inspect.isfunction(thing) and not kind.named_so(thing)
            if name in ("app", "application") or not (view or type(thing).__name__.endswith("Router")):
                return name
    return None


def _only_known(target: Target, module: ModuleType) -> str | None:
    """The one public name of a known framework's application. Raises BootError for several."""
    found: dict[int, str] = {}
    for name, thing in vars(module).items():
        if not name.startswith("_") and kind.is_known(thing):
            found.setdefault(id(thing), name)
    if len(found) > 1:
        names = " or ".join(f"{target.module}:{name}" for name in found.values())
        raise BootError(f"{target.module} has several applications; say which: {names}")
    return next(iter(found.values()), None)


def _usual_factory(module: ModuleType) -> str | None:
    for name in import_string.FACTORY_NAMES + import_string.APPLICATION_NAMES:
        if kind.kind(vars(module).get(name), name).name == kind.FACTORY:
            return name
    return None


# What the object is


def _application(
    target: Target, name: str, thing: Any, call: tuple[tuple[Any, ...], dict[str, Any]] | None, interface: str
) -> Application:
    """The object as an Application; if it is a factory, what it returns. Raises BootError."""
    found = kind.kind(thing, name.rpartition(":")[2])
    if call is not None or found.name == kind.FACTORY:
        thing = _call(target, name, thing, *(call or ((), {})))
        name += "()" if call is None or call == ((), {}) else "(" + (target.attribute or "").partition("(")[2]
        found = kind.kind(thing)
        if found.name in (kind.NONE, kind.FACTORY):
            why = found.why or f"{kind.described(thing)}, which is another factory"
            raise BootError(f"{name} returned {why}: expected an ASGI or WSGI application")
    if found.name == kind.NONE:
        raise BootError(f"{name} is {found.why}; {_EXPECTED}")
    served = _interface(name, thing, found, interface)
    if found.name == kind.ASGI2 and served == "asgi":
        return Application(asgi2.adapt(thing), served, kind.framework(thing), name)
    return Application(thing, served, kind.framework(thing), name)


def _call(target: Target, name: str, factory: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Call a factory, without an event loop. Raises BootError."""
    if not callable(factory):
        raise BootError(f"factory {name} is {kind.described(factory)}, which is not callable")
    if kind.is_async(factory):
        raise BootError(
            f"factory {name} is a coroutine function, but is called without an event loop: make it a def"
        )
    try:
        inspect.signature(factory).bind(*args, **keywords)
    except TypeError as error:
        raise BootError(
            f"factory {name} cannot be called like this: {failure.one_line(error)}; {_ARGUMENTS}"
        ) from None
    except Exception:
        pass  # compiled code that cannot be inspected: try the call
    try:
        made = factory(*args, **keywords)
    except BaseException as error:
        raise failure.failure(f"factory {name} failed", error, target.search) from None
    if inspect.iscoroutine(made):
        made.close()
    return made


_ARGUMENTS = "literal arguments can be given: MODULE:create_app('prod', debug=False)"
_EXPECTED = "expected an ASGI or WSGI application or a factory of one (" + _ARGUMENTS + ")"


def _interface(name: str, thing: Any, found: kind.Kind, interface: str) -> str:
    """The interface. Raises BootError if it is unclear, or if the forced one is certainly wrong."""
    told = kind.INTERFACES.get(found.name)
    if told is None and interface == "auto":
        hint = _hint(name)
        if hint:
            return hint
        raise BootError(
            f"cannot tell whether {name} is ASGI or WSGI: it is {found.why}; set MOORING_INTERFACE"
        )
    if told is None or (interface not in ("auto", told) and not found.certain):
        return interface
    if interface in ("auto", told):
        return told
    what = "ASGI 2" if found.name == kind.ASGI2 else told.upper()
    raise BootError(f"the interface is forced to {interface}, but {name} is {kind.described(thing)}, {what}")


def _hint(name: str) -> str:
    """The interface that is part of a name such as mysite.wsgi:application; "" if there is none."""
    words = name.replace(":", ".").replace("_", ".").split(".")
    return next((interface for interface in ("asgi", "wsgi") if interface in words), "")
