"""The page's recurring parts: chips, tables that turn into cards on a phone, lists of nodes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.model import Severity
from agent.plugin.page.aggregate import Named
from agent.plugin.page.markup import Html, command, element, join, said, text
from agent.plugin.page.summary import Tone
from agent.plugin.views import table as render

_SIGNS = {
    Tone.GOOD: "\u2713",
    Tone.BAD: "\u2715",
    Tone.HELD: "!",
    Tone.WARN: "?",
    Tone.BUSY: "\u21bb",
    Tone.QUIET: "\u2013",
}
_SEVERITIES = {
    Severity.CRITICAL: (Tone.BAD, "!!"),
    Severity.HIGH: (Tone.BAD, "!"),
    Severity.MEDIUM: (Tone.HELD, "\u25b2"),
    Severity.LOW: (Tone.QUIET, "\u25bd"),
    Severity.INFO: (Tone.QUIET, "i"),
}
_NAMES_SHOWN = 8
PLAIN: Mapping[str, object] = {}  # the attributes of a row that has none


@dataclass(frozen=True, slots=True)
class Head:
    """A column. kind: its class (number, tight, words), empty for none."""

    title: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell. blank: nothing in it that a card would have to show. sort: what a click sorts by, if not its text."""

    inside: object
    blank: bool = False
    sort: str = ""


Line = tuple[Mapping[str, object], Sequence[Cell | object]]


def mark(tone: Tone) -> Html:
    """The sign of a tone; the words beside it say the same to who hears the page."""
    return element("span", _SIGNS[tone], class_="mark", aria_hidden="true")


def chip(tone: Tone, words: str) -> Html:
    """A state: sign, words and colour."""
    sign = mark(tone) if tone is not Tone.QUIET else Html("")
    return element("span", sign, words, class_=f"chip {tone.value}")


def severity(one: Severity) -> Html:
    """How much it matters."""
    tone, sign = _SEVERITIES[one]
    return element(
        "span", element("span", sign, class_="mark", aria_hidden="true"), one.value, class_=f"chip {tone.value}"
    )


def steps(some: Iterable[str]) -> Html:
    """Commands of ours below each other."""
    return join(element("span", command(one), class_="step") for one in some)


def node(name: str, anchors: Mapping[str, str]) -> Html:
    """A node's name, leading to its row where it has one."""
    where = anchors.get(name)
    return element("a", said(name), href=f"#{where}") if where else said(name)


def nodes(some: Named, anchors: Mapping[str, str]) -> Html:
    """How many, the first names, and the rest behind a click as far as they were kept."""
    first, more = some.names[:_NAMES_SHOWN], some.names[_NAMES_SHOWN:]
    shown = join((node(name, anchors) for name in first), ", ")
    if not more and some.total == len(first):
        return shown
    left = some.total - len(some.names)
    names = join((said(name) for name in more), ", ")
    rest = Html("") if not left else text(f" and {left:,} more that are not listed here")
    if not more:
        return join((shown, rest))
    title = f"and {some.total - len(first):,} more"
    return join((shown, element("details", element("summary", title), element("p", names, rest, class_="names"))))


def table(
    caption: str,
    heads: Sequence[Head],
    rows: Iterable[Line],
    **attributes: object,
) -> Html:
    """A table whose first column is each row's header. rows: the attributes of each, and its cells."""
    top = element("tr", *(element("th", head.title, scope="col", class_=head.kind or None) for head in heads))
    body = (element("tr", *_cells(heads, cells), **given) for given, cells in rows)
    return element(
        "table", element("caption", caption), element("thead", top), element("tbody", join(body, "\n")), **attributes
    )


def _cells(heads: Sequence[Head], cells: Sequence[Cell | object]) -> Iterable[Html]:
    for number, (head, given) in enumerate(zip(heads, cells, strict=True)):
        cell = given if isinstance(given, Cell) else Cell(given)
        kind = " ".join(part for part in (head.kind, "blank" if cell.blank else "") if part)
        if number == 0:
            yield element("th", cell.inside, scope="row", class_=kind or None, data_sort=cell.sort or None)
        else:
            # One child, so that label and content stand beside each other on a card.
            inside = element("span", cell.inside)
            yield element("td", inside, class_=kind or None, data_label=head.title, data_sort=cell.sort or None)


def section(name: str, title: str, *inside: object) -> Html:
    """A landmark with its heading."""
    heading = element("h2", title, id=f"{name}-title")
    return element("section", heading, *inside, id=name, aria_labelledby=f"{name}-title")


def none_or(value: str, *, characters: int = 120) -> Cell:
    """Somebody's words, or a dash where there are none."""
    return Cell(said(value, characters)) if value else Cell("\u2013", blank=True)


def age(moment: float, now: float) -> Cell:
    """How long ago; a dash for 0."""
    if not moment:
        return Cell("\u2013", blank=True, sort="0")
    return Cell(
        element("time", render.since(moment, now), datetime=render.rfc3339(moment)), sort=str(int(max(now - moment, 0)))
    )
