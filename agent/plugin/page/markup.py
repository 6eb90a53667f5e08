"""HTML that is put together from escaped parts. Text becomes markup nowhere else.

Everything that is no Html is text: it is put on one line, what is no character for eyes (control characters, bidi
overrides, half surrogates) is written out, and all that is not ASCII becomes a character reference, so that no guess at
an encoding can turn it into something else.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from agent.plugin.views.table import cut
from agent.terminal import printable

_VOID = frozenset({"meta"})
_NAME = re.compile(r"[a-z][a-z0-9-]*")


class Html(str):
    """Markup that is safe to stand in the page."""

    __slots__ = ()


def text(value: object) -> Html:
    """Anything as text; Html stays what it is."""
    if isinstance(value, Html):
        return value
    words = str(value)
    # One space at either end is kept: parts of a sentence are put beside each other.
    ends = (" " if words[:1].isspace() else "", " " if words[-1:].isspace() and words.strip() else "")
    plain = html.escape(ends[0] + printable(words) + ends[1], quote=True)
    return Html(plain.encode("ascii", "xmlcharrefreplace").decode("ascii"))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Parts beside each other."""
    return Html(text(between).join(text(part) for part in parts))


def element(name: str, /, *inside: object, **attributes: object) -> Html:
    """An element. `class_` and `data_x` become class and data-x; True stands alone; None and False are left out.

    Refuses names that are none, attributes that run script and links that leave the page: ValueError.
    """
    written = []
    for key, value in attributes.items():
        plain = key.rstrip("_").replace("_", "-")
        if value is None or value is False:
            continue
        leaves = plain in ("href", "src", "action") and not str(value).startswith("#")
        if not _NAME.fullmatch(plain) or plain.startswith("on") or leaves:
            raise ValueError(f"attribute {plain}={value!r} does not belong into the page")
        written.append(f" {plain}" if value is True else f' {plain}="{text(value)}"')
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no element")
    start = f"<{name}{''.join(written)}>"
    return Html(start if name in _VOID else f"{start}{join(inside)}</{name}>")


def said(value: str, characters: int = 300) -> Html:
    """Words that somebody else wrote, kept apart from the words around them whatever their direction."""
    return element("bdi", cut(value, characters)) if value else Html("")


def command(value: str) -> Html:
    """A command of ours, to be typed."""
    return element("code", value)
