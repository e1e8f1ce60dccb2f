"""Whether a version is in a range of the forms that lock files use. Pure.

These are the release numbers of PEP 440 (https://peps.python.org/pep-0440/), and Poetry's caret, tilde and
`||`. Not for choosing versions: the tools do that.
"""

from __future__ import annotations

import re

_CLAUSE = re.compile(r"(===|==|!=|<=|>=|<|>|~=|\^|~)?\s*v?(\d+(?:\.\d+)*)(\.\*)?$")
_RELEASE = re.compile(r"v?(?:\d+!)?(\d+(?:\.\d+)*)")
_LONGEST = 6  # numbers that are compared


def satisfies(ranges: str, version: str) -> bool | None:
    """Whether `version` is in `ranges`, such as `>=3.11,<4`; None if a part cannot be understood."""
    found = _RELEASE.match(version)
    if found is None:
        return None
    answers = [_all(part, _numbers(found[1])) for part in ranges.split("||")]
    if True in answers:
        return True
    return None if None in answers else False


def _all(clauses: str, version: tuple[int, ...]) -> bool | None:
    answers = [_one(clause.strip(), version) for clause in clauses.split(",") if clause.strip()]
    if False in answers:
        return False
    return None if None in answers else True


def _one(clause: str, version: tuple[int, ...]) -> bool | None:
    if clause == "*":
        return True
    found = _CLAUSE.match(clause)
    if found is None:
        return None
    sign, text, star = found[1] or "==", found[2], bool(found[3])
    wanted, count = _numbers(text), text.count(".") + 1
    same = version[:count] == wanted[:count] if star else version == wanted
    match sign:
        case "==" | "===":
            return same
        case "!=":
            return not same
        case "<":
            return version < wanted
        case ">":
            return version > wanted
        case "<=":
            return version <= wanted
        case ">=":
            return version >= wanted
    return wanted <= version < _ceiling(wanted, count, sign)


def _ceiling(wanted: tuple[int, ...], count: int, sign: str) -> tuple[int, ...]:
    """The first incompatible version: 2 for `~=1.4`, 1.5 for `~1.4`, 2 for `^1.4`, 0.5 for `^0.4`."""
    if sign == "~=":
        place = max(count - 2, 0)
    elif sign == "~":
        place = min(count - 1, 1)
    else:
        place = next((at for at, number in enumerate(wanted[:count]) if number), count - 1)
    return (*wanted[:place], wanted[place] + 1, *[0] * (_LONGEST - place - 1))


def _numbers(text: str) -> tuple[int, ...]:
    numbers = [int(number) for number in text.split(".")][:_LONGEST]
    return (*numbers, *[0] * (_LONGEST - len(numbers)))
