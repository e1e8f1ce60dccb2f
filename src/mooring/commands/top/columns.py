"""Cut and wrap lines of styled text to a terminal's width, and set them in columns. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """A piece of a line. `style` is one of good, busy, bad, strong, dim, head, or nothing."""

    text: str
    style: str = ""


ScreenLine = list[Span]


def columns(text: str) -> int:
    """How many columns of a terminal a printable text takes: wide East Asian characters two, marks none."""
    if text.isascii():
        return len(text)
    return sum(_columns(char) for char in text)


def _columns(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def clip(row: Iterable[Span], width: int) -> ScreenLine:
    """The row, cut to `width` columns; if it was cut, its last column is an ellipsis."""
    row = list(row)
    if sum(columns(span.text) for span in row) <= width:
        return row
    kept: ScreenLine = []
    left = width - 1
    for span in row:
        text = ""
        for char in span.text:
            left -= _columns(char)
            if left < 0:
                return [*kept, Span(f"{text}…", span.style)]
            text += char
        kept.append(Span(text, span.style))
    return kept


def wrap(parts: Sequence[str], width: int) -> list[ScreenLine]:
    """The parts joined with commas, on as many lines as needed; a part longer than a line is cut."""
    lines = [""]
    for part in parts:
        joined = f"{lines[-1]}, {part}" if lines[-1] else part
        if columns(joined) <= width or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(part)
    return [clip([Span(line)], width) for line in lines]


def fit_columns(
    table: Sequence[Sequence[Span]],
    least: Sequence[int],
    words: Container[int],
    drop: Sequence[int],
    width: int,
) -> list[ScreenLine]:
    """The table's rows as lines: columns in `words` are left-aligned, others right-aligned.

    `least` is the minimum width of each column. If the table is wider than `width`, first the gaps shrink,
    then the columns in `drop` are left out, in that order.
    """
    widths = [max(room, *(columns(row[place].text) for row in table)) for place, room in enumerate(least)]
    shown = list(range(len(widths)))
    for gone in (None, *drop):
        if gone is not None:
            shown.remove(gone)
        for gap in (2, 1):
            if sum(widths[place] + gap for place in shown) - gap <= width:
                return [_line(row, widths, shown, words, gap) for row in table]
    return [clip(_line(row, widths, shown, words, 1), width) for row in table]


def _line(
    row: Sequence[Span], widths: list[int], shown: list[int], words: Container[int], gap: int
) -> ScreenLine:
    line: ScreenLine = []
    for place in shown:
        span = row[place]
        padding = " " * (widths[place] - columns(span.text))
        text = span.text + padding if place in words else padding + span.text
        line += [Span(" " * gap)] * bool(line) + [Span(text, span.style)]
    return line
