"""Parse the text that names an application: `module:attribute`, a file, a factory call.

This is only about the syntax. Whether the application exists: application/discovery.py and
application/loader.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

APPLICATION_NAMES = ("app", "application", "api", "asgi", "wsgi")
FACTORY_NAMES = ("create_app", "make_app", "create_application", "get_app", "get_application")

EXPECTED = (
    "MODULE:ATTRIBUTE (app.main:app), MODULE:FACTORY() or PATH/TO/FILE.py:ATTRIBUTE; or without :ATTRIBUTE"
)
EXPECTED_MODULE = "a dotted module name (app.main)"
EXPECTED_ATTRIBUTE = "a name in the module (app), dotted (api.app), or a factory call (create_app())"

_NOT_IN_NAMES = frozenset(":/()\\")


class ImportString(NamedTuple):
    """A parsed text. Either `module` or `path` is empty; `attribute` is None if none was given."""

    module: str
    path: str
    attribute: str | None


class Attribute(NamedTuple):
    """A dotted name; with `call`, the literal arguments that a factory is called with."""

    names: tuple[str, ...]
    call: tuple[tuple[Any, ...], dict[str, Any]] | None = None


def parse(text: str) -> ImportString:
    """Parse an application's import string. Raises ValueError whose text says what was expected."""
    path, colon, rest = text.partition(":")
    attribute = rest if colon else None
    if path.endswith(".py") and "(" not in path:
        stem = path.rpartition("/")[2].removesuffix(".py")
        if not stem or "." in stem:
            raise ValueError(EXPECTED)
        module = ""
    else:
        module, path = path, ""
        if not _is_dotted(module):
            raise ValueError(EXPECTED)
    if attribute is not None:
        try:
            parse_attribute(attribute)
        except ValueError as error:
            raise ValueError(f"after the colon {error}") from None
    return ImportString(module, path, attribute)


def application(text: str) -> str:
    """An application's import string, unchanged. Raises ValueError whose text says what was expected."""
    parse(text)
    return text


def attribute(text: str) -> str:
    """A name in a module, unchanged. Raises ValueError whose text says what was expected."""
    parse_attribute(text)
    return text


def parse_module(text: str) -> str:
    """A module's dotted name. Raises ValueError whose text says what was expected."""
    if not _is_dotted(text) or text.endswith(".py"):
        raise ValueError(EXPECTED_MODULE)
    return text


def _is_dotted(text: str) -> bool:
    """Whether a text can be a module's dotted name. Compiling a regular expression for it would take 3 ms."""
    if any(character.isspace() or character in _NOT_IN_NAMES for character in text):
        return False
    return all(text.split("."))


def parse_attribute(text: str) -> Attribute:
    """Parse the part after the colon. Raises ValueError whose text says what was expected."""
    name, parenthesis, rest = text.partition("(")
    names = tuple(name.split("."))
    if not all(part.isidentifier() for part in names):
        raise ValueError(EXPECTED_ATTRIBUTE)
    if not parenthesis:
        return Attribute(names)
    if rest == ")":
        return Attribute(names, ((), {}))
    return Attribute(names, _literal_arguments(text))


def _literal_arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a factory call. They must be literals: no code is run. Raises ValueError."""
    import ast  # only for a call with arguments

    expected = "a factory call's arguments as literals: create_app('prod', debug=False)"
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name | ast.Attribute):
            raise ValueError(expected)
        positional = tuple(ast.literal_eval(argument) for argument in call.args)
        keywords = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords if word.arg}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise ValueError(expected) from None
    if len(keywords) != len(call.keywords):
        raise ValueError(expected)
    return positional, keywords
