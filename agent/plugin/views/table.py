"""Tables, ages and moments. Pure: no clock and no stream of its own.

It refuses to let a table grow wider than the terminal: elastic columns are cut, with an ellipsis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.terminal import Style
from agent.text import format_rfc3339

GOOD, BAD, WARN, FAINT, BOLD, BUSY = "32", "31;1", "33;1", "2", "1", "36"
_GAP = "  "


@dataclass(frozen=True, slots=True)
class Cell:
    """One entry of a table. colour: an SGR code, empty for none."""

    text: str
    colour: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. elastic: may be cut, down to `least` characters, where the terminal is too narrow."""

    title: str
    elastic: bool = False
    least: int = 8


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]], style: Style) -> str:
    """Title line and rows, each ending in a newline; the last column is never padded."""
    cells = [[Cell(one) if isinstance(one, str) else one for one in row] for row in rows]
    widths = [
        max([len(column.title), *(len(row[number].text) for row in cells)]) for number, column in enumerate(columns)
    ]
    if style.width is not None:
        _narrow(widths, columns, style.width - len(_GAP) * (len(columns) - 1))
    head = [Cell(column.title, BOLD) for column in columns]
    return "".join(_line(row, widths, style) for row in [head, *cells])


def cut(text: str, width: int) -> str:
    """The text in at most `width` characters."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def age(seconds: float) -> str:
    """How long, in the two largest units, as kubectl writes ages: `45s`, `3m20s`, `2h5m`, `4d3h`, `12d`."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole}s"
    if whole < 600:
        return _two(whole, 60, "m", 1, "s")
    if whole < 7200:
        return f"{whole // 60}m"
    if whole < 86400:
        return _two(whole, 3600, "h", 60, "m")
    if whole < 8 * 86400:
        return _two(whole, 86400, "d", 3600, "h")
    return f"{whole // 86400}d"


def _two(whole: int, first: int, one: str, second: int, two: str) -> str:
    rest = whole % first // second
    return f"{whole // first}{one}" + (f"{rest}{two}" if rest else "")


def since(moment: float, now: float) -> str:
    """The age of a moment; `-` for 0, which stands for never."""
    return age(now - moment) if moment > 0 else "-"


def stamp(moment: float) -> str:
    """A moment in UTC to the minute: `2026-01-31 22:00Z`; `-` for 0."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%MZ") if moment > 0 else "-"


def rfc3339(moment: float) -> str | None:
    """A moment for programs: `2026-01-31T22:00:00Z`; None for 0."""
    return format_rfc3339(moment) if moment > 0 else None


def count(number: int, noun: str, nouns: str = "") -> str:
    """`1 node`, `3 nodes`, `2 copies`."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def step(text: str, style: Style, *, indent: int = 2) -> list[str]:
    """What to do next, behind an arrow. A command is one line, however long: it is there to be pasted."""
    lead = " " * indent + style.paint("->", FAINT) + " "
    return [lead + text] if text.startswith("kubectl ") else style.wrap(text, lead=lead, indent=indent + 3)


def _narrow(widths: list[int], columns: Sequence[Column], width: int) -> None:
    """Takes from the widest elastic column first, one character at a time."""
    while sum(widths) > width:
        able = [number for number, one in enumerate(columns) if one.elastic and widths[number] > one.least]
        if not able:
            return
        widths[max(able, key=lambda number: widths[number])] -= 1


def _line(row: Sequence[Cell], widths: Sequence[int], style: Style) -> str:
    parts = []
    for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
        text = cut(cell.text, width)
        pad = " " * (width - len(text)) if number + 1 < len(row) else ""
        parts.append(style.paint(text, cell.colour) + pad)
    return _GAP.join(parts).rstrip() + "\n"
